"""The command line as these attacks call it, and what every answer of it must be."""

import atexit
import contextlib
import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import built_once  # noqa: F401
from tiny import TINY

from cmbench.cli import main
from torture import _processes
from torture._processes import Ended

CODES = (0, 2, 3, 4, 5, 75)  # of the README, without 1: failed
LONGEST = 600  # characters of a message
# Control and format characters beside newline and tab: what moves the cursor, rings, or turns text around.
HOSTILE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\udc80-\udcff]")


@functools.cache
def scratch() -> Path:
    """Make the folder for all that is temporary: in memory where there is some, for an fsync is no part of attacks.

    It goes when the process that asked first ends, with what killed children have left there.
    """
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=memory if os.access(memory, os.W_OK) else None))
    folder.chmod(0o755)  # for other users
    maker = os.getpid()
    atexit.register(lambda: os.getpid() == maker and shutil.rmtree(folder, ignore_errors=True))
    return folder


@contextlib.contextmanager
def workplace(template: Path | None = None) -> Iterator[Path]:
    """Yield a folder with the tiny recipe, an empty runs folder or a copy of `template`, and a home of its own."""
    with tempfile.TemporaryDirectory(dir=scratch(), ignore_cleanup_errors=True) as made:
        folder = Path(made)
        (folder / "home").mkdir()
        (folder / "tiny.toml").write_text(TINY)
        if template is None:
            (folder / "runs").mkdir()
        else:
            shutil.copytree(template, folder / "runs", symlinks=True)
        yield folder


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a user who works in a folder."""
    kept = {
        key: os.environ[key]
        for key in ("PATH", "OMP_NUM_THREADS", "PYTHONPATH", "LD_LIBRARY_PATH")
        if key in os.environ
    }
    ours = {"HOME": f"{folder}/home", "XDG_CONFIG_HOME": f"{folder}/home/.config", "LANG": "C.UTF-8"}
    return {**kept, **ours, "TERM": "xterm-256color", "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Be a user who works in a folder, in this process."""
    before, here = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(environment(folder))
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def cmbench(folder: Path, *arguments: str, seconds: float = 120.0, **options: Any) -> Ended:
    """Run a command in a child, in the folder of a user."""
    cwd = options.pop("cwd", folder)
    return _processes.forked(lambda: call(arguments), cwd, environment(folder), seconds, **options)


def call(arguments: Sequence[str]) -> None:
    """Run a command in this process; ends by SystemExit, as a process of it does."""
    sys.argv = ["cmbench", *arguments]
    main.main()


def captured(arguments: Sequence[str]) -> Ended:
    """Run a command in this process, and return what it printed to the descriptors of both streams."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams, kept = (sys.stdout, sys.stderr), [os.dup(1), os.dup(2)]
        for stream in streams:
            stream.flush()
        for number, file in enumerate((out, err), 1):
            os.dup2(file.fileno(), number)
        try:
            code = _processes.exit_code(lambda: call(arguments))
        finally:
            for stream in streams:
                stream.flush()
            for number, copy in enumerate(kept, 1):
                os.dup2(copy, number)
                os.close(copy)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "surrogateescape"))
    return Ended(code, *texts)


def complaint(ended: Ended, codes: Collection[int] = CODES) -> str:
    """Return what is wrong with an answer, or an empty string.

    A command ends by itself with a documented exit code, and not with 1, which says that something was not foreseen.
    What is refused is refused in one line of bounded length; nothing hostile is printed.
    """
    if ended.hung:
        return f"hung: {_end(ended.err or ended.out)}"
    if ended.code not in codes:
        return f"exit code {ended.code}, allowed: {', '.join(map(str, sorted(codes)))}: {_end(ended.err)}"
    if "Traceback" in ended.err or "CMBENCH_DEBUG" in ended.err:
        return f"not foreseen: {_end(ended.err)}"
    lines = ended.err.strip("\n").split("\n")
    if ended.code in (2, 4, 5) and (len(lines) != 1 or not ended.err.startswith("cmbench: ")):
        return f"exit code {ended.code} with {len(lines)} lines, allowed: one: {_end(ended.err)}"
    if longest := max((len(line) for line in lines if len(line) > LONGEST), default=0):
        return f"a message of {longest} characters: {lines[0][:80]}"
    if found := HOSTILE.search(ended.out + ended.err):
        return f"printed {found[0]!a}"
    return ""


def _end(text: str) -> str:
    return " ".join(text[-400:].split())
