"""What killed commands left in a runs folder: found by what we write there, to the letter, and removed."""

import os
import re
import stat
import time
from pathlib import Path

from cmbench.errors import ConflictError, UsageError
from cmbench.rundir import status
from cmbench.rundir.files import lives, read, temporaries
from cmbench.rundir.layout import LATEST, RunDir, machine
from cmbench.rundir.lock import hold

_RUN = re.compile(r".+-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}", re.DOTALL)
_LATEST = re.compile(rf"\.{LATEST}\.(?:([0-9a-f]{{12}})\.)?([0-9]{{1,7}})")  # without a machine: of older versions
_OLD = 600.0  # seconds: a link that has not become `latest` by then does so no more
_JSON = "meta.json|status.json|recipe.source.toml".replace(".", r"\.")
_FILES = re.compile(rf"lock|{_JSON}|{temporaries(_JSON + '|recipe.toml')}")
_LOGS = re.compile(r"(metrics|profiles|events|machine)\.jsonl")
_OPENED = b'{"segment":1,"first_step":1}\n'  # all that a log holds before its run is one
_EMPTY = re.compile("checkpoints|snapshots|control")
_WEIGHTS = re.compile("teacher|start")
_OF_WEIGHTS = re.compile(rf"model\.safetensors|teacher\.json|{temporaries('teacher.json')}")


def sweep(runs_dir: Path) -> None:
    """Remove the runs that were being made when their command was killed, and the links that were to be `latest`.

    A run has its recipe last. Without it, with nothing in it but what comes before, and with no live owner, it is none.
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
    found: list[Path] = []
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            inside = list(path.iterdir())
            known = _OF_WEIGHTS if _WEIGHTS.fullmatch(path.name) else None
            if not (known or _EMPTY.fullmatch(path.name)) or not all(known and _is_file(p, known) for p in inside):
                return None
            found += [*inside, path]
        elif _is_file(path, _FILES) or (_is_file(path, _LOGS) and _OPENED.startswith(read(path))):
            found.append(path)
        else:
            return None
    return [*sorted(found, key=lambda path: path.name == "lock" and path.parent == folder), folder]


def _is_file(path: Path, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.fullmatch(path.name)) and stat.S_ISREG(path.lstat().st_mode)
