"""What may be changed while a run trains, and the recipe with such changes. Imports no torch: views may use it."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cmbench import recipe as recipes
from cmbench.config import Config, check
from cmbench.config import steerable as steerable_keys
from cmbench.errors import UsageError, did_you_mean
from cmbench.recipe import Recipe
from cmbench.tables import DEVICE, TABLES, Warmup
from cmbench.text import shown, shown_key

_TABLES: dict[str, type[Config]] = {**TABLES, "objective": Warmup}
KEYS = [f"{table}.{key}" for table, config in _TABLES.items() for key in steerable_keys(config)]
PLACES = frozenset({"data.root", "train.device"})  # may be renamed on resume; `rundir.places` keeps them

LENGTH = ("train.steps",)  # may be changed on resume, also that of a finished run

# What a fork may change. The state in a checkpoint depends on the rest: weights, data, times and their bins.
_NEXT = re.compile(r"\s+(?=[\w.]+=)")
_FORK_TABLES = ("optimizer", "objective", "ema", "train", "log", "checkpoint", "snapshot", "evaluate")
_FORK_KEYS = ("seed", "name", "profile.every")
_FORK_FIXED = ("objective.kind", "optimizer.kind", "train.device", "ema.profile", "ema.keep_every")


def steerable(recipe: Recipe) -> list[str]:
    """List the keys of a complete recipe that may be changed while it trains."""
    return [key for key in KEYS if not key.startswith("objective.") or key.split(".")[1] in recipe.objective]


def words(text: str) -> list[str]:
    """Return the parts `table.key=value` of a line; a value may contain spaces, as in ema.lengths=[0.9, 0.99]."""
    return [part for part in _NEXT.split(text.strip()) if part]


def parse_with_places(recipe: Recipe, overrides: Sequence[str], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Read `table.key=value` for a run that is resumed: settings as in `parse`, and places of data and device.

    Raises:
        UsageError: as in `parse` and `places_in`.
    """
    given = recipes.flat_overrides(overrides)
    places = places_in(recipe, given, where)
    settings = {key: value for key, value in given.items() if key not in places}
    steered(recipe, settings, where, {*PLACES, *LENGTH})
    return settings, places


def parse(recipe: Recipe, overrides: Sequence[str], where: str, option: str = "--set") -> dict[str, Any]:
    """Read `table.key=value` as settings for a run, checked.

    Args:
        recipe: of the run, complete.
        overrides: as the user gave them.
        where: the run's name in messages.
        option: the option's name in messages about a malformed override.

    Raises:
        UsageError: a key cannot be changed while a run trains, or not to this value.
    """
    settings = recipes.flat_overrides(overrides, option)
    steered(recipe, settings, where)
    return settings


def steered(recipe: Recipe, settings: Mapping[str, Any], where: str, also: Collection[str] = ()) -> Recipe:
    """Return a complete recipe with settings such as {"optimizer.lr": 1e-4} in force.

    Messages list the keys `also` as allowed besides the steerable ones.

    Raises:
        UsageError: a key cannot be changed while a run trains, or not to this value.
    """
    tables = recipe.tables()
    for key, value in settings.items():
        _check_key(recipe, key, where, also)
        table, name = key.split(".")
        if table == "objective":
            check(Warmup, {name: value}, where, table)
        tables[table] = {**tables[table], name: value}
    result = recipes.check_tables(tables, where)
    before, after = recipe.ema.lengths, result.ema.lengths
    if len(after) != len(before):
        raise UsageError(f"{where}: ema.lengths: found {shown(list(after))}, allowed: as many as before, {len(before)}")
    _refuse_mixed(recipe, after, where)
    return result


def _refuse_mixed(recipe: Recipe, lengths: object, where: str) -> None:
    """Refuse other lengths where averages are kept: what they weigh would be known no more.

    Raises:
        UsageError: they differ.
    """
    before = list(recipe.ema.lengths)
    if recipe.ema.keep_every and isinstance(lengths, list | tuple) and list(lengths) != before:
        raise UsageError(
            f"{where}: ema.lengths: found {shown(list(lengths))}, allowed where ema.keep_every keeps averages: {before}"
        )


def check_length(settings: Mapping[str, Any], step: int, where: str) -> None:
    """Refuse settings whose train.steps leaves nothing to train after a step.

    Raises:
        UsageError: there is no step left.
    """
    steps = settings.get("train.steps")
    if isinstance(steps, int) and steps <= step:
        raise UsageError(f"{where}: train.steps: found {steps}, allowed: more than {step}, the step where it is")


def places_in(recipe: Recipe, settings: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return the settings of data.root and train.device, which a resume or an evaluation may change.

    Raises:
        UsageError: a value is not valid, or the recipe's data have no root.
    """
    found: dict[str, str] = {}
    for key in PLACES & settings.keys():
        if not isinstance(settings[key], str) or not settings[key]:
            raise UsageError(f"{where}: {key}: found {shown(settings[key])}, allowed: a non-empty text")
        if key == "data.root" and "root" not in recipe.data:
            raise UsageError(f"{where}: {key}: found one, but data of kind '{recipe.data['kind']}' have no root")
        if key == "train.device" and not re.fullmatch(DEVICE, settings[key]):
            raise UsageError(f"{where}: {key}: found {shown(settings[key])}, allowed: auto, cpu, cuda or cuda:N")
        found[key] = settings[key]
    if "data.root" in found and not found["data.root"].startswith("~"):
        found["data.root"] = os.path.abspath(found["data.root"])  # noqa: PTH100 - Path.resolve would follow links
    return found


def _check_key(recipe: Recipe, key: str, where: str, also: Collection[str]) -> None:
    allowed = [*steerable(recipe), *(place for place in sorted(also) if place != "data.root" or "root" in recipe.data)]
    if key not in allowed:
        full = next((name for name in allowed if name.endswith(f".{key}")), key)  # lr means optimizer.lr
        raise UsageError(
            f"{where}: {shown_key([key])}: cannot be changed while a run trains{did_you_mean(full, allowed)} "
            f"(allowed: {', '.join(allowed)})"
        )


def check_fork(recipe: Recipe, overrides: Sequence[str], step: int, where: str, in_force: int | None = None) -> None:
    """Refuse overrides that a fork cannot make, and a fork without steps to do.

    Args:
        recipe: of the parent, complete.
        overrides: `table.key=value`.
        step: of the checkpoint.
        where: the run's name in messages.
        in_force: train.steps of the parent, if a resume has changed it.

    Raises:
        UsageError: the checkpoint depends on a key, or no step is left.
    """
    given = recipes.flat_overrides(overrides)
    keys = [key for key, _ in recipes.flat(recipe.tables()) if _may_fork(key)]
    for key in given:
        if key in _FORK_FIXED:
            raise UsageError(f"{where}: {key}: found in --set, but the checkpoint depends on it; allowed: without it")
        if not _may_fork(key):
            raise UsageError(
                f"{where}: {shown_key([key])}: found in --set, but the checkpoint depends on it, or there is no such "
                f"key; allowed: keys of {', '.join(_FORK_TABLES)}, {', '.join(_FORK_KEYS)}{did_you_mean(key, keys)}"
            )
    _refuse_mixed(recipe, given.get("ema.lengths"), where)
    steps = given.get("train.steps", in_force or recipe.train.steps)
    if isinstance(steps, int) and steps <= step:
        raise UsageError(f"{where}: train.steps: found {steps}, allowed for a fork at step {step}: more than {step}")


def _may_fork(key: str) -> bool:
    return key in _FORK_KEYS or (key.split(".")[0] in _FORK_TABLES and "." in key and key not in _FORK_FIXED)
