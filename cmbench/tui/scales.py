"""Axes: scales, limits that rarely move, ticks, and numbers in few characters."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["linear", "log", "symlog"]
KINDS: tuple[Kind, ...] = ("linear", "log", "symlog")


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
    if before and before[0] <= low and high <= before[1] and high - low >= 0.4 * (before[1] - before[0]):
        return before
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-300):  # constant
        spread = 0.5 * abs(high) or 1.0
        return low - spread, high + spread
    margin = pad * (high - low)
    return low - margin, high + margin


def grown(last: float, before: float | None, end: float | None) -> float:
    """Return the right end of a growing axis: half as far again as the last value, once that reached the end before.

    Each new end draws everything anew, so there are few of them.

    Args:
        last: the last value.
        before: the end so far.
        end: where the axis will stop at last, if that is known: never shown beyond it.
    """
    if before is not None and last <= before <= max(2 * last, 1e-300):
        return before
    further = 1.5 * last
    return max(last, min(further, end)) if end is not None else further


def ticks(low: float, high: float, scale: Scale, most: int) -> list[tuple[float, str]]:
    """Return positions and labels of at most `most` round values between two positions."""
    if most < 1 or not high > low:
        return []
    values = [] if scale.kind == "linear" else _decades(low, high, scale, most)
    step = 0.0
    if len(values) < 2:  # less than a decade in sight
        values = _round_values(scale.inverse(low), scale.inverse(high), most)
        step = min((b - a for a, b in pairwise(values)), default=0.0)
    placed = [(float(scale.forward(v)), v) for v in values]
    return [(position, number(v, step)) for position, v in placed if low <= position <= high]


def _round_values(low: float, high: float, most: int) -> list[float]:
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    rough = (high - low) / most
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10, 20) if m * magnitude >= rough * 0.999999)
    first = math.ceil(low / step - 1e-9)
    values = [k * step for k in range(first, first + most + 2)]
    return [v for v in values if v <= high + 1e-9 * step]


def _decades(low: float, high: float, scale: Scale, most: int) -> list[float]:
    exponents = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if scale.kind == "log":
        every = max(1, math.ceil(len(exponents) / most))
        return [10.0**e for e in exponents if e % every == 0 and abs(e) < 300]
    middle = [0.0] if low <= 0 <= high else []
    tops = range(math.ceil(math.log10(scale.linthresh)), math.ceil(math.log10(scale.linthresh) + max(-low, high)) + 1)
    every = max(1, math.ceil(2 * len(tops) / most))
    sizes = [10.0**e for e in tops if e % every == 0 and abs(e) < 300]
    return [-s for s in reversed(sizes)] + middle + sizes


def number(value: float, step: float = 0.0) -> str:
    """Return a number in at most seven characters, with the digits that a spacing of `step` calls for.

    From a million on by k, M, G, T; far from one by exponents.
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0 or (step and size < 1e-9 * step):
        return "0"
    if size >= 10_000:
        for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= 0.9995 * unit and size < 1e15:
                return f"{value / unit:.4g}{name}" if not step else f"{_fixed(value / unit, step / unit)}{name}"
        return _exponent(value)
    if size < 1e-3:
        return _exponent(value)
    return _fixed(value, step) if step else f"{value:.4g}"


def _fixed(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 2
    return f"{value:.{min(digits, 5)}f}"


def _exponent(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def duration(seconds: float) -> str:
    """Return a time in one or two units: 42s, 3m20s, 1h05m, 2d03h."""
    seconds = max(0, round(seconds))
    for unit, name, lower, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit}{name}{seconds % unit // lower:02}{lower_name}"
    return f"{seconds}s"
