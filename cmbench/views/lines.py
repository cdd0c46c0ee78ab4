"""The parts of a chart: lines with colours and dashes, marks and bands. Plain numbers and strings, no widgets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmbench.rundir.columns import Floats

Mask = NDArray[np.bool_]

LINES = 8  # number of colours
GREY = LINES  # the colour of lines behind the others, such as a parent's curve
# Marks by the kind of a journal row. The most important comes last, because of several in one place the last is seen.
# Snapshots have no mark: they are expected, and there are many.
SIGNS = {"checkpoint": "c", "request": "!", "resumed": "r", "warning": "w", "diverged": "x"}
DASHES = {"solid": (1,), "dashed": (1, 1, 1, 0, 0), "dotted": (1, 0)}  # dots that are lit (1) or left out (0)
# Okabe & Ito, "Color universal design" (2008). On white their yellow and sky blue fade; darkened, they are too close
# to other colours. The light set was found by a search from theirs: colour-blind readers can tell any two apart.
_ON_DARK = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2", "#bbbbbb")
_ON_LIGHT = ("#046dab", "#d1560e", "#148e61", "#ac1277", "#93773b", "#60001c", "#6c8ab0", "#52304a")
_ANSI = ("blue", "yellow", "green", "magenta", "cyan", "red", "bright_blue", "white")


@dataclass(frozen=True)
class Line:
    """One line of a chart. Arrays are (n,).

    Attributes:
        label: name of the line.
        x: places, ascending.
        low: lowest value at each x, nan where there is none.
        high: highest value at each x.
        mean: mean value at each x, which the average follows.
        count: number of values behind each mean, which weigh the average.
        bad: whether a value at that x was not finite.
        colour: a number from 0 to LINES - 1, or GREY.
        dash: a key of DASHES.
        smooth: whether an average makes sense, that is, whether neighbours repeat a measurement.
        is_band: whether low to high is a spread around the mean, such as over seeds, shaded behind it.
    """

    label: str
    x: Floats
    low: Floats
    high: Floats
    mean: Floats
    count: Floats
    bad: Mask
    colour: int = 0
    dash: str = "solid"
    smooth: bool = True
    is_band: bool = False

    @property
    def rows(self) -> Floats:
        """Number of rows behind each value, (n,); all rows that are not finite count as one."""
        return self.count + self.bad

    @classmethod
    def of(cls, label: str, x: Floats, y: Floats, colour: int = 0, dash: str = "solid") -> "Line":
        """Return a line through points, broken where y is not finite."""
        y = np.asarray(y, np.float64)
        bad = ~np.isfinite(y)
        y = np.where(bad, np.nan, y)
        return cls(label, np.asarray(x, np.float64), y, y, y, (~bad).astype(np.float64), bad, colour, dash)


@dataclass(frozen=True)
class Mark:
    """A sign on the axis for an event at x."""

    x: float
    sign: str
    is_bad: bool = False
    is_quiet: bool = False  # an expected event


@dataclass(frozen=True)
class Band:
    """A range of the vertical axis that is shaded behind the lines, for all x."""

    low: float
    high: float


def over_seeds(lines: Sequence[Line], label: str) -> Line | None:
    """Return the mean of lines with the band from the lowest to the highest, over the x that all of them cover.

    The x are those of the first line; the other lines are interpolated linearly. None if the lines share no x.
    """
    known = [line for line in lines if np.isfinite(line.mean).any()]
    if len(known) < len(lines) or not lines:
        return None
    own = [(line.x[there], line.mean[there]) for line in lines for there in [np.isfinite(line.mean)]]
    start, stop = max(x[0] for x, _ in own), min(x[-1] for x, _ in own)
    x = own[0][0]
    x = x[(x >= start) & (x <= stop)]
    if not len(x):
        return None
    values = np.array([np.interp(x, *each) for each in own])
    count, bad, first = np.ones(len(x)), np.zeros(len(x), bool), lines[0]
    low, high, mean = values.min(axis=0), values.max(axis=0), values.mean(axis=0)
    return Line(label, x, low, high, mean, count, bad, first.colour, first.dash, first.smooth, True)


def line_colours(theme: str, dark: bool) -> dict[str, str]:
    """Return the variables line-0 to line-7 of a theme."""
    named = tuple(f"ansi_{name}" for name in _ANSI)
    colours = named if theme.startswith("ansi") else _ON_DARK if dark else _ON_LIGHT
    return {f"line-{i}": colour for i, colour in enumerate(colours)}
