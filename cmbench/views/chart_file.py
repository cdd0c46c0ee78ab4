"""A chart as a file: a picture by matplotlib, or its numbers. Reports use the same settings."""

import csv
import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cmbench.errors import UsageError, refusing_write_errors
from cmbench.rundir.files import write_atomically
from cmbench.text import plain
from cmbench.views.axes import Scale
from cmbench.views.lines import DASHES, GREY, Band, Line, line_colours
from cmbench.views.smoothing import positions
from cmbench.words.numbers import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".csv")
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cmbench",  # the same bytes every time
    "text.parse_math": False,  # a dollar sign in a name is just a character
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.2,
    "font.size": 8.0,
}
_SIZE = (6.4, 4.0)  # inches
_FORMULA = ("=", "+", "-", "@")
_STYLES = dict(zip(DASHES, ("solid", "dashed", "dotted"), strict=False))


@dataclass(frozen=True)
class Drawing:
    """The content of a chart.

    Attributes:
        title: title of the chart.
        x_title: title of the horizontal axis.
        lines: the lines, the last on top.
        scale: scale of the vertical axis.
        x_scale: scale of the horizontal axis.
        x_ends: first and last x in sight, as values.
        strength: strength of the average, as `average` takes it; 0 for none.
        bands: bands shaded behind the lines.
    """

    title: str
    x_title: str
    lines: Sequence[Line]
    scale: Scale
    x_scale: Scale
    x_ends: tuple[float, float]
    strength: float = 0.0
    bands: Sequence[Band] = ()


def write(drawing: Drawing, path: Path) -> None:
    """Write a chart to a new file, in the format of its suffix.

    Raises:
        UsageError: the suffix is not in SUFFIXES, the file exists or cannot be written, or matplotlib is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: found '{path.suffix}', allowed: a name that ends in {', '.join(SUFFIXES)}")
    with refusing_write_errors(path):
        is_there = path.exists() or path.is_symlink()
    if is_there:
        raise UsageError(f"{path}: already exists and is not replaced")
    if suffix != ".csv":
        check(str(path))
    content = to_csv(drawing) if suffix == ".csv" else saved(lambda: _figure(drawing), suffix == ".svg")
    with refusing_write_errors(path):
        write_atomically(path.absolute(), content)


def to_csv(drawing: Drawing) -> bytes:
    """Return the drawn values of every line in sight as UTF-8 CSV, each with the number of rows behind it."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("chart", "line", safe(drawing.x_title), "mean", "low", "high", "rows", "all_finite"))
    for line in drawing.lines:
        seen = (line.x >= drawing.x_ends[0]) & (line.x <= drawing.x_ends[1])
        for i in np.flatnonzero(seen):
            parts = (line.x[i], line.mean[i], line.low[i], line.high[i])
            numbers = ["" if np.isnan(part) else float(part) for part in parts]
            writer.writerow(
                [safe(drawing.title), safe(line.label), *numbers, int(line.rows[i]), str(not line.bad[i]).lower()]
            )
    return buffer.getvalue().encode()


def safe(value: Any) -> Any:
    """Return numbers as they are, and text in a form that spreadsheets do not read as a formula."""
    if isinstance(value, int | float):
        return value
    text = plain(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def check(option: str) -> None:
    """Check that charts can be drawn.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"{option}: matplotlib is not installed (pip install 'cmbench[plots]')")


def saved(figure: "Callable[[], Figure]", is_svg: bool) -> bytes:
    """Return a figure, made with SETTINGS, as SVG or PNG. The same figure gives the same bytes."""
    from matplotlib import rc_context

    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    how: dict[str, Any] = {"format": "svg", "metadata": metadata} if is_svg else {"format": "png", "dpi": 120}
    buffer = io.BytesIO()
    with rc_context(SETTINGS):
        figure().savefig(buffer, **how)
    return buffer.getvalue()


def drawable(text: str) -> str:
    """Return text with only characters that every font has."""
    return plain(text).replace("·", " ").encode("ascii", "replace").decode()


def plain_ticks(axis: "Axis") -> None:
    """Label ticks with plain numbers; matplotlib's own labels of log axes are formulas."""
    axis.set_major_formatter(lambda value, _: number(value))
    axis.set_minor_formatter(lambda value, _: "")


def _figure(drawing: Drawing) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(_SIZE, layout="constrained")
    axes = figure.subplots()
    for band in drawing.bands:
        axes.axhspan(band.low, band.high, color="0.5", alpha=0.25, linewidth=0)
    _set_scale(axes, drawing)
    for line in drawing.lines:
        _draw(axes, line, drawing)
    axes.set_xlim(*drawing.x_ends)
    axes.set_title(drawable(drawing.title), loc="left", fontsize=9)
    axes.set_xlabel(drawable(drawing.x_title))
    if len(drawing.lines) > 1:
        axes.legend(frameon=False)
    return figure


def _set_scale(axes: "Axes", drawing: Drawing) -> None:
    kind: Literal["linear", "log", "symlog"] = drawing.scale.kind
    axes.set_yscale(kind, **({"linthresh": drawing.scale.linthresh} if kind == "symlog" else {}))
    axes.set_xscale(drawing.x_scale.kind)
    plain_ticks(axes.yaxis)
    plain_ticks(axes.xaxis)


def _draw(axes: "Axes", line: Line, drawing: Drawing) -> None:
    colours = list(line_colours("light", dark=False).values())
    colour = "0.6" if line.colour == GREY else colours[line.colour % len(colours)]
    strength = drawing.strength if line.smooth else 0.0
    average = positions(line.x, line.mean, line.count, strength, (drawing.x_scale, drawing.scale))
    values = line.mean if average is None else drawing.scale.inverses(average)
    if average is not None or (line.low < line.high).any():
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(line.x) == 1 else None
    axes.plot(
        line.x,
        values,
        color=colour,
        linestyle=_STYLES.get(line.dash, "solid"),
        marker=marker,
        markersize=4,
        label=drawable(line.label),
    )
