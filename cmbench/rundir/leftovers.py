"""Leftovers of killed commands in a runs folder: removed only if they are exactly what cmbench writes there."""

import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cmbench.errors import ConflictError, UsageError
from cmbench.rundir import status
from cmbench.rundir.checkpoints import GROUP
from cmbench.rundir.fields import whole
from cmbench.rundir.files import lives, read, read_json, temporaries
from cmbench.rundir.layout import IMPORTING, LATEST, STEP, RunDir, machine
from cmbench.rundir.lock import hold

_RUN = re.compile(r".+-[0-9]{8}-[0-9]{6}-[0-9a-f]{4}", re.DOTALL)
_LATEST = re.compile(rf"\.{LATEST}\.(?:([0-9a-f]{{12}})\.)?([0-9]{{1,7}})")  # older versions write no machine
_IMPORTING = re.compile(rf"\.{IMPORTING}\.([0-9a-f]{{12}})\.([0-9]{{1,7}})")
_OLD = 600.0  # seconds: a link that has not become `latest` by then never will
_ABANDONED = 86_400.0  # seconds after which an import on another machine has ended
_JSON = "meta.json|status.json|fork.json|recipe.source.toml".replace(".", r"\.")
_FILES = re.compile(rf"lock|{_JSON}|{temporaries(_JSON + '|recipe.toml')}")
_LOGS = re.compile(r"(metrics|profiles|events|machine)\.jsonl")
_OPENED = b'{"segment":1,"first_step":%d}\n'  # the whole content of a log before its run has a recipe
_EMPTY = re.compile("checkpoints|snapshots|control")
_WEIGHTS = re.compile("teacher|start")
_OF_CHECKPOINT = re.compile(rf"(?:{GROUP})\.safetensors|state\.json|{temporaries('state.json')}")
_OF_WEIGHTS = re.compile(rf"model\.safetensors|teacher\.json|{temporaries('teacher.json')}")


def sweep(runs_dir: Path) -> None:
    """Remove unfinished runs whose command was killed, also imported ones, and links that were to become `latest`.

    A run gets its recipe last. A folder is a leftover if it has no recipe, no live owner, and only the files that come
    before the recipe. Only in a fork does a checkpoint come before the recipe, and its fork.json says so.
    """
    try:
        ours = (_RUN, _LATEST, _IMPORTING)
        entries = [entry for entry in os.scandir(runs_dir) if any(one.fullmatch(entry.name) for one in ours)]
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            if (match := _LATEST.fullmatch(entry.name)) and entry.is_symlink():
                _remove_link(path, match)
            elif (match := _IMPORTING.fullmatch(entry.name)) and entry.is_dir(follow_symlinks=False):
                _remove_import(path, match)
            elif entry.is_dir(follow_symlinks=False) and not (path / "recipe.toml").exists():
                _remove(RunDir(path))
        except (OSError, ConflictError, UsageError):  # someone else's, or in use: it stays
            continue


def remove(run: RunDir, host_gone: bool = False) -> None:
    """Remove what a killed command has left of a run in the making, as `sweep` does; anything else stays.

    Args:
        run: of a name that the user has chosen, there or not.
        host_gone: no trainer on another host works on it, whatever its status says.

    Raises:
        ConflictError: a command is making the run, or a trainer works on it.
    """
    if run.path.is_dir() and not run.path.is_symlink() and not os.path.lexists(run.recipe):
        with suppress(OSError, UsageError):  # it cannot be removed, and so stays
            if run.lock.exists():
                hold(run).release()
            _remove(run, host_gone)


def _remove_link(path: Path, match: re.Match[str]) -> None:
    """Remove a link whose process is dead; for processes on other machines only the age of the link is known."""
    is_dead = match[1] == machine() and not lives(int(match[2]))
    if is_dead or time.time() - path.lstat().st_mtime > _OLD:
        path.unlink()


def _remove_import(folder: Path, match: re.Match[str]) -> None:
    """Remove what a killed import left, if it has nothing else."""
    is_dead = match[1] == machine() and not lives(int(match[2]))
    if not is_dead and time.time() - folder.lstat().st_mtime < _ABANDONED:
        return
    found = list[Path]()
    for path in folder.iterdir():
        if stat.S_ISDIR(path.lstat().st_mode):
            inside = _first_checkpoint(path, 0) if path == RunDir(folder).checkpoints else _inside(path)
            if inside is None:
                return
            found += [*inside, path]
        elif not (_is_file(path, _FILES) or _is_file(path, _LOGS) or path.name == "recipe.toml"):
            return
        else:
            found.append(path)
    for path in (*found, folder):
        path.rmdir() if path.is_dir() else path.unlink()


def _remove(run: RunDir, host_gone: bool = False) -> None:
    if _contents(run.path) is None or (run.status.exists() and status.is_live(run) and not host_gone):
        return
    lock = hold(run)  # a command may still be making the run
    try:
        for path in _contents(run.path) or ():
            path.rmdir() if path.is_dir() else path.unlink()
    finally:
        lock.release()


def _contents(folder: Path) -> list[Path] | None:
    """Return the contents of an unfinished run and its folder, in order of removal; None if it has other files."""
    run, found = RunDir(folder), list[Path]()
    forked = whole((read_json(run.forking) or {}).get("step"))
    opened = _OPENED % ((forked or 0) + 1)
    for path in folder.iterdir():
        if stat.S_ISDIR(path.lstat().st_mode):
            inside = _of_fork(path, run, forked) if forked else _inside(path)
            if inside is None:
                return None
            found += [*inside, path]
        elif _is_file(path, _FILES) or (_is_file(path, _LOGS) and opened.startswith(read(path))):
            found.append(path)
        else:
            return None
    lasts = (run.forking, run.lock)  # fork.json identifies the rest, should this removal be killed too
    return [*sorted(found, key=lambda path: lasts.index(path) if path in lasts else -1), folder]


def _inside(folder: Path) -> list[Path] | None:
    """Return the contents of a folder of an unfinished run; None if it has more than comes before the recipe."""
    inside = list(folder.iterdir())
    if _WEIGHTS.fullmatch(folder.name):
        return inside if all(_is_file(path, _OF_WEIGHTS) for path in inside) else None
    return [] if _EMPTY.fullmatch(folder.name) and not inside else None


def _of_fork(folder: Path, run: RunDir, step: int) -> list[Path] | None:
    """Return the contents of a folder of an unfinished fork; None if it has more than comes before the recipe."""
    if folder == run.checkpoints:
        return _first_checkpoint(folder, step)
    if folder == run.averages:
        names = re.compile(rf"({STEP})|\.({STEP})\.tmp")
        return _checkpoints(folder, lambda name: names.fullmatch(name) is not None)
    return _inside(folder)


def _first_checkpoint(folder: Path, step: int) -> list[Path] | None:
    """Return the contents of a fork's checkpoints folder: its first checkpoint, whole or in part; None for more."""
    return _checkpoints(folder, (f"{step:08d}", f".{step:08d}.tmp").__contains__)


def _checkpoints(folder: Path, is_one: Callable[[str], bool]) -> list[Path] | None:
    """Return the contents of a folder of checkpoints, whole or in part; None for more than is named so."""
    found: list[Path] = []
    for path in folder.iterdir():
        if not is_one(path.name) or not stat.S_ISDIR(path.lstat().st_mode):
            return None
        inside = list(path.iterdir())
        if not all(_is_file(part, _OF_CHECKPOINT) for part in inside):
            return None
        found += [*inside, path]
    return found


def _is_file(path: Path, pattern: re.Pattern[str]) -> bool:
    return bool(pattern.fullmatch(path.name)) and stat.S_ISREG(path.lstat().st_mode)
