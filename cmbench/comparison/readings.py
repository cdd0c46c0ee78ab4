"""Figures of one metric of one run: its best value, its area, its value at a place, and when it reached a level."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmbench.measures import Better, better
from cmbench.rundir.columns import Column, Floats

Axis = Literal["step", "images", "seconds", "forwards"]
AXES: tuple[Axis, ...] = ("step", "images", "seconds", "forwards")


@dataclass(frozen=True)
class Best:
    """The best value of a measure, in the sense of `measures.better`, and its first step."""

    value: float
    step: int


@dataclass(frozen=True)
class Reached:
    """Where a measure first reached a level; images and forwards are None if the rows do not contain them."""

    step: int
    images: int | None
    seconds: float
    forwards: float | None = None


def best(name: str, column: Column) -> Best | None:
    """Return the best finite value of a measure; None for other metrics, which have no best (see `summary`)."""
    column, way = column.finite(), better(name)
    if not way or not len(column):
        return None
    place = int(np.argmax(column.value) if way == "higher" else np.argmin(column.value))
    return Best(float(column.value[place]), int(column.step[place]))


def at(column: Column, axis: Axis, x: float) -> float | None:
    """Return the value at a step, or after `x` images, seconds or forward passes, on lines between the finite rows.

    None if the metric's rows do not enclose `x`: nothing is extrapolated.
    """
    column = column.finite()
    places: Floats = getattr(column, axis)
    known = np.isfinite(places)
    if not known.any() or not places[known][0] <= x <= places[known][-1]:
        return None
    return float(np.interp(x, places[known], column.value[known]))


def area(column: Column, start: float, end: float) -> float | None:
    """Return the area under the straight lines between the finite rows, from step `start` to `end`.

    None if the metric does not cover these steps. The unit is that of the metric times steps.
    """
    column = column.finite()
    ends = at(column, "step", start), at(column, "step", end)
    if ends[0] is None or ends[1] is None:
        return None
    inner = (column.step > start) & (column.step < end)
    x = np.concatenate([[start], column.step[inner], [end]])
    y = np.concatenate([[ends[0]], column.value[inner], [ends[1]]])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def reached(column: Column, level: float, way: Better = "lower") -> Reached | None:
    """Return where the metric first was at most `level`, or at least if higher is better; None if never."""
    good = np.flatnonzero(column.value >= level if way == "higher" else column.value <= level)
    if not len(good):
        return None
    i = good[0]
    images = int(column.images[i]) if np.isfinite(column.images[i]) else None
    forwards = float(column.forwards[i]) if np.isfinite(column.forwards[i]) else None
    return Reached(int(column.step[i]), images, float(column.seconds[i]), forwards)
