"""Draws docs/images/growth_*.svg from the figures of growth.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from growth_page import NETWORKS, best_from, points, rates, spent
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

Found = Mapping[str, Any]
COLOURS = {"mlp": "#3b8a4f", "unet": "#24507a", "dit": "#d9722e"}
MARKERS = {"mlp": "s", "unet": "o", "dit": "^"}
STYLE = {
    **{"font.size": 8, "axes.titlesize": 8, "legend.frameon": False, "lines.linewidth": 1.2, "lines.markersize": 3.5},
    # text stays text, of a font that is here and of one of the same widths elsewhere; equal figures give equal files
    **{"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana"], "svg.hashsalt": "growth"},
}


def figures(found: Found) -> dict[str, Figure]:
    """Return the charts by the names of their files."""
    with matplotlib.rc_context(STYLE):
        return {"growth_size": _of_size(found), "growth_extras": _of_extras(found)}


def draw(found: Found, folder: Path) -> list[Path]:
    """Write the charts into a folder, and return their paths."""
    paths = []
    for name, figure in figures(found).items():
        paths.append(path := folder / f"{name}.svg")
        with matplotlib.rc_context(STYLE):
            figure.savefig(path, format="svg", metadata={"Date": None})
    return paths


def _of_size(found: Found) -> Figure:
    """Draw what a larger step costs, on logarithmic axes."""
    figure, (left, middle, right) = _panels()
    for network, values, rows in _sweeps(found, "batch"):
        rate, knee = rates(rows), values.index(best_from(rows))
        _line(left, network, values, rate)
        left.plot(values[knee], rate[knee], "o", color=COLOURS[network], fillstyle="none", markersize=9, gid="knee")
    left.plot([], [], "o", color="0.4", fillstyle="none", markersize=9, label="90 % of the best")
    _log(left, [4, 16, 64, 256, 1024, 4096], (1, 2, 5, 10, 20))
    left.set(xlabel="train.batch_size (samples)", ylabel="images a second, smallest batch = 1")
    for axes, what, at in ((middle, "width", [8, 32, 128, 512]), (right, "size", [8, 16, 24, 32, 48])):
        for network, values, rows in _sweeps(found, what):
            _line(axes, network, values, [row["seconds"] for row in rows])
            flop = [row["flop"] for row in rows]
            axes.plot(values, flop, ":", color=COLOURS[network], linewidth=0.9, gid=f"{network}, flop")
        axes.plot([], [], ":", color="0.4", linewidth=0.9, label="operations")
        _log(axes, at, (1, 10, 100))
    middle.set(xlabel="network.width (channels)", ylabel="time of a step, narrowest = 1")
    right.set(xlabel="side of a picture (pixels)", ylabel="time of a step, smallest = 1")
    _titled(figure, ("rate over batch size", "time over width", "time over picture size"))
    return figure


def _of_extras(found: Found) -> Figure:
    """Draw what looking on and averaging takes of a step."""
    figure, (left, middle, right) = _panels()
    for axes, what in ((left, "rows"), (middle, "bins")):
        for network, values, rows in _sweeps(found, what):
            _line(axes, network, values, [100 * spent(row) for row in rows])
        axes.set_xscale("log", base=2)
        _ticks(axes, points(found, what, "unet")[0])
        axes.set_ylabel("diagnostics and recording, % of a step")
    for network, values, rows in _sweeps(found, "averages"):
        _line(right, network, values, [100 * row["shares"]["averages"] for row in rows])
    _ticks(right, [1, 2, 4, 8, 16])
    left.set_xlabel("steps between rows and profiles")
    middle.set_xlabel("profile.bins")
    right.set(xlabel="averages of the weights (ema.lengths)", ylabel="averages, % of a step")
    for axes in (left, middle, right):
        axes.set_ylim(bottom=0)
    _titled(figure, ("rows and profiles", "bins of the profile", "averages"))
    return figure


def _panels() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
    return figure, figure.subplots(1, 3)


def _sweeps(found: Found, what: str) -> list[tuple[str, list[int], list[Found]]]:
    """Return network, values and points of each sweep of a key."""
    return [(network, *points(found, what, network)) for network in NETWORKS if points(found, what, network)[0]]


def _line(axes: Axes, network: str, x: Sequence[int], y: Sequence[float]) -> None:
    style = {"color": COLOURS[network], "marker": MARKERS[network]}
    axes.plot(x, y, **style, label=NETWORKS[network], gid=network)


def _log(axes: Axes, x: Sequence[int], y: Sequence[int]) -> None:
    """Let both axes be logarithmic, with ticks that are read without powers."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    _ticks(axes, x)
    axes.yaxis.set_major_locator(FixedLocator(y))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def _ticks(axes: Axes, x: Sequence[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))


def _titled(figure: Figure, titles: Sequence[str]) -> None:
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(title)
        axes.grid(color="0.9", linewidth=0.6)
        axes.legend()
