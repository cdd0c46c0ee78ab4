"""A run that is renamed, moved, replaced or removed, in part or as a whole, while it trains."""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced
from torture._operations import Operation

ELSEWHERE = "elsewhere"


class Move(NamedTuple):
    """What happens before the operation of a number."""

    kind: str
    number: int


def _renamed(run: Path, elsewhere: Path) -> None:
    run.rename(run.with_name("renamed"))


def _moved(run: Path, elsewhere: Path) -> None:
    run.rename(elsewhere / run.name)


def _runs_renamed(run: Path, elsewhere: Path) -> None:
    run.parent.rename(elsewhere / "runs")


def _swapped(run: Path, elsewhere: Path) -> None:
    """Another folder of somebody takes its name."""
    run.rename(elsewhere / run.name)
    run.mkdir()
    (run / "notes.txt").write_text("not yours")


def _removed(name: str) -> Callable[[Path, Path], None]:
    def remove(run: Path, elsewhere: Path) -> None:
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        else:
            (run / name).unlink()

    return remove


MOVES: dict[str, Callable[[Path, Path], None]] = {
    "renamed": _renamed,
    "moved": _moved,
    "the runs folder renamed": _runs_renamed,
    "another folder in its place": _swapped,
    "removed": _removed("."),
    "snapshots removed": _removed("snapshots"),
    "control removed": _removed("control"),
    "checkpoints removed": _removed("checkpoints"),
    "metrics.jsonl removed": _removed("metrics.jsonl"),
    "events.jsonl removed": _removed("events.jsonl"),
    "status.json removed": _removed("status.json"),
    "meta.json removed": _removed("meta.json"),
}


AWAY = ("renamed", "moved", "the runs folder renamed", "another folder in its place", "removed")


def cases(count: int, seed: int) -> list[Move]:
    chance, kinds = random.Random(seed), list(MOVES)
    return [Move(kinds[i % len(kinds)], chance.choice(_runs.in_training(None))) for i in range(count)]


def check(case: Move) -> str:
    with _commands.workplace() as folder:
        (folder / ELSEWHERE).mkdir()
        note = folder / "name"

        def move(operation: Operation) -> None:
            if operation.number == case.number:
                (run,) = _runs.runs_of(folder / "runs")
                note.write_text(run.name)
                MOVES[case.kind](run, folder / ELSEWHERE)

        ended = _runs.train(folder, move)
        if not note.exists():
            return f"nothing was moved, it ended with {ended.code}: {ended.err[-200:]}"
        return _judged(case, folder, note.read_text(), ended)


def _judged(case: Move, folder: Path, name: str, ended: _commands.Ended) -> str:
    old = folder / "runs" / name
    if case.kind in AWAY and old.exists() and sorted(path.name for path in old.iterdir()) != ["notes.txt"]:
        return f"a folder was made again under the old name, with {', '.join(path.name for path in old.iterdir())}"
    if wrong := _commands.complaint(ended, {0, 1, 4, 75} if case.kind == "removed" else {0, 75}):
        return wrong
    if ended.code and "cmbench: " not in ended.err:
        return f"exit code {ended.code} without a word"
    if case.kind == "removed":
        return ""
    (run,) = [path.parent for path in folder.rglob("recipe.toml")]
    if ended.code:
        again = _runs.resume(folder, run)
        if wrong := _commands.complaint(again, {0, 4} if "checkpoints" in case.kind else {0}):
            return f"resume: {wrong}"
        if again.code:
            return ""
    return _losses(case, run)


def _losses(case: Move, run: Path) -> str:
    """Return what differs beside what was removed by hand."""
    mine, theirs = _runs.outcome(run), _runs.outcome(_runs.unbroken())
    mine = {key: value for key, value in mine.items() if value} if case.kind.endswith("removed") else mine
    gone = {"snapshots removed": "snapshot ", "metrics.jsonl removed": "metrics"}.get(case.kind, "\0")
    wrong = [key for key in theirs if mine.get(key) != theirs[key] and not key.startswith(gone)]
    if wrong:
        return f"differs from an unbroken run in {', '.join(wrong)}"
    if case.kind == "metrics.jsonl removed" and not any("metrics" in str(row) for row in _runs.events(run, "warning")):
        return "removed metrics are not told"
    return ""


def spoilt():
    """Let the old name be there again, with a file in it."""

    def wrong(run: Path, elsewhere: Path) -> None:
        _renamed(run, elsewhere)
        run.mkdir()
        (run / "status.json").touch()

    return replaced(sys.modules[__name__], "MOVES", {**MOVES, "renamed": wrong})


ATTACK = Attack(
    "moves",
    "A run whose folder is renamed or moved is followed or stops with a word, no folder is made again under the old "
    "name, and what is removed by hand ends nothing else.",
    tries=48,
    short=2,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="made again under the old name",
)
