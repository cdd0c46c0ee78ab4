"""What one metric of one run came to: its last and best value, its area, its value somewhere, when it got so far."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmbench.rundir.columns import Column, Floats
from cmbench.rundir.summary import is_quality

Axis = Literal["step", "images", "seconds"]
AXES: tuple[Axis, ...] = ("step", "images", "seconds")


@dataclass(frozen=True)
class Best:
    """The lowest value of a metric of quality, and its first step."""

    value: float
    step: int


@dataclass(frozen=True)
class Reached:
    """Where a metric first was as low as asked; images is None where the rows do not say."""

    step: int
    images: int | None
    seconds: float


def last(column: Column) -> float | None:
    """Return the last value, nan or inf where it was not finite; None where there is none."""
    return float(column.value[-1]) if len(column) else None


def best(name: str, column: Column) -> Best | None:
    """Return the lowest finite value of a metric of quality; None for others, which have no best (see `summary`)."""
    column = column.finite()
    if not is_quality(name) or not len(column):
        return None
    lowest = int(np.argmin(column.value))
    return Best(float(column.value[lowest]), int(column.step[lowest]))


def at(column: Column, axis: Axis, x: float) -> float | None:
    """Return the value at a step, a number of images or seconds, on straight lines between the finite rows.

    None where the metric does not reach from before `x` to it: nothing is extrapolated.
    """
    column = column.finite()
    places: Floats = getattr(column, axis)
    known = np.isfinite(places)
    if not known.any() or not places[known][0] <= x <= places[known][-1]:
        return None
    return float(np.interp(x, places[known], column.value[known]))


def area(column: Column, start: float, end: float) -> float | None:
    """Return the area under the straight lines between the finite rows, from step `start` to `end`.

    None where the metric does not cover them. The unit is that of the metric times steps.
    """
    column = column.finite()
    ends = at(column, "step", start), at(column, "step", end)
    if ends[0] is None or ends[1] is None:
        return None
    inner = (column.step > start) & (column.step < end)
    x = np.concatenate([[start], column.step[inner], [end]])
    y = np.concatenate([[ends[0]], column.value[inner], [ends[1]]])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def reached(column: Column, level: float) -> Reached | None:
    """Return where the metric first was at most `level`; None where it never was."""
    low = np.flatnonzero(column.value <= level)
    if not len(low):
        return None
    i = low[0]
    images = int(column.images[i]) if np.isfinite(column.images[i]) else None
    return Reached(int(column.step[i]), images, float(column.seconds[i]))
