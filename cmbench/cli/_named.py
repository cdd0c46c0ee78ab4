"""`cmbench run --name NAME --or-resume`: one command that starts a run, takes it up again, or says that it is done."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cmbench import recipe as recipes
from cmbench.cli import _again, _screen
from cmbench.cli._again import Again
from cmbench.errors import ConflictError, DivergedError, UsageError
from cmbench.recipe import COMPONENTS, Given, Recipe
from cmbench.rundir import group, places, settings, status
from cmbench.rundir.layout import LATEST, RunDir, taken
from cmbench.rundir.select import address, is_path
from cmbench.text import shown

_MOST_SHOWN = 4  # keys whose values a refusal shows
_SOURCES = ("teacher", "start")  # tables that name a run


def run_of(name: str, runs_dir: Path) -> RunDir:
    """Return the run that a name means, there or not.

    Raises:
        UsageError: no run can have the name.
    """
    if not re.fullmatch(recipes.NAME, name) or name == LATEST:
        raise UsageError(
            f"--name: found {shown(name)}, allowed: letters, digits, _ and -, at most 64 characters, and not '{LATEST}'"
        )
    return RunDir(runs_dir / name)


def refuse_taken(run: RunDir) -> None:
    """Refuse to make a run of a chosen name that exists.

    Raises:
        ConflictError: it does.
    """
    if is_path(run.path):
        raise ConflictError(taken(run))


def taken_up(run: RunDir, given: Given, host_gone: bool, trust: bool, runs_dir: Path) -> Again | None:
    """Return how to go on with a run of this recipe; None if it has finished, which a line says.

    Raises:
        ConflictError: the run has another recipe, is live, or was imported.
        DivergedError: the run diverged: it would diverge again.
        UsageError: something in the recipe is not allowed.
    """
    status.refuse_imported(run)
    found, wanted = _both(run, given)
    reached = settings.steps(run, found.train.steps)
    further = wanted.train.steps > max(reached, found.train.steps)
    same_length = further or wanted.train.steps in (found.train.steps, reached)
    spared = {"train.steps"} if same_length else set()
    found = found.model_copy(update={"train": found.train.model_copy(update={"steps": reached})})
    refuse_other(run, found, wanted, "--name", {*spared, *_as_told(run, found, wanted)})
    _again.refuse_live(run, host_gone)
    now = status.read(run)
    if now["state"] == "diverged":
        raise DivergedError(
            f"{run.name}: diverged at step {now['step']}, and would again; with other settings: "
            f"cmbench resume {address(run)} --checkpoint STEP --set optimizer.lr=..."
        )
    if now["state"] == "finished" and not further:
        if group.is_heard():
            _screen.line(f"{run.name}: finished at step {now['step']} already (cmbench sample {address(run)})")
        return None
    changes = [f"train.steps={wanted.train.steps}"] if further else []
    return Again(run, changes, None, False, host_gone, trust, runs_dir)


def refuse_other(run: RunDir, found: Recipe, wanted: Recipe, option: str, spared: Sequence[str] | set[str]) -> None:
    """Refuse to go on with a run whose recipe differs, in other keys than the spared ones, from the one wanted.

    Raises:
        ConflictError: it differs; the message names the keys, and the option that would avoid the run.
    """
    told = [
        f"{key} is {_shown(there)} there and {_shown(here)} here"
        for key, (there, here) in sorted(recipes.differences([found, wanted]).items())
        if key not in spared
    ]
    if told:
        more = f", and {len(told) - _MOST_SHOWN} more keys differ" if len(told) > _MOST_SHOWN else ""
        listed = ", ".join(told[:_MOST_SHOWN])
        raise ConflictError(f"{run.name}: {listed}{more}; choose another {option}, or the same recipe")


def _shown(value: Any) -> str:
    return "missing" if value is recipes.MISSING else repr(value)


def _both(run: RunDir, given: Given) -> tuple[Recipe, Recipe]:
    """Return the recipes of the run and of the command, with every default where the components are the same."""
    from cmbench.engine import build

    found = recipes.load(run.recipe)
    if all(getattr(found, table)["kind"] == getattr(given.recipe, table)["kind"] for table in COMPONENTS):
        found = build.complete(found, str(run.recipe))
    return found, build.complete_new(given.recipe, given.where)


def _as_told(run: RunDir, found: Recipe, wanted: Recipe) -> Iterator[str]:
    """Yield keys that may differ: places that a resume has changed, and runs that a selector meant at the start.

    The run keeps a copy of their weights, so that they may be gone, or a selector such as @latest may mean others.
    """
    both = [dict(recipes.flat(recipe.tables())) for recipe in (found, wanted)]
    yield from (key for key, value in places.named(run).items() if both[1].get(key) == value)
    for table in _SOURCES:
        then, now = (own.get(f"{table}.run") for own in both)
        if then and now and _may_mean(now, then):
            yield f"{table}.run"


def _may_mean(selector: str, run: str) -> bool:
    """Return whether a selector may have meant a run, given by its name or path."""
    name = Path(run).name
    if selector.startswith("@latest"):
        return name.startswith(selector.removeprefix("@latest").removeprefix(":"))
    return name.startswith(Path(selector).name) or name.endswith(f"-{selector}")
