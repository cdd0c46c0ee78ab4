"""The horizontal axes that curves of a run have: what each is called, its labels, and the names of places on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cmbench.tui.scales import duration, number
from cmbench.tui.signs import clock

Ticks = Callable[[float, float, int], list[tuple[float, str]]]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SPACINGS = (  # seconds between dates on an axis
    *(1, 2, 5, 10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY),
)


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
        title: what it is called.
        label: of a value on the axis, in few characters.
        name: of one place, as exactly as it is known.
        ticks: places and labels between two ends, at most so many, where labels alone would not do.
    """

    title: str
    label: Callable[[float], str]
    name: Callable[[float], str]
    ticks: Ticks | None = None


def date(moment: float) -> str:
    """Return a moment of the wall's clock, e.g. 2026-01-05 14:03:20."""
    return _written(moment, "%Y-%m-%d %H:%M:%S")


def dates(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Return round moments between two, seconds since 1970, and their labels: a day is told with its first label."""
    span = high - low
    if not 0 < span < 1e11 or most < 1:
        return []
    every = next((s for s in _SPACINGS if span / s < most), 90 * _DAY * (1 + int(span / (90 * _DAY * most))))
    shift = _offset(low)  # of the zone: days begin at midnight
    at = -(-(low + shift) // every) * every - shift
    found, day = list[tuple[float, str]](), ""
    while at <= high:
        today = _written(at, "%Y-%m-%d" if span > 300 * _DAY else "%m-%d")
        hour = _written(at, "%H:%M:%S" if every < _MINUTE else "%H:%M")
        found.append((at, today if every >= _DAY else hour if today == day else f"{today} {hour}"))
        at, day = at + every, today
    return found


def _offset(moment: float) -> int:
    try:
        return time.localtime(moment).tm_gmtoff
    except (OverflowError, ValueError, OSError):
        return 0


def _written(moment: float, form: str) -> str:
    try:
        return time.strftime(form, time.localtime(moment))
    except (OverflowError, ValueError, OSError):
        return "?"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < _MINUTE else clock(value)


OF_RUNS: dict[str, Axis] = {
    "step": Axis("steps", number, lambda x: f"step {x:,.0f}"),
    "images": Axis("images", number, lambda x: f"{x:,.0f} images"),
    "time": Axis("training time", duration, lambda x: f"{_seconds(x)} of training"),
    "wall": Axis("wall time", date, date, dates),
    "forwards": Axis("forwards", number, lambda x: f"{x:,.0f} forwards"),
}
