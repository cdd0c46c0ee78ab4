"""Several trainers as separate processes, a few at a time. A signal stops them all with checkpoints."""

import os
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from cmbench.cli import _signals
from cmbench.rundir import group, launch

_POLL = 0.1  # seconds


@dataclass(frozen=True)
class Accepted:
    """A trainer has its run directory, whose name is the first line that it prints."""

    index: int
    run: str


@dataclass(frozen=True)
class Ended:
    """A trainer has ended. `error` is its last error line, without "cmbench: "."""

    index: int
    exit_code: int
    error: str


@dataclass
class Processes:
    """Runs each `cmbench <command>`, `at_once` at a time, in the order given.

    Attributes:
        commands: the arguments of each.
        at_once: how many at a time.
        environment: variables that they get in addition to those of this process.
        pool: further variables; each process gets those that the fewest others have, such as a GPU of its own.
        stopped: whether a signal has asked to stop; nothing is started after that.
    """

    commands: Sequence[Sequence[str]]
    at_once: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    pool: Sequence[Mapping[str, str]] = ()
    stopped: bool = False

    def events(self) -> Generator[Accepted | Ended, None, None]:
        """Yield what happens until all have ended. Signals that ask for an end are passed on; then nothing more starts.

        Each signal is passed on as it is: a trainer that is still being built, or gets a batch system's announcement
        twice, knows what it means. To leave earlier, close the generator: running trainers then stop with a checkpoint.

        Raises:
            RefusedError: a trainer cannot be started; the others then stop with a checkpoint.
        """
        waiting, running = deque(enumerate(self.commands)), list[_Process]()
        with _received() as signals, ExitStack() as files:
            try:
                while running or (waiting and not self.stopped):
                    while waiting and len(running) < self.at_once and not signals and not self.stopped:
                        with launch.starting():
                            said = [files.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
                            running.append(_Process(*waiting.popleft(), self.environment, self._place(running), *said))
                    while signals:  # also reaches trainers that were started meanwhile
                        self.stopped = True
                        _pass_on(signals.pop(0), running)
                    for process in list(running):
                        yield from process.news()
                        if process.is_over:
                            running.remove(process)
                            process.close()  # of a thousand, too few files could be open
                    time.sleep(_POLL)
            finally:
                if not self.stopped:  # a second signal would end them without a checkpoint
                    _pass_on(signal.SIGTERM, running)
                for process in running:
                    process.popen.wait()

    def _place(self, running: "Sequence[_Process]") -> Mapping[str, str]:
        """Return the variables of the pool that the fewest running processes have."""
        taken = [process.place for process in running]
        return min(self.pool, key=taken.count, default={})


class _Process:
    """One trainer in its own session, so that Ctrl-C reaches it only once, through us: a second one would kill it."""

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        place: Mapping[str, str],
        output: IO[bytes],
        errors: IO[bytes],
    ) -> None:
        self.index, self.place, self.is_over, self._accepted = index, place, False, False
        self._output, self._errors = output, errors
        self.popen = subprocess.Popen(
            launch.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            env={**group.outside(), **environment, **place},
        )

    def news(self) -> Iterator[Accepted | Ended]:
        """Yield what has happened since the last call."""
        exit_code = self.popen.poll()  # before reading, so that the last output is not missed
        first, newline, _ = os.pread(self._output.fileno(), 4096, 0).partition(b"\n")
        if newline and not self._accepted:
            self._accepted = True
            yield Accepted(self.index, first.decode())
        if exit_code is not None:
            self.is_over = True
            yield Ended(self.index, exit_code, self._last_error(exit_code))

    def close(self) -> None:
        """Close the files of what it has printed."""
        self._output.close()
        self._errors.close()

    def _last_error(self, exit_code: int) -> str:
        if exit_code < 0:
            return f"ended by {signal.Signals(-exit_code).name}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("cmbench: ") if lines else f"exit code {exit_code}"


def _pass_on(number: int, processes: Sequence[_Process]) -> None:
    for each in processes:
        each.popen.send_signal(number)


@contextmanager
def _received() -> Iterator[list[int]]:
    """Collect signals instead of acting on them between two statements."""
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    with _signals.passed_to(note):
        yield signals
