"""What killed commands left in a runs folder: found by what we write there, to the letter, and removed."""

import os
import re
import stat
import time
from pathlib import Path

from cmbench.errors import ConflictError, UsageError
from cmbench.rundir import status
from cmbench.rundir.checkpoints import GROUP
from cmbench.rundir.fields import whole
from cmbench.rundir.files import lives, read, read_json, temporaries
from cmbench.rundir.layout import LATEST, RunDir, machine
from cmbench.rundir.lock import hold

_RUN = re.compile(r".+-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}", re.DOTALL)
_LATEST = re.compile(rf"\.{LATEST}\.(?:([0-9a-f]{{12}})\.)?([0-9]{{1,7}})")  # without a machine: of older versions
_OLD = 600.0  # seconds: a link that has not become `latest` by then does so no more
_JSON = "meta.json|status.json|fork.json|recipe.source.toml".replace(".", r"\.")
_FILES = re.compile(rf"lock|{_JSON}|{temporaries(_JSON + '|recipe.toml')}")
_LOGS = re.compile(r"(metrics|profiles|events|machine)\.jsonl")
_OPENED = b'{"segment":1,"first_step":%d}\n'  # all that a log holds before its run is one
_EMPTY = re.compile("checkpoints|snapshots|control")
_WEIGHTS = re.compile("teacher|start")
_OF_CHECKPOINT = re.compile(rf"(?:{GROUP})\.safetensors|state\.json|{temporaries('state.json')}")
_OF_WEIGHTS = re.compile(rf"model\.safetensors|teacher\.json|{temporaries('teacher.json')}")


def sweep(runs_dir: Path) -> None:
    """Remove the runs that were being made when their command was killed, and the links that were to be `latest`.

    A run has its recipe last. Without it, with nothing in it but what comes before, and with no live owner, it is none.
    Its own checkpoint comes before in a fork alone, whose fork.json says so.
    """
    try:
        entries = [
            entry for entry in os.scandir(runs_dir) if _RUN.fullmatch(entry.name) or _LATEST.fullmatch(entry.name)
        ]
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if (match := _LATEST.fullmatch(entry.name)) and entry.is_symlink():
                _remove_link(path, match)
            elif entry.is_dir(follow_symlinks=False) and not (path / "recipe.toml").exists():
                _remove(RunDir(path))
        except (OSError, ConflictError, UsageError):  # another's, or at work: it stays
            continue


def _remove_link(path: Path, match: re.Match[str]) -> None:
    """Remove a link whose maker is no more; of the processes of other machines nothing is known but the time."""
    is_dead = match[1] == machine() and not lives(int(match[2]))
    if is_dead or time.time() - path.lstat().st_mtime > _OLD:
        path.unlink()


def _remove(run: RunDir) -> None:
    if _contents(run.path) is None or (run.status.exists() and status.is_live(run)):
        return
    lock = hold(run)  # against the command that may be making it
    try:
        for path in _contents(run.path) or ():
            path.rmdir() if path.is_dir() else path.unlink()
    finally:
        lock.release()


def _contents(folder: Path) -> list[Path] | None:
    """Return all that is in the folder of a run in the making and itself, in the order to remove it; None for more."""
    run, found = RunDir(folder), list[Path]()
    forked = whole((read_json(run.forking) or {}).get("step"))
    opened = _OPENED % ((forked or 0) + 1)
    for path in folder.iterdir():
        if stat.S_ISDIR(path.lstat().st_mode):
            inside = _first_checkpoint(path, forked) if path == run.checkpoints and forked else _inside(path)
            if inside is None:
                return None
            found += [*inside, path]
        elif _is_file(path, _FILES) or (_is_file(path, _LOGS) and opened.startswith(read(path))):
            found.append(path)
        else:
            return None
    lasts = (run.forking, run.lock)  # the first of them says what the rest is, should this be killed as well
    return [*sorted(found, key=lambda path: lasts.index(path) if path in lasts else -1), folder]


def _inside(folder: Path) -> list[Path] | None:
    """Return what is in a folder of a run in the making; None where there is more than comes before its recipe."""
    inside = list(folder.iterdir())
    if _WEIGHTS.fullmatch(folder.name):
        return inside if all(_is_file(path, _OF_WEIGHTS) for path in inside) else None
    return [] if _EMPTY.fullmatch(folder.name) and not inside else None


def _first_checkpoint(folder: Path, step: int) -> list[Path] | None:
    """Return what is in the folder of a fork's checkpoints: that of its first step, whole or in part; None for more."""
    found: list[Path] = []
    for path in folder.iterdir():
        if path.name not in (f"{step:08d}", f".{step:08d}.tmp") or not stat.S_ISDIR(path.lstat().st_mode):
            return None
        inside = list(path.iterdir())
        if not all(_is_file(part, _OF_CHECKPOINT) for part in inside):
            return None
        found += [*inside, path]
    return found


def _is_file(path: Path, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.fullmatch(path.name)) and stat.S_ISREG(path.lstat().st_mode)
