"""What may be changed while a run trains, and the recipe with such changes. Imports no torch: views may use it."""

from collections.abc import Mapping, Sequence
from typing import Any

from cmbench import recipe as recipes
from cmbench.config import Config, Count, check
from cmbench.errors import UsageError, nearest
from cmbench.recipe import Recipe, Tables
from cmbench.text import shown, shown_key

KEYS = (
    "optimizer.lr",
    "objective.tangent_warmup",
    "ema.lengths",
    "log.every",
    "profile.every",
    "checkpoint.every",
    "snapshot.every",
    "evaluate.every",
)


class _Objective(Config):
    """The steerable part of [objective], whose own Config would import torch."""

    tangent_warmup: Count = 0


def steerable(recipe: Recipe) -> list[str]:
    """List the keys of a complete recipe that may be changed while it trains."""
    return [key for key in KEYS if not key.startswith("objective.") or key.split(".")[1] in recipe.objective]


def parse(recipe: Recipe, overrides: Sequence[str], where: str, option: str = "--set") -> dict[str, Any]:
    """Read `table.key=value` as settings for a run, checked.

    Args:
        recipe: of the run, complete.
        overrides: as the user gave them.
        where: what messages name, the run.
        option: what messages call an override that is none.

    Raises:
        UsageError: a key cannot be changed while a run trains, or not to this value.
    """
    settings = _flat(recipes.parse_overrides(overrides, option))
    steered(recipe, settings, where)
    return settings


def steered(recipe: Recipe, settings: Mapping[str, Any], where: str) -> Recipe:
    """Return a complete recipe with settings such as {"optimizer.lr": 1e-4} in force.

    Raises:
        UsageError: a key cannot be changed while a run trains, or not to this value.
    """
    tables = recipe.tables()
    for key, value in settings.items():
        _check_key(recipe, key, where)
        table, name = key.split(".")
        if table == "objective":
            check(_Objective, {name: value}, where, table)
        tables[table] = {**tables[table], name: value}
    result = recipes.check_tables(tables, where)
    before, after = recipe.ema.lengths, result.ema.lengths
    if len(after) != len(before):
        raise UsageError(f"{where}: ema.lengths: found {shown(list(after))}, allowed: as many as before, {len(before)}")
    return result


def _check_key(recipe: Recipe, key: str, where: str) -> None:
    allowed = steerable(recipe)
    if key not in allowed:
        full = next((name for name in allowed if name.endswith(f".{key}")), key)  # lr means optimizer.lr
        raise UsageError(
            f"{where}: {shown_key([key])}: cannot be changed while a run trains{nearest(full, allowed)} "
            f"(allowed: {', '.join(allowed)})"
        )


def _flat(tables: Tables, prefix: str = "") -> dict[str, Any]:
    """Turn {"log": {"every": 5}} into {"log.every": 5}."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
