"""Axes: scales, limits that rarely move, ticks, and numbers in few characters."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmbench.tui.signs import NEVER

Kind = Literal["linear", "log", "symlog"]
KINDS: tuple[Kind, ...] = ("linear", "log", "symlog")
_ROOM = 7  # characters of a number
_FEW_DECADES = 2.5  # on a log axis: from here on the powers of ten are enough
_HUGE = 1e300  # ends beyond which differences are no floats any more


@dataclass(frozen=True)
class Scale:
    """A monotone map from values to positions on an axis.

    Attributes:
        kind: linear, log (base 10, of positive values alone) or symlog.
        linthresh: symlog is linear up to this size: sign(y) log10(1 + |y| / linthresh).
    """

    kind: Kind = "linear"
    linthresh: float = 1.0

    def forward(self, y: ArrayLike) -> NDArray[np.float64]:
        """Return positions; nan where the scale has none."""
        y = np.asarray(y, np.float64)
        if self.kind == "log":
            return np.log10(y, out=np.full(y.shape, np.nan), where=y > 0)
        if self.kind == "symlog":
            with np.errstate(over="ignore"):
                return np.sign(y) * np.log10(1 + np.abs(y) / self.linthresh)
        return y

    def inverse(self, position: float) -> float:
        """Return the value at a position; inf where it is beyond all floats."""
        try:
            if self.kind == "log":
                return 10.0**position
            if self.kind == "symlog":
                return math.copysign(self.linthresh * (10.0 ** abs(position) - 1), position)
        except OverflowError:
            return math.copysign(math.inf, position)
        return position


def limits(low: float, high: float, before: tuple[float, float] | None, pad: float = 0.05) -> tuple[float, float]:
    """Return the ends of an axis for data between `low` and `high`, positions both.

    The ends before are kept as long as they hold the data and these fill two fifths of them: an axis that moves with
    every row costs a new picture each time, on the line and for the eye.
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
    """Return the right end of a growing axis: half as far again as the last value, once that reached the end before.

    Each new end draws everything anew, so there are few of them.

    Args:
        last: the last value.
        before: the end so far.
        end: where the axis will stop at last, if that is known: never shown beyond it, unless the data are.
    """
    if end is None or last > end:
        end = math.inf
    if before is not None and last <= before <= min(end, max(2 * last, 1e-300)):
        return before
    return min(1.5 * last, end)


def ticks(low: float, high: float, scale: Scale, most: int) -> list[tuple[float, str]]:
    """Return positions and labels of at most `most` round values between two positions, no label twice."""
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
    """Return 1, 2, 5 times the powers of ten in sight, or 1, 3; those alone, where so many have no room."""
    exponents = range(math.floor(max(low, -300)), math.floor(min(high, 300)) + 1)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        values = [float(f"{m}e{e}") for e in exponents for m in mantissas]
        values = [value for value in values if low - 1e-9 <= math.log10(value) <= high + 1e-9]
        if len(values) <= most:
            return values
    return []


def _decades(low: float, high: float, scale: Scale, most: int) -> list[float]:
    """Return the powers of ten in sight, of both signs and with zero on a symlog axis; every so-manyth of them."""
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


def number(value: float, step: float = 0.0) -> str:
    """Return a number in at most seven characters, with the digits that a spacing of `step` calls for.

    From ten thousand on by k, M, G, T; far from one by exponents.
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0 or size < 1e-9 * step:
        return "0"
    if size < 9999.5 and (size >= 1e-3 or step >= 1e-4):
        return _fixed(value, step)
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if 0.99995 * unit <= size < 1e15:
            return _fixed(value / unit, step / unit, name)
    return _exponent(value, step)


def _fixed(value: float, step: float, unit: str = "") -> str:
    if not step:
        return _fitting(f"{value:.{digits}g}{unit}" for digits in (4, 3, 2))
    wanted = min(_ROOM, max(0, -math.floor(math.log10(step) + 1e-9)))
    return _fitting(f"{value:.{digits}f}{unit}" for digits in range(wanted, -1, -1))


def _exponent(value: float, step: float) -> str:
    wanted = 1
    if step:
        wanted = min(_ROOM, max(0, math.floor(math.log10(abs(value))) - math.floor(math.log10(step) + 1e-9)))
    parts = (f"{value:.{digits}e}".split("e") for digits in range(wanted, -1, -1))
    return _fitting(f"{m.rstrip('0').rstrip('.') if '.' in m else m}e{int(e)}" for m, e in parts)


def _fitting(forms: Iterable[str]) -> str:
    """Return the first form that has room, else the last: a label that is cut off would be another number."""
    form = ""
    for form in forms:
        if len(form) <= _ROOM:
            break
    return form


def duration(seconds: float) -> str:
    """Return a time in one or two units: 42s, 3m20s, 1h05m, 2d03h; ? as `signs.clock`."""
    if not abs(seconds) < NEVER:
        return "?"
    seconds = max(0, round(seconds))
    for unit, name, lower, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit}{name}{seconds % unit // lower:02}{lower_name}"
    return f"{seconds}s"
