"""Axes: scales, limits that rarely move, ticks, and the horizontal axes of a run's curves."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbench.words.numbers import number
from cmbench.words.times import EXACT, date, duration

Kind = Literal["linear", "log", "symlog"]
KINDS: tuple[Kind, ...] = ("linear", "log", "symlog")
_FEW_DECADES = 2.5  # on a log axis: from this many decades on, powers of ten are enough
_WIDE = 30  # a log axis suits values whose largest is more than this many times the smallest
_HUGE = 1e300  # beyond these ends, differences may overflow

Ticks = Callable[[float, float, int], list[tuple[float, str]]]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_SPACINGS = (  # seconds between dates on an axis
    *(1, 2, 5, 10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY),
)


@dataclass(frozen=True)
class Scale:
    """A monotone map from values to positions on an axis.

    Attributes:
        kind: linear, log (base 10, positive values only) or symlog.
        linthresh: symlog is linear up to this size: sign(y) log10(1 + |y| / linthresh).
    """

    kind: Kind = "linear"
    linthresh: float = 1.0

    def forward(self, y: ArrayLike) -> NDArray[np.float64]:
        """Return positions; nan for values that are not on the scale."""
        y = np.asarray(y, np.float64)
        if self.kind == "log":
            return np.log10(y, out=np.full(y.shape, np.nan), where=y > 0)
        if self.kind == "symlog":
            with np.errstate(over="ignore"):
                return np.sign(y) * np.log10(1 + np.abs(y) / self.linthresh)
        return y

    def inverse(self, position: float) -> float:
        """Return the value at a position; inf where it overflows."""
        try:
            if self.kind == "log":
                return 10.0**position
            if self.kind == "symlog":
                return math.copysign(self.linthresh * (10.0 ** abs(position) - 1), position)
        except OverflowError:
            return math.copysign(math.inf, position)
        return position

    def inverses(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value at each position, (n,)."""
        return np.array([self.inverse(float(position)) for position in positions])


def usual(values: NDArray[np.float64]) -> Kind:
    """Return the default kind of axis for values, (n,): log if they are positive and far apart, else linear."""
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0:
        return "linear"
    low, high = np.quantile(values, [0.02, 0.98])
    return "log" if high > _WIDE * low else "linear"


def limits(low: float, high: float, before: tuple[float, float] | None, pad: float = 0.05) -> tuple[float, float]:
    """Return the ends of an axis for data between the positions `low` and `high`.

    The ends `before` are kept as long as they contain the data and the data fill two fifths of them. An axis that
    moves with every row would need a new picture each time, which costs bytes and is hard to read.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return before or (0.0, 1.0)
    low, high = max(low, -_HUGE), min(high, _HUGE)
    if before and before[0] <= low and high <= before[1] and high - low >= 0.4 * (before[1] - before[0]):
        return before
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-290):  # constant
        spread = 0.5 * abs(high) if abs(high) > 1e-290 else 1.0
        return low - spread, high + spread
    margin = pad * (high - low)
    return low - margin, high + margin


def grown(last: float, before: float | None, end: float | None) -> float:
    """Return the right end of a growing axis: 1.5 times the last value, once that value passes the end so far.

    Each new end redraws everything, so there are few of them.

    Args:
        last: the last value.
        before: the end so far.
        end: the final end of the axis, if known. The axis never extends beyond it, unless the data do.
    """
    if end is None or last > end:
        end = math.inf
    if before is not None and last <= before <= min(end, max(2 * last, 1e-300)):
        return before
    return min(1.5 * last, end)


def ticks(low: float, high: float, scale: Scale, most: int) -> list[tuple[float, str]]:
    """Return positions and labels of at most `most` round values between two positions, without repeated labels."""
    if most < 1 or not high > low:
        return []
    values = [] if scale.kind == "linear" else _decades(low, high, scale, most)
    step = 0.0
    if scale.kind == "log" and high - low < _FEW_DECADES:
        values = _within_decades(low, high, most) or values
    if len(values) < (3 if scale.kind == "log" else 2):  # less than a decade in sight
        even = _round_values(scale.inverse(low), scale.inverse(high), most)
        if len(even) > len(values):
            values, step = even, min((b - a for a, b in pairwise(even)), default=0.0)
    labels: dict[str, float] = {}
    for value in values:
        labels.setdefault(number(value, step), float(scale.forward(value)))
    return [(position, label) for label, position in labels.items() if low <= position <= high]


def _round_values(low: float, high: float, most: int) -> list[float]:
    span = high - low
    if not 1e-290 < span < math.inf:
        return []
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    for step in (m * magnitude for m in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [k * step for k in range(first, last + 1)]
    return []


def _within_decades(low: float, high: float, most: int) -> list[float]:
    """Return 1, 2, 5 times the powers of ten in sight; without room for these 1, 3 times, or the powers only."""
    exponents = range(math.floor(max(low, -300)), math.floor(min(high, 300)) + 1)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        values = [float(f"{m}e{e}") for e in exponents for m in mantissas]
        values = [value for value in values if low - 1e-9 <= math.log10(value) <= high + 1e-9]
        if len(values) <= most:
            return values
    return []


def _decades(low: float, high: float, scale: Scale, most: int) -> list[float]:
    """Return the powers of ten in sight, thinned to fit; on a symlog axis of both signs and with zero."""
    is_log = scale.kind == "log"
    start = 0.0 if is_log else math.log10(scale.linthresh)
    bottom, top = (low, high) if is_log else (start, start + max(-low, high))
    exponents = range(math.ceil(max(bottom, -300) - 1e-9), math.floor(min(top, 300) + 1e-9) + 1)
    powers = [(e, sign * 10.0**e) for e in exponents for sign in ((1,) if is_log else (1, -1))]
    powers = [(e, v) for e, v in powers if low <= float(scale.forward(v)) <= high]
    zero = [] if is_log or not low <= 0 <= high else [0.0]
    for every in range(1, len(exponents) + 1):
        values = zero + [v for e, v in powers if e % every == 0]
        if len(values) <= most:
            return sorted(values)
    return zero


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
        title: title of the axis.
        label: returns a short label for a value on the axis.
        name: returns the exact name of a place.
        ticks: returns at most so many places and labels between two ends, for axes that need more than `label`.
    """

    title: str
    label: Callable[[float], str]
    name: Callable[[float], str]
    ticks: Ticks | None = None


def dates(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Return round moments between two (seconds since 1970) and their labels; each day is named once, at the first."""
    span = high - low
    if not 0 < span < 1e11 or most < 1:
        return []
    every = next((s for s in _SPACINGS if span / s < most), 90 * _DAY * (1 + int(span / (90 * _DAY * most))))
    shift = _offset(low)  # of the time zone, so that days begin at midnight
    at = -(-(low + shift) // every) * every - shift
    found, day = list[tuple[float, str]](), ""
    while at <= high:
        today = date(at, "%Y-%m-%d" if span > 300 * _DAY else "%m-%d")
        hour = date(at, "%H:%M:%S" if every < _MINUTE else "%H:%M")
        found.append((at, today if every >= _DAY else hour if today == day else f"{today} {hour}"))
        at, day = at + every, today
    return found


def _offset(moment: float) -> int:
    try:
        return time.localtime(moment).tm_gmtoff
    except (OverflowError, ValueError, OSError):
        return 0


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < _MINUTE else duration(value, EXACT)


OF_RUNS: dict[str, Axis] = {
    "step": Axis("steps", number, lambda x: f"step {x:,.0f}"),
    "images": Axis("images", number, lambda x: f"{x:,.0f} images"),
    "time": Axis("training time", duration, lambda x: f"{_seconds(x)} of training"),
    "wall": Axis("wall time", date, date, dates),
    "forwards": Axis("forwards", number, lambda x: f"{x:,.0f} forwards"),
}
