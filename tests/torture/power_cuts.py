"""The power goes before a file operation: what was not fsynced is lost, in each way that file systems lose it."""

import os
import random
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced, sampled
from torture._operations import Operation

WAYS = ("all", "content", "zeros", "mixed")  # lost: names and content, content, content but for its length, by chance
Entry = tuple[str, int, str]  # kind, inode, target of a link


class Cut(NamedTuple):
    """A power cut before the operation of a number, and what is lost by it."""

    start: str | None
    number: int
    way: str
    kind: str


class Disk:
    """What of a folder would survive a power cut now.

    An inode's content and a folder's names survive as they were at its last fsync, or when the watch began.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content: dict[int, bytes] = {}
        self.names: dict[int, dict[str, Entry]] = {}
        self._held: list[int] = []  # descriptors of what is removed: no inode's number is used twice
        for folder, _, files in os.walk(root):
            self.synced(Path(folder))
            for path in (Path(folder, name) for name in files):
                if not path.is_symlink():
                    self.synced(path)

    def synced(self, path: Path) -> None:
        """Take note of an fsync."""
        inode = path.stat().st_ino
        if path.is_dir():
            self.names[inode] = _listed(path)
        else:
            self.content[inode] = path.read_bytes()

    def before(self, operation: Operation) -> None:
        """Take note of an operation."""
        if operation.kind == "fsync":
            self.synced(Path(f"/proc/self/fd/{operation.fd}"))
        elif operation.kind in ("unlink", "rmdir", "rename") and Path(operation.path).exists():
            self._held.append(os.open(operation.path, os.O_RDONLY))

    def write_image(self, target: Path, way: str, chance: random.Random) -> None:
        """Write what survives to another folder."""
        now = {p.stat().st_ino: p for p in self.root.rglob("*") if not p.is_symlink()}
        now |= {os.fstat(fd).st_ino: Path(f"/proc/self/fd/{fd}") for fd in self._held}
        lost: Callable[[], bool] = (lambda: chance.random() < 0.5) if way == "mixed" else (lambda: True)

        def folder(inode: int, there: Path, into: Path) -> None:
            kept = way in ("content", "zeros") or (way == "mixed" and not lost())
            entries = _listed(there) if kept and there.exists() else self.names.get(inode, {})
            into.mkdir()
            for name, (kind, number, link) in entries.items():
                if kind == "folder":
                    folder(number, now.get(number, Path("/nowhere")), into / name)
                elif kind == "link":
                    (into / name).symlink_to(link)
                else:
                    (into / name).write_bytes(file(number))

        def file(inode: int) -> bytes:
            safe, there = self.content.get(inode, b""), now.get(inode)
            full = safe if there is None else there.read_bytes()
            if way == "zeros":
                return safe + bytes(max(0, len(full) - len(safe)))
            return safe if way != "mixed" or lost() else full

        folder(self.root.stat().st_ino, self.root, target)


def _listed(folder: Path) -> dict[str, Entry]:
    found = {}
    for entry in os.scandir(folder):
        mode = entry.stat(follow_symlinks=False).st_mode
        kind = "folder" if stat.S_ISDIR(mode) else "link" if stat.S_ISLNK(mode) else "file"
        found[entry.name] = kind, entry.inode(), str(Path(entry.path).readlink()) if kind == "link" else ""
    return found


def cases(count: int, seed: int) -> list[Cut]:
    found = [
        Cut(start, operation.number, way, f"{operation.kind} {operation.path}")
        for start in (None, "killed")
        for operation in _runs.operations(start)
        for way in WAYS
    ]
    return sampled(found, count, random.Random(seed))


def check(case: Cut) -> str:
    with _commands.workplace(case.start and _runs.templates() / case.start) as folder:
        image, disk = folder / "image", list[Disk]()

        def cut(operation: Operation) -> None:
            if not disk:
                disk.append(Disk(folder / "runs"))
            if operation.number == case.number:
                disk[0].write_image(image, case.way, random.Random(repr(case)))
                os.kill(os.getpid(), signal.SIGKILL)
            disk[0].before(operation)

        ended = _runs.attempt(folder, case.start, cut)
        if ended.code != -signal.SIGKILL:
            return f"the power did not go, it ended with {ended.code}: {ended.err[-200:]}"
        shutil.rmtree(folder / "runs")
        image.rename(folder / "runs")
        return _runs.taken_up(folder, swept=False)


_synced = Disk.synced


def _forgetful(self: Disk, path: Path) -> None:
    """Take no note of an fsync of weights, as if the program had made none."""
    if not os.path.realpath(path).endswith(".safetensors"):
        _synced(self, path)


ATTACK = Attack(
    "power_cuts",
    "What a run has said is saved survives a power cut: it is resumed from there, and ends equal bit for bit.",
    tries=120,
    short=2,
    cases=cases,
    check=check,
    spoilt=lambda: replaced(Disk, "synced", _forgetful),
    tells="no checkpoint to resume from",
)
