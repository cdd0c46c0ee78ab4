"""The charts of a comparison, by matplotlib: curves, and the newest profiles overlaid, as SVG or PNG."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cmbench.comparison.compare import Comparison
from cmbench.comparison.member import Member
from cmbench.measures import Floor
from cmbench.quantities import SCHEDULES
from cmbench.rundir import floors
from cmbench.rundir.columns import Column, Floats
from cmbench.views.axes import Scale, usual
from cmbench.views.chart_file import drawable, plain_ticks, saved
from cmbench.views.lines import line_colours
from cmbench.views.smoothing import USUAL, positions
from cmbench.words.numbers import number
from cmbench.words.signs import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 300  # of a curve's average; the span of its rows is shaded
_SHADED = 8  # runs; with more, the shading would cover all curves
_WIDE = 30.0  # a log axis shows values better whose largest is more than so many times the smallest
_ACROSS, _WIDTH, _HEIGHT = 3, 4.4, 2.6  # charts beside each other, inches of each
_LEGEND = 0.18  # inches of a line
_STYLES = ("solid", "dashed", "dotted", "dashdot")


def svg(found: Comparison) -> str:
    """Return the charts as an SVG element without external references."""
    text = saved(lambda: _figure(found), is_svg=True).decode()
    return text[text.index("<svg") :]


def png(found: Comparison) -> bytes:
    """Return the charts as a PNG."""
    return saved(lambda: _figure(found), is_svg=False)


def _figure(found: Comparison) -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    curves = [name for name, metric in found.metrics.items() if metric.start is not None]
    profiles = [name for name, shown in found.profiles.items() if any(shown)]
    machine = list(found.machine or ())
    n = len(curves) + len(profiles)
    rows = max(1, -(-(n + len(machine)) // _ACROSS))
    legend = _LEGEND * (1 + -(-len(found.members) // _ACROSS))
    height = rows * _HEIGHT + legend
    below = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - legend / height))
    figure = Figure((_ACROSS * _WIDTH, height), layout=below)
    grid = figure.subplots(rows, _ACROSS, squeeze=False).ravel()
    for axes, name in zip(grid, curves, strict=False):
        _draw_curves(axes, name, [member.columns.get(name) for member in found.members])
        _draw_floors(axes, {floor for m in found.members if (floor := floors.of_row(m.floors, name))})
    for axes, name in zip(grid[len(curves) :], profiles, strict=False):
        _draw_profiles(axes, name, found)
    for axes, name in zip(grid[n:], machine, strict=False):
        _draw_curves(axes, name, [member.machine.get(name) for member in found.members])
    for axes in grid[n + len(machine) :]:
        axes.set_axis_off()
    figure.legend(handles=_legend(found), loc="upper left", ncols=_ACROSS, frameon=False)
    return figure


def _look(i: int) -> dict[str, Any]:
    """Return a run's colour and dashes, as on the compare screen."""
    colours = list(line_colours("light", dark=False).values())
    return {"color": colours[i % len(colours)], "linestyle": _STYLES[i // len(colours) % len(_STYLES)]}


def _legend(found: Comparison) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], label=f"{member.letter}  {drawable(short(member.run.name))}", **_look(i))
        for i, member in enumerate(found.members)
    ]


def _draw_curves(axes: "Axes", name: str, columns: Sequence[Column | None]) -> None:
    shown = {i: column.finite() for i, column in enumerate(columns) if column}
    values = np.concatenate([column.value for column in shown.values()])
    averages = {i: _average(name, column, usual(values) == "log") for i, column in shown.items()}
    smooth = f"  gauss {100 * USUAL:g}%" if any(average is not None for average in averages.values()) else ""
    _name(axes, f"{name}{smooth}", "step", values)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    for i, column in shown.items():
        if len(column):
            _draw_curve(axes, column, averages[i], _look(i), shaded=len(columns) <= _SHADED)


def _draw_floors(axes: "Axes", known: Iterable[Floor]) -> None:
    """Shade where figures cannot be distinguished from a perfect sampler's: its mean and deviation."""
    for floor in known:
        spread = floor.spread or 0.0
        axes.axhspan(floor.value - spread, floor.value + spread, color="0.5", alpha=0.25, linewidth=0, label="floor")
        axes.axhline(floor.value, color="0.5", linewidth=0.8)


def _draw_curve(axes: "Axes", column: Column, average: Floats | None, look: dict[str, Any], shaded: bool) -> None:
    starts = np.arange(n := min(_POINTS, len(column))) * len(column) // n
    drawn = np.append(starts, len(column) - 1)  # rows, or the average at rows: no point lies between rows
    values = column.value if average is None else average
    axes.plot(column.step[drawn], values[drawn], marker="o" if n == 1 else None, markersize=4, **look)
    if shaded and (average is not None or n < len(column)):
        low, high = (ends.reduceat(column.value, starts) for ends in (np.minimum, np.maximum))
        ends = column.step[np.append(starts[1:], len(column)) - 1]
        axes.fill_between(ends, low, high, color=look["color"], alpha=0.12, linewidth=0)


def _average(name: str, column: Column, is_log: bool) -> Floats | None:
    """Return the average that the dashboard draws; None for a schedule or for few rows."""
    scale = Scale("log" if is_log else "linear")
    share = 0.0 if name in SCHEDULES else USUAL
    average = positions(column.step, column.value, np.ones(len(column)), share, (Scale(), scale))
    return None if average is None else scale.inverses(average)


def _draw_profiles(axes: "Axes", name: str, found: Comparison) -> None:
    profiles, (x, edges) = found.profiles[name], _edges(found.members)
    _name(axes, f"{name} over time, newest", x, np.concatenate([shown[1] for shown in profiles if shown]))
    ends = [end for own in edges if own for end in (own[0], own[-1])]
    if ends and min(ends) > 0 and max(ends) > _WIDE * min(ends):
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    for i, (own, shown) in enumerate(zip(edges, profiles, strict=True)):
        if shown and len(own) == len(shown[1]) + 1:
            axes.stairs(shown[1], own, baseline=None, **_look(i))


def _edges(members: Sequence[Member]) -> tuple[str, list[list[float]]]:
    """Return the axis and the bin edges of each run: over time, or over noise levels if the times differ."""
    with_bins = [member for member in members if member.edges]
    if len({tuple(member.edges) for member in with_bins}) < 2:
        return "t", [member.edges for member in members]
    if all(member.levels for member in with_bins):
        return "noise level", [member.levels for member in members]
    return "t, different for each run", [member.edges for member in members]


def _name(axes: "Axes", title: str, x: str, values: Floats) -> None:
    """Set the title and the axes for values."""
    axes.set_title(drawable(title), loc="left", fontsize=9)
    axes.set_xlabel(x)
    if usual(values) == "log":
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
