"""The runs of an ablation or a sweep: planned, and found again where they exist already."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.cli import _named
from cmbench.errors import ConflictError, UsageError
from cmbench.recipe import Recipe
from cmbench.rundir import status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, all_runs, portable, select

ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class Variant:
    """What runs that differ only in their seed have in common: one row of the table of results.

    Attributes:
        name: tells it from the others.
        overrides: `table.key=value`, which make it.
        told: what JSON says of it.
        cells: the first cells of its row.
    """

    name: str
    overrides: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    cells: tuple[str, ...] = ()


@dataclass
class Task:
    """One run: to be done, or done.

    Attributes:
        variant: to which it belongs.
        overrides: all overrides of the recipe's file: those given, those of the variant, name and seed.
        recipe: complete.
        run: its run, if any.
        resumed: whether its run existed already and is resumed.
    """

    variant: Variant
    overrides: list[str]
    recipe: Recipe
    run: RunDir | None = None
    resumed: bool = False

    @property
    def state(self) -> str:
        """The state of its run, or "missing"."""
        return status.read(self.run)["state"] if self.run else "missing"

    @property
    def is_done(self) -> bool:
        """Whether its run has ended. A diverged run has, because it would diverge again."""
        return self.state in ENDED

    def __str__(self) -> str:
        return f"{self.run.name if self.run else self.recipe.name}  seed {self.recipe.seed}"


def complete(path: Path, overrides: Sequence[str]) -> Recipe:
    """Return the complete recipe of a file with overrides.

    Raises:
        UsageError: something in it is not allowed.
    """
    from cmbench.engine import build

    return build.complete(consent.named(path, overrides).recipe, str(path))


def task(path: Path, variant: Variant, overrides: Sequence[str], name: str, seed: int) -> Task:
    """Return the run of a variant with this name of its recipe, and this seed.

    Raises:
        UsageError: something in the recipe is not allowed.
    """
    from cmbench.engine import build

    more = [*overrides, *variant.overrides, f'name="{name}"', f"seed={seed}"]
    return Task(variant, more, build.complete_new(consent.named(path, more).recipe, str(path)))


def check_names(name: str, names: Sequence[str]) -> None:
    """Refuse a prefix of names of recipes that makes one which no recipe can have.

    Raises:
        UsageError: it does.
    """
    bad = [n for n in sorted(names, key=len, reverse=True) if not re.fullmatch(recipes.NAME, n)]
    if bad:
        raise UsageError(
            f"--name: found '{name}', which names a run '{bad[0]}' ({len(bad[0])} characters), "
            "allowed: letters, digits, _ and -, at most 64 characters"
        )


def pinned_sources(whole: Recipe, runs_dir: Path) -> list[str]:
    """Name the runs of first weights in full: @latest could be another run when the last variant starts."""
    selectors = {
        "teacher.run": whole.teacher.run if whole.teacher else "",
        "start.run": whole.start.run if whole.start else "",
    }
    return [
        f"{key}={json.dumps(portable(select(selector, runs_dir, with_checkpoint=True), selector))}"
        for key, selector in selectors.items()
        if selector
    ]


def take_up(tasks: Sequence[Task], runs_dir: Path) -> None:
    """Give each task its existing run: the newest that ended, else the newest.

    Raises:
        ConflictError: a run of the same name has another recipe, or is live.
    """
    by_name = {task.recipe.name: task.recipe for task in tasks}
    by_key = {(task.recipe.name, task.recipe.seed): task for task in tasks}
    for run in all_runs(runs_dir):
        if not _may_be_of(run, by_name):
            continue
        found = recipes.load(run.recipe)
        if found.name not in by_name:
            continue
        _named.refuse_other(run, found, by_name[found.name], "--name", {"seed"})
        task = by_key.get((found.name, found.seed))
        if task and (not task.is_done or status.read(run)["state"] in ENDED):
            task.run = run
    for task in tasks:
        if task.run and status.is_live(task.run):
            raise ConflictError(f"{task.run.name}: a trainer works on this run (cmbench watch {address(task.run)})")


def _may_be_of(run: RunDir, names: Mapping[str, Recipe]) -> bool:
    """Return whether a run's folder may be that of a recipe of one of these names: NAME-yyyymmdd-hhmmss-xxxx."""
    parts = run.name.split("-")
    return any("-".join(parts[:n]) in names for n in range(1, len(parts)))
