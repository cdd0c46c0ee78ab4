"""The variants of an ablation: a recipe whole, and without each of the switches to be dropped."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.errors import ConflictError, UsageError, nearest
from cmbench.recipe import Recipe, Tables
from cmbench.rundir import status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address, all_runs, portable, select

ENDED = ("finished", "diverged")
ON, OFF = "on", "off"


@dataclass(frozen=True)
class Switch:
    """A part of an objective that can be dropped.

    Attributes:
        name: of the part.
        overrides: `table.key=value`, which drop it.
        standing: "on"; "off" if the overrides change nothing in the recipe; or why the recipe refuses them.
    """

    name: str
    overrides: tuple[str, ...]
    standing: str


@dataclass
class Task:
    """One run of an ablation: to be done, or done.

    Attributes:
        variant: "whole", or "no_" and the switch.
        dropped: the overrides that make the variant.
        overrides: all overrides of the recipe's file: those given, those of the variant, name and seed.
        recipe: complete.
        run: its run, if any.
        resumed: whether its run existed already and is resumed.
    """

    variant: str
    dropped: tuple[str, ...]
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


def switches_of(path: Path, overrides: Sequence[str], whole: Recipe) -> list[Switch]:
    """List the switches of a recipe's objective; `whole` is the complete recipe."""
    from cmbench.engine import build

    objective, _ = build.component("objective", whole.objective["kind"])
    switches = getattr(objective, "switches", {})
    return [Switch(name, tuple(own), _standing(path, overrides, own, whole)) for name, own in switches.items()]


def _standing(path: Path, overrides: Sequence[str], own: Sequence[str], whole: Recipe) -> str:
    if lacking := _without_key(own, whole):
        return f"this {lacking} has no such key"
    try:
        variant = complete(path, [*overrides, *own])
    except UsageError as error:
        return str(error).removeprefix(f"{path}: ")
    if variant == whole:
        return OFF
    taken_over = whole.start is not None or (whole.teacher is not None and whole.teacher.initialise_student)
    if taken_over and _architecture(variant) != _architecture(whole):
        return "another network than that of the run that the first weights come from"
    return ON


def _without_key(overrides: Sequence[str], whole: Recipe) -> str:
    """Return the first table of a complete recipe, such as "network", that lacks a key to be set; "" for none."""
    tables = whole.tables()
    for override in overrides:
        table, _, key = override.partition("=")[0].partition(".")
        if isinstance(tables.get(table), dict) and key not in tables[table]:
            return table
    return ""


def _architecture(recipe: Recipe) -> Tables:
    """Return the network settings that the weights depend on."""
    return {key: value for key, value in recipe.network.items() if key != "dropout"}


def chosen(names: str, switches: Sequence[Switch], where: str) -> list[Switch]:
    """Return the switches in the comma-separated list `names`, each once.

    Raises:
        UsageError: one is unknown, off, or not for this recipe.
    """
    known = {switch.name: switch for switch in switches}
    on = [switch.name for switch in switches if switch.standing == ON]
    allowed = f"allowed: {', '.join(on) or 'none, because this recipe has no switches that are on'}"
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in wanted:
        if name in on:
            continue
        why = ""
        if name in known:
            refusal = known[name].standing
            why = ", which is off already" if refusal == OFF else f", which the recipe refuses ({refusal})"
        raise UsageError(f"{where}: --drop: found '{name}'{why}, {allowed}{nearest(name, on)}")
    return [known[name] for name in wanted]


def tasks_of(
    path: Path,
    overrides: Sequence[str],
    whole: Recipe,
    dropped: Sequence[Switch],
    seeds: int,
    name: str,
    runs_dir: Path,
) -> list[Task]:
    """List the runs of an ablation, variant by variant, each for `seeds` seeds from the recipe's on.

    Raises:
        UsageError: a recipe cannot have such a name or seed.
        NotFoundError: the teacher's run does not exist.
    """
    variants: dict[str, tuple[str, ...]] = {"whole": (), **{f"no_{s.name}": s.overrides for s in dropped}}
    _check_names(name, [f"{name}_{variant}" for variant in variants])
    pinned = _pinned_sources(whole, runs_dir)
    tasks = []
    for variant, own in variants.items():
        for seed in range(whole.seed, whole.seed + seeds):
            more = [*overrides, *pinned, *own, f'name="{name}_{variant}"', f"seed={seed}"]
            tasks.append(Task(variant, own, more, complete(path, more)))
    return tasks


def _check_names(name: str, names: Sequence[str]) -> None:
    bad = [n for n in sorted(names, key=len, reverse=True) if not re.fullmatch(recipes.NAME, n)]
    if bad:
        raise UsageError(
            f"--name: found '{name}', which names a run '{bad[0]}' ({len(bad[0])} characters), "
            "allowed: letters, digits, _ and -, at most 64 characters"
        )


def _pinned_sources(whole: Recipe, runs_dir: Path) -> list[str]:
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
        if not any(run.name.startswith(f"{name}-") for name in by_name):
            continue
        found = recipes.load(run.recipe)
        if found.name not in by_name:
            continue
        _check_same(run, found, by_name[found.name])
        task = by_key.get((found.name, found.seed))
        if task and (not task.is_done or status.read(run)["state"] in ENDED):
            task.run = run
    for task in tasks:
        if task.run and status.is_live(task.run):
            raise ConflictError(f"{task.run.name}: a trainer works on this run (cmbench watch {address(task.run)})")


def _check_same(run: RunDir, found: Recipe, wanted: Recipe) -> None:
    for key, (there, here) in sorted(recipes.differences([found, wanted]).items()):
        if key != "seed":
            shown = ["missing" if value is recipes.MISSING else repr(value) for value in (there, here)]
            raise ConflictError(
                f"{run.name}: {key} is {shown[0]} there and {shown[1]} here; choose another --name, or the same recipe"
            )
