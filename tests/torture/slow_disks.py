"""Slow file systems, and those of networks: late answers, no locks, names that stay, stale handles."""

import errno
import fcntl
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced
from torture._operations import Operation

KINDS = ("slow", "slow to sync", "without locks", "names that stay", "stale once", "a coarse clock")


class Trouble(NamedTuple):
    """What is odd about the file system, in a way that follows from a number."""

    kind: str
    start: str | None
    number: int


def cases(count: int, seed: int) -> list[Trouble]:
    return [Trouble(KINDS[i % len(KINDS)], (None, "killed")[i // len(KINDS) % 2], seed + i) for i in range(count)]


def check(case: Trouble) -> str:
    chance, stale = random.Random(case.number), []

    def trouble(operation: Operation) -> None:
        if case.kind == "slow" or (case.kind == "slow to sync" and operation.kind == "fsync"):
            time.sleep(chance.choice((0.002, 0.005, 0.05)))
        if case.kind == "without locks":
            fcntl.flock = _no_locks
        if case.kind == "names that stay" and operation.kind == "rmdir" and chance.random() < 0.5:
            Path(operation.path, f".nfs{chance.randrange(1 << 32):08x}").touch()  # somebody reads a removed file
        if case.kind == "stale once" and operation.kind == "open" and not stale and chance.random() < 0.02:
            stale.append(operation.number)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), operation.path)
        if case.kind == "a coarse clock" and operation.kind == "rename":
            os.utime(Path(operation.path).parent, (0, 0))

    with _commands.workplace(case.start and _runs.templates() / case.start) as folder:
        ended = _runs.attempt(folder, case.start, trouble)
        allowed = {"stale once": {0, 2, 75}, "without locks": {0, 2, 5}}.get(case.kind, {0})
        if wrong := _commands.complaint(ended, allowed):
            return wrong
        if ended.code:
            return _runs.taken_up(folder) if case.kind == "stale once" else ""
        (run,) = _runs.runs_of(folder / "runs")
        found = _runs.difference(run)
        if case.kind == "stale once" and found and "checkpoint" not in found:
            told = [row for row in _runs.events(run, "warning") if "tale" in str(row.get("text"))]
            return "" if told or "tale" in ended.err else f"lost in silence: {found}"
        return found


def _no_locks(fd: int, operation: int) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def spoilt():
    """Let the time that passes have a part in the weights."""
    from cmbench.engine.state import State

    groups = State.groups

    def wrong(self):
        found = groups(self)
        found["model"] = {name: tensor + time.time() for name, tensor in found["model"].items()}
        return found

    return replaced(State, "groups", wrong)


ATTACK = Attack(
    "slow_disks",
    "On a slow file system, and on one with the habits of networks, a run comes to the same end, or refuses in a line.",
    tries=24,
    short=2,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="differs from an unbroken run",
)
