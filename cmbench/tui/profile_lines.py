"""The newest profiles of several runs over one axis: the noise level, or the time if all runs share their times."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmbench import quantities
from cmbench.rundir.columns import Floats
from cmbench.views.axes import Scale
from cmbench.views.lines import Line
from cmbench.views.run import RunView
from cmbench.words.numbers import number

Look = tuple[int, str, str]  # colour, dashes and label of a run


@dataclass(frozen=True)
class Overlay:
    """A chart of one quantity over the noise level or t.

    Attributes:
        title: title in the frame.
        lines: one for each run that has a profile of the quantity.
        x_scale: scale of the horizontal axis.
        ends: ends of the horizontal axis.
        note: the steps of the profiles.
    """

    title: str
    lines: list[Line]
    x_scale: Scale
    ends: tuple[float, float]
    note: str

    @property
    def scale(self) -> Scale:
        """Scale of the vertical axis: log, unless a value is zero or negative."""
        values = np.concatenate([line.mean for line in self.lines])
        return Scale("log" if (values[np.isfinite(values)] > 0).all() else "linear")


def overlays(views: Sequence[RunView], looks: Sequence[Look]) -> list[Overlay]:
    """Return a chart for each quantity that a run has profiles of; none if the runs share no axis."""
    name, x_scale, edges = _axis(views)
    if not edges:
        return []
    ends = (min(map(min, edges)), max(map(max, edges)))
    rows = [dict(view.series.profiles.rows) for view in views]
    known = [key for own in rows for key, kept in own.items() if kept]
    found = []
    for key in quantities.over_time(known):
        lines, steps = [], []
        for own, at, look in zip(rows, edges, looks, strict=True):
            if (kept := own.get(key)) and len(kept[-1][1]) == len(at) - 1:
                lines.append(_line(at, kept[-1][1].astype(np.float64), x_scale, look))
                steps.append(number(kept[-1][0]))
        if lines:
            found.append(
                Overlay(f"{quantities.title(key)} over {name}", lines, x_scale, ends, f"step {' '.join(steps)}")
            )
    return found


def _axis(views: Sequence[RunView]) -> tuple[str, Scale, list[list[float]]]:
    """Return the axis's name, its scale and each run's edges on it; no edges if the runs share no axis."""
    levels = [view.noise_levels for view in views]
    if all(map(_is_axis, levels)):
        return "sigma", Scale("log"), levels
    times = [view.edges for view in views]
    if _is_axis(times[0]) and all(own == times[0] for own in times):
        return "t", Scale("log" if min(times[0]) > 0 else "linear"), times
    return "", Scale(), []


def _is_axis(edges: Sequence[float]) -> bool:
    return len(edges) > 1 and bool(np.isfinite(edges).all()) and min(edges) < max(edges)


def _line(edges: Sequence[float], bins: Floats, x_scale: Scale, look: Look) -> Line:
    """Return a line through the middles of the bins that have a sample; curricula leave some bins empty."""
    places = x_scale.forward(edges)
    middles = x_scale.inverses((places[1:] + places[:-1]) / 2)
    order = np.argsort(middles)
    there = order[np.isfinite(bins[order])]
    colour, dash, label = look
    return replace(Line.of(label, middles[there], bins[there], colour, dash), smooth=False)
