"""A FIFO, a device, a folder, a loop, a socket, a huge or sparse file, in the place of each file of one run of two."""

import json
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced

FILES = (
    "recipe.toml",
    "meta.json",
    "status.json",
    "metrics.jsonl",
    "profiles.jsonl",
    "events.jsonl",
    "annotations.json",
    "console.log",
    "lock",
    "checkpoints",
    "checkpoints/00000009",
    "checkpoints/00000009/state.json",
    "checkpoints/00000009/model.safetensors",
    "snapshots",
    "snapshots/00000006_1step.png",
    "control",
    "control/1764375000000000000-ab12.json",
    "evaluations",
    "../latest",
    "../stray",
)
OTHER = "other-20260101-000000-0001"  # a sound run beside it
VIEWS = {
    "ls": ("ls",),
    "ls --json": ("ls", "--json"),
    "show": ("show", "RUN"),
    "watch": ("watch", "RUN"),
    "watch --plain": ("watch", "RUN", "--plain"),
    "compare": ("compare", "RUN", OTHER, "--plain"),
}
MEMORY = 160 << 20  # bytes that a view may take beyond the modules it has


class Kind(NamedTuple):
    """A kind of file in the place of one."""

    file: str
    kind: str


def _socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)
    os.close(here)


def _long_line(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"step":1,"loss":0.5,"x":"')
        for _ in range(25):
            file.write(b"x" * (4 << 20))


def _numbers(path: Path) -> None:
    """A valid JSON object of 100 MB."""
    with path.open("wb") as file:
        file.write(b'{"state":"finished","step":1,"a":[')
        file.write(b"1," * (50 << 20))
        file.write(b"1]}\n")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 33)


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a folder": lambda path: (path / "in it").mkdir(parents=True),
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a loop of links": lambda path: path.symlink_to(path.name),
    "a link upwards": lambda path: path.symlink_to(".."),
    "a socket": _socket,
    "a line of 100 MB": _long_line,
    "an object of 100 MB": _numbers,
    "a sparse file of 8 GB": _sparse,
    "nothing": lambda path: None,
    "an empty file": lambda path: path.touch(),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "a file that nobody may read": lambda path: (path.touch(), path.chmod(0)),
}


def cases(count: int, seed: int) -> list[Kind]:
    found = [Kind(file, kind) for kind in KINDS for file in FILES]
    stride = 37  # of no common factor with their number: a few of them are of many kinds and files
    return [found[(i * stride + seed) % len(found)] for i in range(count)]


def check(case: Kind) -> str:
    with _commands.workplace(_runs.templates() / "stopped") as folder:
        runs = folder / "runs"
        shutil.copytree(_runs.unbroken(), runs / OTHER)
        run, target = runs / _runs.RUN, runs / _runs.RUN / case.file
        target = Path(os.path.normpath(target))
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        target.parent.mkdir(exist_ok=True)
        KINDS[case.kind](target)
        os.utime(run, (0, 0))  # long silent: nobody need wait for its trainer
        lost = _viewed(folder, run) or _written(folder, target) or _computed(folder, run)
        if os.path.lexists(target) and not target.is_symlink() and stat.S_IMODE(target.stat().st_mode) == 0:
            target.chmod(0o600)
        return lost


def _viewed(folder: Path, run: Path) -> str:
    for name, arguments in VIEWS.items():
        arguments = tuple(part.replace("RUN", str(run)) for part in arguments)
        arguments = tuple(str(folder / "runs" / part) if part == OTHER else part for part in arguments)
        ended = _commands.cmbench(folder, *arguments, seconds=60, memory=MEMORY)
        if wrong := _commands.complaint(ended, {0} if name.startswith("ls") else {0, 2, 4}):
            return f"{name}: {wrong}"
        if name == "ls" and OTHER not in ended.out:
            return f"{name}: the sound run beside it is not there"
        if (
            name == "ls --json"
            and {r["name"]: r["state"] for r in json.loads(ended.out)["runs"]}.get(OTHER) != "finished"
        ):
            return f"{name}: the sound run beside it is not there"
    return ""


def _written(folder: Path, target: Path) -> str:
    """Name it as the picture to write: a pipe, device or socket stays what it is, and so does a link to one."""
    try:
        if stat.S_ISREG(target.stat().st_mode) or stat.S_ISDIR(target.stat().st_mode):
            return ""
    except OSError:
        return ""
    before = target.lstat()
    arguments = ("sample", str(folder / "runs" / OTHER), "--device", "cpu", "--n", "1", "--out", str(target))
    ended = _commands.cmbench(folder, *arguments, seconds=60)
    if wrong := _commands.complaint(ended, {0, 2}):
        return f"sample --out: {wrong}"
    return "" if os.path.samestat(before, target.lstat()) else "sample --out: a file took its place"


def _computed(folder: Path, run: Path) -> str:
    """Sample from it and resume it: done, or refused in a line. What is resumed ends as it should."""
    for arguments in (("sample", str(run), "--device", "cpu"), ("resume", str(run), "--foreground")):
        ended = _runs.train(folder, None, *arguments)
        if wrong := _commands.complaint(ended, {0, 2, 4, 5}):
            return f"{arguments[0]}: {wrong}"
    if ended.code:
        return ""
    mine, theirs = _runs.outcome(run), _runs.outcome(_runs.unbroken())
    wrong = [key for key in theirs if key.startswith("checkpoint") and mine.get(key) != theirs[key]]
    return f"resume: differs from an unbroken run in {', '.join(wrong)}" if wrong else ""


def spoilt():
    """Let `ls` read a file as it comes."""
    from cmbench.rundir import status

    judged = status.judged

    def wrong(run, written):
        for name in ("meta.json", "lock", "annotations.json", "console.log", "metrics.jsonl"):
            if os.path.lexists(run.path / name):
                (run.path / name).read_bytes()
        return judged(run, written)

    return replaced(status, "judged", wrong)


ATTACK = Attack(
    "file_kinds",
    "Whatever lies in the place of a file of one run, commands over many runs show the others, none hangs or takes "
    "more memory than its files are worth, and what cannot be used is told in one line.",
    tries=120,
    short=2,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="ls",
)
