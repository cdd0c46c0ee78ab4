"""What a value of a run's JSON is taken for. Files may be damaged: what has another type than its own is not there."""

import math
from typing import Any

END = 2**63  # of the steps that arrays hold
_YEAR_5138 = 1e11  # seconds since 1970


def number_of(value: object) -> float | None:
    """Return a finite number as it is, and None for anything else a damaged file may hold."""
    return float(value) if isinstance(value, int | float) and abs(value) < math.inf else None


def value_of(row: dict[str, Any], key: str) -> float | None:
    """Return a value of a row of metrics, nan or inf where it was not finite; None where there is none, or no number.

    JSON has no such numbers: in their place stands null, and what it was in the row's table "nonfinite".
    """
    if key not in row:
        return None
    if (value := row[key]) is None:
        named = table(row.get("nonfinite")).get(key)
        return float(named) if named in ("nan", "inf", "-inf") else math.nan
    return number_of(value)


def whole(value: object) -> int | None:
    """Return a step, or another number of things that are counted."""
    return value if type(value) is int and 0 <= value < END else None


def moment(value: object) -> float | None:
    """Return a time in seconds since 1970, or a length of time, that a clock can show."""
    number = number_of(value)
    return number if number is not None and 0 <= number < _YEAR_5138 else None


def text(value: object) -> str | None:
    """Return a text."""
    return value if isinstance(value, str) else None


def table(value: object) -> dict[str, Any]:
    """Return a table; an empty one where there is none."""
    return value if isinstance(value, dict) else {}


def tables(value: object) -> dict[str, dict[str, Any]]:
    """Return the tables in a table by name."""
    return {key: own for key, own in table(value).items() if isinstance(own, dict)}


def numbers(value: object) -> dict[str, float]:
    """Return the numbers in a table by name."""
    return {key: own for key, own in table(value).items() if number_of(own) is not None}


def best(value: object) -> dict[str, Any]:
    """Return the best value of each metric with its step, as status.json has them, and whether its floor holds it."""
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
    """Return a list of numbers; an empty one where one of them is none."""
    found = [number_of(each) for each in value] if isinstance(value, list) else []
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else []
