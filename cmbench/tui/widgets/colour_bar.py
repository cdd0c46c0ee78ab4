"""A colour bar on one line: the shades of a map, rising, with values at the ends and in the middle."""

import numpy as np
from numpy.typing import NDArray

from cmbench.tui.colours import LEVELS
from cmbench.words.numbers import number

_CELLS = (24, 12, 8)  # of shades; the widest that has room is used
Part = str | NDArray[np.int64]


def parts(low: float, high: float, room: int, is_signed: bool = False) -> list[Part]:
    """Return the parts of the bar from left to right: texts, and between them the levels of shaded cells.

    Args:
        low: log10 of the value at the lower end of the shades.
        high: log10 of the value at the upper end of the shades.
        room: available cells.
        is_signed: whether only positive values have colours; the bar says so if there is room.

    Returns:
        The parts, of at most `room` cells; empty if even the narrowest bar has no room.
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
    """Return the number of cells of the parts."""
    return sum(map(len, bar))
