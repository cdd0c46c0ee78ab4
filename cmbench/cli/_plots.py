"""Charts as text, by plotext. Values that are not finite are left out, because plotext may fail on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from cmbench.cli import _screen

_COLOURS = ("cyan", "orange", "green", "magenta", "red")
_Y_TICKS = 4
_TICK_WIDTH = 8  # characters of the numbers on the left, so that charts are aligned


@dataclass(frozen=True)
class Series:
    """Points of one curve; None and values that are not finite leave a gap.

    Attributes:
        x, y: of equal length.
        marker: one character, or "braille" for a fine line.
        joined: whether neighbours are joined by a line.
    """

    x: Sequence[float]
    y: Sequence[float | None]
    marker: str
    joined: bool


def width(at_most: int = 100) -> int:
    """Return the columns that a chart may take."""
    return min(at_most, _screen.console().width)


def chart(
    series: Sequence[Series], x_ticks: dict[float, str], height: int = 12, at_most: int = 100, log_y: bool = False
) -> Text:
    """Return a chart as lines of text; the curves are in colour.

    Args:
        series: at most five curves; later ones are drawn on top.
        x_ticks: labels by position on the horizontal axis, which ends at the outermost points or ticks.
        height: total lines.
        at_most: columns.
        log_y: whether y is log10 of the values that the ticks show.
    """
    import plotext

    drawn = [_finite(curve) for curve in series]
    values = [y for curve in drawn for y in curve.y if y is not None]
    if not values:
        return Text("  (nothing to draw)")
    low, high = _limits(min(values), max(values))
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width(at_most), height)
    for curve, colour in zip(drawn, _COLOURS, strict=False):
        if curve.x:
            draw = plotext.plot if curve.joined else plotext.scatter
            draw(list(curve.x), list(curve.y), marker=curve.marker, color=colour)
    plotext.ylim(low, high)
    places = [low + i * (high - low) / _Y_TICKS for i in range(_Y_TICKS + 1)]
    shown = [f"{10**place:.2g}" if log_y else f"{place:.4g}" for place in places]
    plotext.yticks(places, [text.rjust(_TICK_WIDTH) for text in shown])
    xs = [*x_ticks, *(x for curve in drawn for x in curve.x)]
    plotext.xlim(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1)  # one point alone
    plotext.xticks(list(x_ticks), list(x_ticks.values()))
    return Text.from_ansi(plotext.build().rstrip("\n"))


def log_ticks(low: float, high: float) -> dict[float, str]:
    """Return ticks for a horizontal axis that shows log10 of values from low to high: both ends and each decade."""
    decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = {math.log10(value): f"{value:g}" for value in (low, high)}
    room = 0.3  # of a decade, between a label and the ends'
    ends = list(ticks)
    return ticks | {float(d): f"{10.0**d:g}" for d in decades if all(abs(d - end) > room for end in ends)}


def _finite(curve: Series) -> Series:
    """Return the finite points of a curve, at most four per column: if there are more, means of neighbours."""
    pairs = [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if y is not None and math.isfinite(x + y)]
    many = math.ceil(len(pairs) / (4 * width())) or 1
    groups = [pairs[i : i + many] for i in range(0, len(pairs), many)]
    means = [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
    return Series([x for x, _ in means], [y for _, y in means], curve.marker, curve.joined)


def _limits(low: float, high: float) -> tuple[float, float]:
    """Return limits around values, from zero if zero is near, and never equal."""
    if 0 <= low < 0.5 * high:
        low = 0.0
    margin = 0.0 if high > low else abs(high) * 0.5 or 1.0
    return low - margin, high + margin
