"""A colour bar on one line: the shades of a map in rising order, with the values at its ends and in its middle."""

import numpy as np
from numpy.typing import NDArray

from cmbench.tui.colours import LEVELS
from cmbench.words.numbers import number

_CELLS = (24, 12, 8)  # of shades, the widest first that has room
Part = str | NDArray[np.int64]


def parts(low: float, high: float, room: int, is_signed: bool = False) -> list[Part]:
    """Return what stands from left to right: texts, and levels of the cells of shades between them.

    Args:
        low: log10 of the value at the lower end of the shades.
        high: log10 of that at their upper end.
        room: cells that there are.
        is_signed: whether what is not positive has no colour, which is said where there is room.

    Returns:
        The parts, of `room` cells at most; none where even the narrowest has no room.
    """
    ends = [f" {number(float(f'{10.0**place:.3g}'))} " for place in (low, (low + high) / 2, high)]
    for cells in _CELLS:
        lower, upper = np.array_split(np.arange(cells) * LEVELS // cells, 2)
        bar: list[Part] = [ends[0], lower, ends[1], upper, ends[2]]
        for first in ([" <0: blank"] if is_signed else []), []:
            if width([*first, *bar]) <= room:
                return [*first, *bar]
    return []


def width(bar: list[Part]) -> int:
    """Return how many cells the parts take."""
    return sum(map(len, bar))
