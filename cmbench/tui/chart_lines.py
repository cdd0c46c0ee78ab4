"""What a chart draws: lines, and marks on its axis. Knows numbers and strings, no widget."""

from dataclasses import dataclass

import numpy as np

from cmbench.tui.canvas import Floats, Mask

LINES = 8  # colours
# Marks by the kind of a journal's row. What says most comes last, for of several in one place the last is seen.
# Snapshots were due, and are many.
SIGNS = {"checkpoint": "c", "request": "!", "resumed": "r", "warning": "w", "diverged": "x"}


@dataclass(frozen=True)
class Line:
    """One line of a chart. Arrays are (n,).

    Attributes:
        label: what it is called.
        x: ascending.
        low: lowest value at each x, nan where there is none.
        high: highest value.
        mean: mean value, which the average follows.
        count: values behind each, which the average counts.
        bad: whether one of them was not finite.
        colour: a number from 0 to LINES - 1.
        dash: a name of canvas.DASHES.
        smooth: whether an average says something: not where neighbours are no repetition.
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

    @property
    def rows(self) -> Floats:
        """Rows behind each value, (n,); of those that were not finite one, however many there were."""
        return self.count + self.bad

    @classmethod
    def of(cls, label: str, x: Floats, y: Floats, colour: int = 0, dash: str = "solid") -> "Line":
        """Return a line through points; it is broken where y is not finite."""
        y = np.asarray(y, np.float64)
        bad = ~np.isfinite(y)
        y = np.where(bad, np.nan, y)
        return cls(label, np.asarray(x, np.float64), y, y, y, (~bad).astype(np.float64), bad, colour, dash)


@dataclass(frozen=True)
class Mark:
    """Something that happened at an x: a sign on the axis."""

    x: float
    sign: str
    is_bad: bool = False
    is_quiet: bool = False  # was to be expected


@dataclass(frozen=True)
class Band:
    """A stretch of the vertical axis that is shaded behind the lines: between two values of all x."""

    low: float
    high: float
