"""The variants of an ablation: a recipe whole, and without each of the switches to be dropped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmbench.cli import _plan
from cmbench.cli._plan import Task, Variant, complete
from cmbench.errors import UsageError, did_you_mean
from cmbench.recipe import Recipe

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
    if taken_over and variant.architecture() != whole.architecture():
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
        raise UsageError(f"{where}: --drop: found '{name}'{why}, {allowed}{did_you_mean(name, on)}")
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
    own: dict[str, tuple[str, ...]] = {"whole": (), **{f"no_{s.name}": s.overrides for s in dropped}}
    variants = [Variant(variant, given, {"variant": variant}, (variant,)) for variant, given in own.items()]
    _plan.check_names(name, [f"{name}_{variant.name}" for variant in variants])
    given = [*overrides, *_plan.pinned_sources(whole, runs_dir)]
    return [
        _plan.task(path, variant, given, f"{name}_{variant.name}", seed)
        for variant in variants
        for seed in range(whole.seed, whole.seed + seeds)
    ]
