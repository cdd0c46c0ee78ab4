"""Starting a trainer in a session of its own, and learning whether it accepted its recipe."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cmbench.errors import CmbenchError
from cmbench.rundir.files import open_to_append
from cmbench.rundir.layout import RunDir

_MAIN = Path(__file__).absolute().parents[1] / "__main__.py"
_HANDSHAKE = "CMBENCH_HANDSHAKE_FD"


class RefusedError(CmbenchError):
    """There is no trainer, or it ended before it had a run directory; carries its exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def command(*arguments: str) -> list[str]:
    """Return how to run `cmbench <arguments>` as a process: by its file, for with -m Python looks here first."""
    return [sys.executable, str(_MAIN), *arguments]


@contextmanager
def starting() -> Iterator[None]:
    """Turn what the system says against files and processes for a trainer into RefusedError."""
    try:
        yield
    except OSError as error:  # a full /tmp, or too many processes or open files
        raise RefusedError(f"no trainer can be started: {error.strerror or error}") from None


def start_detached(arguments: Sequence[str]) -> RunDir:
    """Start `cmbench <arguments> --foreground` detached from the terminal, and wait until it accepts or refuses.

    The trainer survives a closed terminal: it leads a session of its own, reads /dev/null and prints to console.log.

    Raises:
        RefusedError: the trainer said no, in one line, or cannot be started.
    """
    with ExitStack() as files:
        with starting():
            output = files.enter_context(tempfile.TemporaryFile())
            read_end, write_end = os.pipe()
            pipe = files.enter_context(os.fdopen(read_end, "rb"))
            with os.fdopen(write_end, "wb"):  # here; the trainer has it too
                process = subprocess.Popen(
                    command(*arguments, "--foreground"),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=(write_end,),
                    env={**os.environ, _HANDSHAKE: str(write_end)},
                )
        try:
            answer = pipe.read()
        except BaseException:  # Ctrl-C while the recipe is built: no trainer may stay behind
            process.terminate()
            process.wait()
            raise
        if not answer:
            process.wait()
        output.seek(0)
        early = output.read()
        if not answer:
            lines = early.decode(errors="replace").strip().splitlines()
            raise RefusedError(
                lines[-1].removeprefix("cmbench: ") if lines else "the trainer ended without a word",
                process.returncode or 1,
            )
    message = json.loads(answer)
    if "run" in message:
        run = RunDir(Path(message["run"]))
        if early:
            with suppress(OSError), os.fdopen(open_to_append(run.console), "ab") as console:
                console.write(early)
        return run
    raise RefusedError(message["error"], message["exit_code"])


def accept(run: RunDir) -> bool:
    """In a detached trainer: print to console.log from now on, and tell the starter which run this is.

    Returns whether this process is a detached trainer at all.

    Raises:
        OSError: there can be no console.log.
    """
    if _HANDSHAKE not in os.environ:
        return False
    console = open_to_append(run.console)
    for stream in (1, 2):
        os.dup2(console, stream)
    os.close(console)
    if (end := _take_handshake()) is not None:
        _answer(end, {"run": str(run.path.resolve())})
    return True


def refuse(error: CmbenchError) -> bool:
    """In a detached trainer that has not accepted: hand its error to the starter."""
    if (end := _take_handshake()) is None:
        return False
    _answer(end, {"error": str(error), "exit_code": error.exit_code})
    return True


def _take_handshake() -> int | None:
    value = os.environ.pop(_HANDSHAKE, None)
    return None if value is None else int(value)


def _answer(end: int, message: dict[str, object]) -> None:
    with os.fdopen(end, "wb") as pipe:
        pipe.write(json.dumps(message).encode())  # which keeps the bytes of a path that is no UTF-8
