"""Points as characters, both axes to one scale: braille dots, or plain characters by number."""

import numpy as np

EXTENT = 1.5  # the square [-1.5, 1.5]^2: data have standard deviation 0.5
_LARGEST = 8 * EXTENT
_INSIDE = 0.98  # of the points; single ones may lie anywhere early in training
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # of a braille cell, by row and column
_COUNTS = " .:+*#@"  # none, 1, 2-3, 4-7, 8-15, 16-31, more


def extent_for(xy: np.ndarray, extent: float = EXTENT) -> float:
    """Double `extent` until nearly all points lie within, but not for points that flew far away."""
    reach = float(np.quantile(np.abs(xy).max(axis=1), _INSIDE)) if len(xy) else 0.0
    while reach > extent < _LARGEST:
        extent *= 2
    return extent


def outside(xy: np.ndarray, extent: float) -> int:
    """Return how many points lie outside the square."""
    return int((np.abs(xy) > extent).any(axis=1).sum())


def braille(xy: np.ndarray, extent: float, width: int, height: int) -> list[str]:
    """Draw points in the largest square of cells that fits, twice as many columns as rows, eight dots a cell."""
    rows = min(height, width // 2)
    dots = _count(xy, extent, 4 * rows) > 0
    cells = (dots.reshape(rows, 4, 2 * rows, 2) * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    return ["".join(chr(0x2800 + int(cell)) if cell else " " for cell in line) for line in cells]


def characters(xy: np.ndarray, extent: float, width: int, height: int) -> list[str]:
    """Draw points in the same square, each cell by how many it holds."""
    rows = min(height, width // 2)
    counts = _count(xy, extent, 2 * rows).reshape(rows, 2, 2 * rows).sum(axis=1)
    return ["".join(_COUNTS[min(int(n).bit_length(), len(_COUNTS) - 1)] for n in line) for line in counts]


def _count(xy: np.ndarray, extent: float, side: int) -> np.ndarray:
    """Count points in side x side squares, the first row the upper one."""
    counts, _, _ = np.histogram2d(-xy[:, 1], xy[:, 0], bins=max(1, side), range=[[-extent, extent]] * 2)
    return counts.astype(int)[:side, :side]
