"""Start a trainer in its own session, and learn whether it accepted its recipe."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from cmbench.errors import CmbenchError
from cmbench.rundir import group
from cmbench.rundir.files import open_to_append
from cmbench.rundir.layout import RunDir

_MAIN = Path(__file__).absolute().parents[1] / "__main__.py"
_HANDSHAKE = "CMBENCH_HANDSHAKE"
_POLL = 0.05  # seconds
_ROOM = 2**16  # bytes kept for an answer, which thus arrives on a full disk too
_TAIL = 4096  # bytes of a trainer's output in which its last line is looked for


class RefusedError(CmbenchError):
    """No trainer started, or it ended before it had a run directory; carries its exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def command(*arguments: str) -> list[str]:
    """Return the command line of `cmbench <arguments>`: by file, since with -m Python searches the current folder."""
    return [sys.executable, str(_MAIN), *arguments]


@contextmanager
def starting() -> Iterator[None]:
    """Turn system errors about a trainer's files and processes into RefusedError."""
    try:
        yield
    except OSError as error:  # a full /tmp, or too many processes or open files
        raise RefusedError(f"no trainer can be started: {error.strerror or error}") from None


def subject_of(arguments: Sequence[str]) -> str:
    """Return a readable name of what a command trains: a recipe's file, a run, or a fork's parent."""
    named = [text for text in arguments[1:] if text != "--from"]
    return Path(named[0]).name if named else ""


class Meeting:
    """A folder where a trainer leaves its answer for its starter: the first answer of any of its ranks.

    Neither waits for the other, so either may die. If the starter has, the trainer removes the folder.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cmbench-", ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        try:
            (self.path / "free").write_bytes(b" " * _ROOM)
        except OSError:
            self._folder.cleanup()
            raise

    def __enter__(self) -> "Meeting":
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a trainer that is to answer here."""
        return {**group.outside(), _HANDSHAKE: f"{os.getpid()}:{self.path}"}

    def heard(self, process: "subprocess.Popen[bytes]") -> dict[str, Any] | None:
        """Wait for the answer, and return it; None if the process has ended without one."""
        while process.poll() is None:
            if answer := self._answer():
                return answer
            time.sleep(_POLL)
        return self._answer()

    def _answer(self) -> dict[str, Any] | None:
        try:
            return json.loads((self.path / "answer").read_bytes())
        except OSError:
            return None


class Start:
    """A trainer in its own session, `cmbench <arguments> --foreground`, that accepts or refuses after a while.

    It survives when the terminal is closed: it leads its session, reads /dev/null and prints to console.log.

    Attributes:
        subject: a readable name of what it trains: a recipe's file or a run.

    Raises:
        RefusedError: no trainer can be started.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.subject = subject_of(arguments)
        self._lock = threading.Lock()  # guards the answer, for which several threads may wait
        self._answer: dict[str, Any] | None = None
        with ExitStack() as files, starting():
            self._output = files.enter_context(tempfile.TemporaryFile())
            self._meeting = files.enter_context(Meeting())
            self._process = subprocess.Popen(
                command(*arguments, "--foreground"),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,
                env=self._meeting.environment,
            )
            self._files = files.pop_all()

    @property
    def is_answered(self) -> bool:
        """Whether `wait` returns at once."""
        return self._answer is not None

    def said(self) -> str:
        """Return the last whole line that the trainer has printed; empty if there is none, or once it has answered."""
        with suppress(OSError, ValueError):  # closed meanwhile
            descriptor = self._output.fileno()
            end = os.fstat(descriptor).st_size
            # not by a seek: the trainer writes at the same place
            *lines, _ = os.pread(descriptor, _TAIL, max(0, end - _TAIL)).decode(errors="replace").split("\n")
            return lines[-1].strip() if lines and not self.is_answered else ""
        return ""

    def wait(self) -> RunDir:
        """Wait until the trainer has accepted, and return its run. Several calls and threads are allowed.

        Raises:
            RefusedError: the trainer refused, in one line, or ended without an answer.
        """
        with self._lock:
            if self._answer is None:
                self._answer = self._heard()
                self._files.close()
        if "run" in self._answer:
            return RunDir(Path(self._answer["run"]))
        raise RefusedError(self._answer["error"], self._answer["exit_code"])

    def cancel(self) -> None:
        """End the trainer; if it has accepted meanwhile, it stops with a checkpoint."""
        self._process.terminate()
        self._process.wait()
        with self._lock:
            self._answer = self._answer or {"error": f"{self.subject}: cancelled", "exit_code": 130}
            self._files.close()

    def _heard(self) -> dict[str, Any]:
        """Return the answer, or if there is none, the last printed line as an error."""
        answer = self._meeting.heard(self._process)
        if answer is None or "run" not in answer:
            self._process.wait()
        self._output.seek(0)
        early = self._output.read()
        if answer is None:
            return {"error": last_words(early), "exit_code": self._process.returncode or 1}
        if "run" in answer and early:
            console = RunDir(Path(answer["run"])).console
            with suppress(OSError), os.fdopen(open_to_append(console), "ab") as file:
                file.write(early)
        return answer


def last_words(output: bytes) -> str:
    """Return the error that a trainer has printed without an answer: its last line, or the last that is ours."""
    lines = output.decode(errors="replace").strip().splitlines()
    ours = [line for line in lines if line.startswith("cmbench: ")]
    return (ours or lines or ["the trainer ended without a word"])[-1].removeprefix("cmbench: ")


def start_detached(arguments: Sequence[str]) -> RunDir:
    """Start a trainer as `Start` does, and wait until it accepts or refuses.

    Raises:
        RefusedError: the trainer refused, in one line, or cannot be started.
    """
    start = Start(arguments)
    try:
        return start.wait()
    except RefusedError:
        raise
    except BaseException:  # Ctrl-C while the recipe is built: no trainer may stay behind
        start.cancel()
        raise


def is_detached() -> bool:
    """Return whether this process is a detached trainer that has not answered yet."""
    return _HANDSHAKE in os.environ


def accept(run: RunDir) -> bool:
    """In a detached trainer: print to console.log from now on, and tell the starter which run this is.

    Returns whether this process is a detached trainer.

    Raises:
        OSError: console.log cannot be opened.
    """
    if not is_detached():
        return False
    console = open_to_append(run.console)
    for stream in (1, 2):
        os.dup2(console, stream)
    os.close(console)
    _answer({"run": str(run.path.resolve()), "pid": os.getpid()})
    return True


def refuse(error: CmbenchError) -> bool:
    """In a detached trainer that has not accepted: pass its error to the starter."""
    return _answer({"error": str(error), "exit_code": error.exit_code})


def _answer(message: dict[str, object]) -> bool:
    """Leave an answer, unless another rank has left one. Return whether this process is a detached trainer."""
    if (value := os.environ.pop(_HANDSHAKE, None)) is None:
        return False
    starter, _, folder = value.partition(":")
    if not psutil.pid_exists(int(starter)):  # a closed terminal took it with it
        shutil.rmtree(folder, ignore_errors=True)
        return True
    own = Path(folder, f"of-{os.getpid()}")
    with suppress(OSError):
        Path(folder, "free").rename(own)  # only one process can
        with own.open("r+b") as file:
            file.write(json.dumps(message).encode())  # JSON keeps the bytes of a path that is not UTF-8
        own.rename(Path(folder, "answer"))
    return True
