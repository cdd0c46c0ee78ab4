"""Two users on one runs folder: one trains, the other looks, asks and tries to take over.

Wants root, to be both, and a cmbench and packages that others can reach.
"""

import contextlib
import importlib
import os
import pkgutil
import stat
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import typer

import cmbench
from torture import _commands, _processes, _runs
from torture._attack import Attack, replaced
from torture._commands import Ended

ANNE, BERT = 12_001, 12_002
MODES = {"private": (0o700, 0o600), "to be read": (0o755, 0o644), "shared": (0o777, 0o666)}
COMMANDS = {
    "ls": ("ls",),
    "show": ("show", "RUN"),
    "watch": ("watch", "RUN"),
    "compare": ("compare", "RUN", "RUN", "--plain"),
    "sample": ("sample", "RUN", "--n", "2"),
    "eval": ("eval", "RUN", "--n", "32", "--repeats", "1", "--steps", "1"),
    "stop": ("stop", "RUN", "--timeout", "0"),
    "resume": ("resume", "RUN", "--foreground"),
}


class Neighbour(NamedTuple):
    """What Bert does to a run of Anne's that he may or may not read."""

    mode: str
    command: str


def cases(count: int, seed: int) -> list[Neighbour]:
    if os.geteuid() or not all(map(_is_reached_by_all, (cmbench, typer))):
        return []
    found = [Neighbour(mode, command) for command in COMMANDS for mode in MODES]
    return [found[(seed + i * 5) % len(found)] for i in range(count)]


def _is_reached_by_all(package: ModuleType) -> bool:
    """Return whether any user may look into the folders above a package: not those of root's home."""
    folders = Path(str(package.__file__)).resolve().parents
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)


def _as(user: int, folder: Path, *arguments: str) -> Ended:
    def call() -> None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        os.umask(0o022)
        _commands.call(arguments)

    return _processes.forked(call, folder, _commands.environment(folder))


def check(case: Neighbour) -> str:
    with _commands.workplace(_runs.templates() / "stopped") as folder:
        runs, run = folder / "runs", folder / "runs" / _runs.RUN
        of_folder, of_file = MODES[case.mode]
        for path in (folder, folder / "home", runs):
            path.chmod(0o777)
        for path in (run, *run.rglob("*")):
            os.chown(path, ANNE, ANNE)
            path.chmod(of_folder if path.is_dir() else of_file)
        before = _content(run)
        arguments = [part.replace("RUN", str(run)) for part in COMMANDS[case.command]]
        ended = _as(BERT, folder, *arguments)
        if wrong := _commands.complaint(ended, {0} if case.command == "ls" else {0, 2, 4, 5}):
            return wrong
        if case.mode != "shared" and _content(run) != before:
            return "what he may not write has changed"
        if case.mode == "shared" and ended.code == 0 and case.command == "resume":
            return _runs.difference(run)
        again = _as(ANNE, folder, "resume", str(run), "--foreground")
        if wrong := _commands.complaint(again, {0}):
            return f"her own resume: {wrong}"
        return _runs.difference(run)


def _content(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def _prepare() -> None:
    """Import what is imported late: where Python lies in root's folder, nobody else could."""
    import _strptime  # noqa: F401

    import plotext  # noqa: F401

    for module in pkgutil.walk_packages(typer.__path__, "typer."):
        with contextlib.suppress(ImportError, AssertionError):  # of other systems
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def spoilt():
    """Let a command stop at what it may not read."""
    from cmbench.rundir import select

    all_runs = select.all_runs

    def wrong(folder):
        for path in folder.iterdir():
            list(path.iterdir())
        return all_runs(folder)

    from cmbench.cli import ls

    return replaced(ls, "all_runs", wrong)


ATTACK = Attack(
    "users",
    "A run of another user is shown as far as it may be read, refused in one line beyond that, and never changed by "
    "who may not.",
    tries=24,
    short=3,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="exit code 1",
    prepare=_prepare,
)
