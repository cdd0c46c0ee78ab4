"""Where the channels of pictures lie: (M, C, H, W) or (M, H, W, C)."""

from typing import Literal

import numpy as np

Layout = Literal["points", "grey", "chw", "hwc"]
_USUAL = (1, 3, 4)  # channels of pictures


def guessed(shape: tuple[int, ...]) -> Layout | None:
    """Return the layout of an array of a shape; None if both are as likely.

    Two signs are looked at: sides that are equal where those of the other layout are not, and 1, 3 or 4 channels
    where the other layout has another number. One of them settles it, unless the other one contradicts.
    """
    if len(shape) < 4:
        return "points" if len(shape) == 2 else "grey"
    first, middle, last = shape[1:]
    square = _settled(middle == last, first == middle)
    usual = _settled(first in _USUAL, last in _USUAL)
    return (square or usual) if square is None or usual is None or square == usual else None


def _settled(chw: bool, hwc: bool) -> Layout | None:
    return None if chw == hwc else "chw" if chw else "hwc"


def sample_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Return the shape of one sample, (D,) or (C, H, W)."""
    if layout == "grey":
        return (1, *shape[1:])
    return (shape[3], *shape[1:3]) if layout == "hwc" else shape[1:]


def channels_second(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Return rows of an array as points (n, D) or pictures (n, C, H, W)."""
    if layout == "grey":
        return x[:, None]
    return np.moveaxis(x, 3, 1) if layout == "hwc" else x
