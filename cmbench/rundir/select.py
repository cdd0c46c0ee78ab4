"""Which run is meant: a path, a unique prefix, @latest, or @latest:PREFIX."""

import os
import shlex
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from cmbench.errors import NotFoundError, UsageError, did_you_mean
from cmbench.rundir.layout import LATEST, STAMP, RunDir, steps_of_checkpoints


def runs_folder(given: Path | None = None) -> Path:
    """Return the folder of the runs: the given one, CMBENCH_RUNS_DIR, or ./runs."""
    return given or Path(os.environ.get("CMBENCH_RUNS_DIR") or "runs")


def address(run: RunDir) -> str:
    """Return what to type for a run, quoted for a shell: its name if commands find it by default, else its path."""
    is_near = run.path.resolve().parent == runs_folder().resolve() and not run.name.startswith("-")
    return shlex.quote(run.name if is_near else str(run.path))


def all_runs(runs_dir: Path) -> list[RunDir]:
    """List the runs of a folder, oldest first: the folders with a recipe, whatever else is wrong with them."""
    try:
        entries = [e for e in os.scandir(runs_dir) if e.name != LATEST and not e.name.startswith(".")]
    except OSError:
        return []
    found = []
    for entry in entries:
        try:
            written = os.lstat(f"{entry.path}/recipe.toml").st_mtime_ns
        except (OSError, ValueError):
            continue  # not a run, or gone by now
        found.append((written, entry.name, entry.path))
    return [RunDir(Path(path)) for _, _, path in sorted(found)]


def select(selector: str, runs_dir: Path, with_checkpoint: bool = False) -> RunDir:
    """Find the one run that a selector means.

    Args:
        selector: a path, a unique prefix of a name (or its last four characters), @latest, or @latest:PREFIX.
        runs_dir: where runs are.
        with_checkpoint: let @latest skip runs without a checkpoint.

    Raises:
        NotFoundError: no run matches, or more than one.
    """
    if is_path(selector):
        return RunDir(Path(selector).resolve())
    runs = all_runs(runs_dir)
    if selector == "@latest" or selector.startswith("@latest:"):
        prefix = selector.removeprefix("@latest").removeprefix(":")
        runs = [r for r in runs if r.name.startswith(prefix) and (not with_checkpoint or steps_of_checkpoints(r))]
        if not runs:
            wanted = f"run named {prefix}*" if prefix else "run"
            raise NotFoundError(f"{runs_dir}: no {wanted}{' with a checkpoint' if with_checkpoint else ''}")
        return runs[-1]
    matches = [r for r in runs if r.name.startswith(selector) or r.name.endswith(f"-{selector}")]
    for found in (
        [r for r in matches if r.name == selector],
        [r for r in matches if STAMP.sub("", r.name) == selector],  # the only run of a recipe, as it is called
        matches,
    ):
        if len(found) == 1:
            return found[0]
    if matches:
        names = ", ".join(r.name for r in matches[:4])
        more = ", …" if len(matches) > 4 else ""
        newest = f"@latest:{selector} is the newest; the last four characters name one"
        raise NotFoundError(f"{selector}: {len(matches)} runs begin so: {names}{more} ({newest})")
    hint = did_you_mean(selector, [r.name for r in runs])
    raise NotFoundError(f"{selector}: no such run in {runs_dir}{hint} (cmbench ls)")


def select_many(selectors: Sequence[str], runs_dir: Path) -> list[RunDir]:
    """Find the runs that selectors mean, each once, in their order.

    Args:
        selectors: as for `select`; or name patterns with *, ? or [...], whose runs come oldest first.
        runs_dir: where runs are.

    Raises:
        NotFoundError: a selector matches no run.
    """
    found = [run for selector in selectors for run in _matching(selector, runs_dir)]
    return list({run.path.resolve(): run for run in found}.values())


def _matching(selector: str, runs_dir: Path) -> list[RunDir]:
    if not set("*?[") & set(selector) or is_path(selector) or is_path(runs_dir / selector):
        return [select(selector, runs_dir)]
    folder, pattern = (Path(selector).parent, Path(selector).name) if "/" in selector else (runs_dir, selector)
    runs = [run for run in all_runs(folder) if fnmatchcase(run.name, pattern)]
    if not runs:
        raise NotFoundError(f"{selector}: no such run in {folder} (cmbench ls)")
    return runs


def portable(run: RunDir, selector: str) -> str:
    """Return how to name again a run that `selector` found: a path stays a path, anything else becomes its full name.

    Raises:
        UsageError: the path cannot be written in a recipe.
    """
    name = str(run.path) if is_path(selector) else run.name
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise UsageError(
            f"{run.name}: its path is not UTF-8, so no recipe can contain it; allowed: its name, by --runs-dir"
        )
    return name


def is_path(selector: str | Path) -> bool:
    """Return whether a selector is the path of a run."""
    return os.path.lexists(os.path.join(selector, "recipe.toml"))  # noqa: PTH118 - works with any name
