"""Pixels as characters: half blocks in colour, or a ramp of plain characters."""

from functools import lru_cache

import numpy as np
from rich.color import Color
from rich.segment import Segment
from rich.style import Style

_RAMP = " .:-=+*#%@"
_LUMINANCE = (0.299, 0.587, 0.114)


def half_blocks(image: np.ndarray, base: Style) -> list[list[Segment]]:
    """Draw a picture (H, W, 3), two rows of pixels per line: the upper colours the ▀, the lower its background."""
    return [_line(upper, lower, base) for upper, lower in _pairs(image.astype(int) @ (1 << 16, 1 << 8, 1))]


def ramp(image: np.ndarray, base: Style, dark: bool = True) -> list[list[Segment]]:
    """Draw a picture by brightness, two rows of pixels per line. If `dark`, the densest character is the brightest."""
    light = image @ _LUMINANCE / 255
    lines = [(upper + (upper if lower is None else lower)) / 2 for upper, lower in _pairs(light)]
    scale = _RAMP if dark else _RAMP[::-1]
    return [[Segment("".join(scale[int(v * (len(scale) - 1) + 0.5)] for v in line), base)] for line in lines]


def _pairs(rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray | None]]:
    return [(rows[y], rows[y + 1] if y + 1 < len(rows) else None) for y in range(0, len(rows), 2)]


def _line(upper: np.ndarray, lower: np.ndarray | None, base: Style) -> list[Segment]:
    under = [None] * len(upper) if lower is None else lower.tolist()
    segments: list[Segment] = []
    for pair in zip(upper.tolist(), under, strict=True):
        style = base + _style(*pair)
        if segments and segments[-1].style == style:
            segments[-1] = Segment(segments[-1].text + "▀", style)
        else:
            segments.append(Segment("▀", style))
    return segments


@lru_cache(maxsize=1 << 14)
def _style(upper: int, lower: int | None) -> Style:
    return Style.from_color(_colour(upper), None if lower is None else _colour(lower))


@lru_cache(maxsize=1 << 14)
def _colour(rgb: int) -> Color:
    return Color.from_rgb(rgb >> 16, rgb >> 8 & 255, rgb & 255)
