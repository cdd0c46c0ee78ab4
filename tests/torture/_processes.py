"""Commands in forked children: torch is imported once, and a hang, a flood of memory or a crash ends one child."""

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

MEMORY = 1 << 30  # bytes that a child may take beyond what its parent had
_SYSTEM, _DIE_WITH_PARENT = ctypes.CDLL(None), 1  # PR_SET_PDEATHSIG
BUG = 70  # a child that ended by an exception


class Ended(NamedTuple):
    """How a child ended; `code` is minus the signal's number, `hung` says that it had to be killed."""

    code: int
    out: str
    err: str
    hung: bool = False


def forked(
    function: Callable[[], Any],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = 120.0,
    memory: int | None = MEMORY,
) -> Ended:
    """Call a function in a child, and return what it printed and how it ended. SystemExit is its exit code."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = start(function, (out.fileno(), err.fileno()), cwd, env, memory)
        status = wait(pid, seconds)
        texts = [_text(file) for file in (out, err)]
    if status is None:
        return Ended(-signal.SIGKILL, *texts, hung=True)
    return Ended(os.waitstatus_to_exitcode(status), *texts)


def _text(file: Any, limit: int = 1 << 24) -> str:
    file.seek(0)
    return file.read(limit).decode("utf-8", "surrogateescape")


def start(
    function: Callable[[], Any],
    streams: tuple[int, int],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    memory: int | None = MEMORY,
    stdin: int | None = None,
) -> int:
    """Fork a child in a group of its own that calls a function, and return its pid."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if pid := os.fork():
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = BUG
    try:
        _SYSTEM.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        _become_fresh(streams, cwd, env, memory, stdin)
        code = exit_code(function)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException:
        traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
    finally:
        os._exit(code)


def _become_fresh(
    streams: tuple[int, int], cwd: Path | None, env: Mapping[str, str] | None, memory: int | None, stdin: int | None
) -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if cwd is not None:
        os.chdir(cwd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    if memory is not None:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))


def exit_code(function: Callable[[], Any]) -> int:
    """Call a function that may end by SystemExit, and return the exit code that a process of it has."""
    try:
        function()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def wait(pid: int, seconds: float) -> int | None:
    """Wait for a child, and return its status; None where it had to be killed, with all of its group."""
    deadline, pause = time.monotonic() + seconds, 0.001
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            _kill_group(pid)
            return status
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    _kill_group(pid)
    os.waitpid(pid, 0)
    return None


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def each(cases: Sequence[Any], check: Callable[[Any], str], seconds: float) -> Iterator[str]:
    """Check cases one after the other in a child; another takes over behind a case that hangs or ends it."""
    done = 0
    while done < len(cases):
        read_end, write_end = os.pipe()
        todo = cases[done:]
        with tempfile.TemporaryFile() as log:
            pid = start(lambda todo=todo, end=write_end: _tell(todo, check, end), (log.fileno(),) * 2)
            os.close(write_end)
            with os.fdopen(read_end, "rb", buffering=0) as pipe:
                for line in _lines(pipe, seconds):
                    done += 1
                    yield orjson.loads(line)
            alive = os.waitpid(pid, os.WNOHANG) == (0, 0)
            status = wait(pid, 1.0) if alive else 0
            if done < len(cases):
                done += 1
                how = "hung" if status is None else "ended its process"
                yield f"{how}: {' '.join(_text(log)[-300:].split())}"


def _tell(cases: Sequence[Any], check: Callable[[Any], str], end: int) -> None:
    for case in cases:
        try:
            lost = check(case)
        except Exception as error:
            lost = f"the check ended by {type(error).__name__}: {error}"
        os.write(end, orjson.dumps(lost.encode("utf-8", "backslashreplace").decode()[:2000]) + b"\n")


def _lines(pipe: Any, seconds: float) -> Iterator[bytes]:
    """Yield lines as they come, until the other end is closed or nothing came for so long."""
    rest = b""
    while select.select([pipe], [], [], seconds)[0]:
        if not (new := os.read(pipe.fileno(), 1 << 16)):
            return
        *whole, rest = (rest + new).split(b"\n")
        yield from whole
