"""The floors of a run's measures, as in meta.json: the values that a perfect sampler would show. No torch."""

from collections.abc import Callable, Mapping
from typing import Any

from cmbench.measures import Floor, better, measure_of
from cmbench.rundir.fields import numbers, whole

MARK, PLAIN_MARK = "\N{ALMOST EQUAL TO}", "~"  # behind a figure within its floor
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
LEGEND = "within the floor: not to be told from a perfect sampler, nor such figures from each other"

Floors = dict[str, Floor]  # by the keys of measures, such as "sw"


def written(found: Mapping[str, Floor]) -> dict[str, Any]:
    """Return floors as keys of meta.json. Earlier versions have `floor` alone: one draw."""
    return {
        "floor": {key: floor.value for key, floor in found.items()},
        "floor_spread": {key: floor.spread for key, floor in found.items()},
        "floor_draws": max((floor.draws or 0 for floor in found.values()), default=0),
    }


def of_meta(meta: Mapping[str, Any]) -> Floors:
    """Return the floors in meta.json; missing or damaged ones are left out."""
    spreads, draws = numbers(meta.get("floor_spread")), whole(meta.get("floor_draws"))
    return {key: Floor(value, spreads.get(key), draws) for key, value in numbers(meta.get("floor")).items()}


def has_spread(meta: Mapping[str, Any]) -> bool:
    """Return whether the run's version draws floors, and the labels for evaluations, as the data are distributed."""
    return "floor_spread" in meta


def of_row(found: Mapping[str, Floor], key: str) -> Floor | None:
    """Return the floor of a row's key, such as sw_1step, or None."""
    return found.get(measure_of(key))


def is_within(found: Mapping[str, Floor], key: str, value: float | None) -> bool:
    """Return whether a row's figure cannot be told from a perfect sampler's."""
    floor = of_row(found, key)
    return floor is not None and floor.holds(value, better(key))


def in_words(floor: Floor | None, number: Callable[[float], str], ascii_only: bool = False) -> str:
    """Return a floor as text, such as .042 with its deviation; a dash for none. `number` formats the value."""
    if floor is None:
        return "-"
    if floor.spread is None:
        return f"{number(floor.value)} (one draw)"
    return f"{number(floor.value)} {'+-' if ascii_only else PLUS_MINUS} {floor.spread:.2g}"


def marked(text: str, is_in_floor: bool, ascii_only: bool = False) -> str:
    """Return a figure's text, marked if the figure is within the floor."""
    return f"{text} {PLAIN_MARK if ascii_only else MARK}" if is_in_floor else text


def legend(ascii_only: bool = False) -> str:
    """Return the line that explains the mark."""
    return f"{PLAIN_MARK if ascii_only else MARK} {LEGEND}"
