"""Typed access to values of a run's JSON. Files may be damaged: a value of the wrong type counts as missing."""

import math
from typing import Any

END = 2**63  # steps are smaller than this, since arrays hold them as int64
_YEAR_5138 = 1e11  # seconds since 1970


def number_of(value: object) -> float | None:
    """Return a finite number as a float, and None for anything else that a damaged file may contain."""
    return float(value) if isinstance(value, int | float) and abs(value) < math.inf else None


def value_of(row: dict[str, Any], key: str) -> float | None:
    """Return a value of a row of metrics, nan or inf if it was not finite; None if it is missing or not a number.

    JSON has no such numbers: the row has null in their place, and their names in its table "nonfinite".
    """
    if key not in row:
        return None
    if (value := row[key]) is None:
        named = table(row.get("nonfinite")).get(key)
        return float(named) if named in ("nan", "inf", "-inf") else math.nan
    return number_of(value)


def whole(value: object) -> int | None:
    """Return a step, or another count; None for anything else."""
    return value if type(value) is int and 0 <= value < END else None


def moment(value: object) -> float | None:
    """Return a time in seconds since 1970, or a duration in seconds; None if no clock can show it."""
    number = number_of(value)
    return number if number is not None and 0 <= number < _YEAR_5138 else None


def text(value: object) -> str | None:
    """Return a text; None for anything else."""
    return value if isinstance(value, str) else None


def table(value: object) -> dict[str, Any]:
    """Return a table; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def tables(value: object) -> dict[str, dict[str, Any]]:
    """Return the tables in a table by name."""
    return {key: own for key, own in table(value).items() if isinstance(own, dict)}


def numbers(value: object) -> dict[str, float]:
    """Return the numbers in a table by name."""
    return {key: own for key, own in table(value).items() if number_of(own) is not None}


def best(value: object) -> dict[str, Any]:
    """Return the best value of each metric with its step, as in status.json, and whether it is within its floor."""
    known = {key: own for key, own in tables(value).items() if number_of(own.get("value")) is not None}
    return {
        key: {
            "value": own["value"],
            "step": whole(own.get("step")),
            **({"is_within_floor": True} if own.get("is_within_floor") is True else {}),
        }
        for key, own in known.items()
    }


def number_list(value: object) -> list[float]:
    """Return a list of numbers; an empty list if one of them is not a number."""
    found = [number_of(each) for each in value] if isinstance(value, list) else []
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else []
