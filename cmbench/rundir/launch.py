"""Start a trainer in its own session, and learn whether it accepted its recipe."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cmbench.errors import CmbenchError
from cmbench.rundir.files import open_to_append
from cmbench.rundir.layout import RunDir

_MAIN = Path(__file__).absolute().parents[1] / "__main__.py"
_HANDSHAKE = "CMBENCH_HANDSHAKE_FD"


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
            read_end, write_end = os.pipe()
            self._pipe = files.enter_context(os.fdopen(read_end, "rb"))
            with os.fdopen(write_end, "wb"):  # closed here; the trainer keeps its copy
                self._process = subprocess.Popen(
                    command(*arguments, "--foreground"),
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    start_new_session=True,
                    pass_fds=(write_end,),
                    env={**os.environ, _HANDSHAKE: str(write_end)},
                )
            self._files = files.pop_all()

    @property
    def is_answered(self) -> bool:
        """Whether `wait` returns at once."""
        return self._answer is not None

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
            self._files.close()

    def _heard(self) -> dict[str, Any]:
        """Return the answer, or if there is none, the last printed line as an error."""
        answer = self._pipe.read()
        if not answer:
            self._process.wait()
        self._output.seek(0)
        early = self._output.read()
        if not answer:
            lines = early.decode(errors="replace").strip().splitlines()
            error = lines[-1].removeprefix("cmbench: ") if lines else "the trainer ended without a word"
            return {"error": error, "exit_code": self._process.returncode or 1}
        message = json.loads(answer)
        if "run" in message and early:
            console = RunDir(Path(message["run"])).console
            with suppress(OSError), os.fdopen(open_to_append(console), "ab") as file:
                file.write(early)
        return message


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
    if (end := _take_handshake()) is not None:
        _answer(end, {"run": str(run.path.resolve())})
    return True


def refuse(error: CmbenchError) -> bool:
    """In a detached trainer that has not accepted: pass its error to the starter."""
    if (end := _take_handshake()) is None:
        return False
    _answer(end, {"error": str(error), "exit_code": error.exit_code})
    return True


def _take_handshake() -> int | None:
    value = os.environ.pop(_HANDSHAKE, None)
    return None if value is None else int(value)


def _answer(end: int, message: dict[str, object]) -> None:
    with suppress(BrokenPipeError), os.fdopen(end, "wb") as pipe:  # a closed terminal took the starter with it
        pipe.write(json.dumps(message).encode())  # JSON keeps the bytes of a path that is not UTF-8
