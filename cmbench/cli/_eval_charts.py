"""The figures of `cmbench eval` as charts: over the steps of the sampler, and over the lengths of averages."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cmbench import recipe as recipes
from cmbench.cli import _outputs, _plots, _screen
from cmbench.cli._figures import Subject
from cmbench.errors import UsageError
from cmbench.rundir import checkpoints
from cmbench.rundir.evaluations import Answer
from cmbench.views import chart_file
from cmbench.words.numbers import four_digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "x", "+", "*", "#")
_WIDE = 10.0  # values that differ by more than this factor stand on a logarithmic axis
_LENGTHS = {"constant": "steps of averaging", "half_life": "half-life in images", "power": "EMA length, sigma_rel"}

_TOO_FEW = "--chart, --png: found one figure of each measure, allowed: several --steps or averages"

Answers = Sequence[Sequence[Answer]]


@dataclass
class Curve:
    """One line of a chart: positions, their names, values and spreads."""

    label: str
    x: list[float] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    spread: list[float] = field(default_factory=list)

    def add(self, x: float, name: str, figure: Answer) -> None:
        """Add a figure, unless it has no value."""
        if figure["value"] is not None:
            self.x.append(x)
            self.names.append(name)
            self.y.append(figure["value"])
            self.spread.append(figure["spread"] or 0.0)


@dataclass
class Chart:
    """One measure over something that is shown logarithmically; `floor` is its value and spread."""

    title: str
    x_title: str
    curves: list[Curve]
    floor: tuple[float, float] | None = None

    @property
    def seen_floor(self) -> tuple[float, float] | None:
        """The floor, if it is so near that the values remain apart beside it."""
        values = [y for curve in self.curves for y in curve.y]
        if self.floor is None or min(abs(y - self.floor[0]) for y in values) > max(values) - min(values):
            return None
        return self.floor

    @property
    def log_y(self) -> bool:
        """Whether the vertical axis is logarithmic."""
        values = [*(y for curve in self.curves for y in curve.y), *(self.seen_floor or ())[:1]]
        return min(values) > 0 and max(values) > _WIDE * min(values)


def check(subjects: Sequence[Subject], path: Path | None) -> None:
    """Refuse charts that could not be drawn, or written to a picture, before figures take hours to compute.

    Raises:
        UsageError: they could not, or matplotlib is missing.
    """
    if path is not None:
        chart_file.check("--png")
        _outputs.check(path, "--png")
    several_lengths = len({(subject.run, subject.step) for subject in subjects}) < len(subjects)
    if not several_lengths and all(len(subject.steps) < 2 for subject in subjects):
        raise UsageError(_TOO_FEW)


def found(subjects: Sequence[Subject], answers: Answers) -> list[Chart]:
    """Return the charts of figures that are known for several numbers of steps, or for several averages.

    Raises:
        UsageError: there is none.
    """
    charts = [*_over_steps(subjects, answers), *_over_lengths(subjects, answers)]
    if not charts:
        raise UsageError(_TOO_FEW)
    return charts


def show(charts: Sequence[Chart]) -> None:
    """Print the charts."""
    for chart in charts:
        _screen.line("")
        _screen.show(_drawn(chart))


def png(charts: Sequence[Chart]) -> bytes:
    """Return the charts as one picture, one below the other; spreads are bars, floors are bands."""
    return chart_file.saved(lambda: _figure(charts), is_svg=False)


def _over_steps(subjects: Sequence[Subject], answers: Answers) -> Iterator[Chart]:
    pairs = list(zip(subjects, answers, strict=True))
    names = dict.fromkeys(f["metric"] for figures in answers for f in figures if f["steps"] is not None)
    for name in names:
        curves, about = list[Curve](), Answer()
        for subject, figures in pairs:
            curve, own = Curve(_label(subject)), [f for f in figures if f["metric"] == name]
            for figure in sorted(own, key=lambda f: f["steps"]):
                curve.add(figure["steps"], str(figure["steps"]), figure)
                about = about or figure
            curves.append(curve)
        yield from _whole(Chart(_title(about), "sampler steps", curves, _floor(about)))


def _over_lengths(subjects: Sequence[Subject], answers: Answers) -> Iterator[Chart]:
    pairs = [(s, f) for s, f in zip(subjects, answers, strict=True) if checkpoints.number(s.ema) is not None]
    profiles = {subject.run: recipes.load(subject.run.recipe).ema.profile for subject, _ in pairs}
    for profile in dict.fromkeys(profiles.values()):
        own = [(s, f) for s, f in pairs if profiles[s.run] == profile]
        places = dict.fromkeys((s.run, s.step) for s, _ in own)
        for name, steps in dict.fromkeys((f["metric"], f["steps"]) for _, figures in own for f in figures):
            curves = {place: Curve(f"{place[0].name}, checkpoint {place[1]}") for place in places}
            about: Answer = {}
            for subject, figures in sorted(own, key=lambda pair: _position(pair[0].ema, profile)):
                for figure in (f for f in figures if (f["metric"], f["steps"]) == (name, steps)):
                    curves[subject.run, subject.step].add(_position(subject.ema, profile), subject.ema, figure)
                    about = about or figure
            yield from _whole(Chart(_title(about, steps), _LENGTHS[profile], list(curves.values()), _floor(about)))


def _position(length: str, profile: str) -> float:
    """Return where a length stands: that of a constant decay in steps, 1 / (1 - decay)."""
    return 1 / (1 - float(length)) if profile == "constant" else float(length)


def _whole(chart: Chart) -> Iterator[Chart]:
    """Yield a chart without its empty curves, if a curve has two points."""
    chart.curves = [curve for curve in chart.curves if curve.x]
    if any(len(curve.x) > 1 for curve in chart.curves):
        yield chart


def _label(subject: Subject) -> str:
    return f"{subject.run.name}, checkpoint {subject.step}, ema {subject.ema}"


def _title(figure: Answer, steps: int | None = None) -> str:
    of_steps = "" if steps is None else f", {steps}-step"
    return f"{figure.get('metric')}{of_steps} ({figure.get('better') or 'neither'} is better)"


def _floor(figure: Answer) -> tuple[float, float] | None:
    return None if figure.get("floor") is None else (figure["floor"], figure.get("floor_spread") or 0.0)


def _drawn(chart: Chart) -> Text:
    """Return a chart as text; a fifth curve and later ones are left out."""
    log_y = chart.log_y
    scaled: Callable[[float], float] = math.log10 if log_y else float
    curves, head = [], []
    for curve, marker in zip(chart.curves[: len(_MARKERS) - 1], _MARKERS, strict=False):
        curves.append(_plots.Series([math.log10(x) for x in curve.x], [scaled(y) for y in curve.y], marker, False))
        head.append(f"{marker} {curve.label}")
    ticks = {math.log10(x): name for curve in chart.curves for x, name in zip(curve.x, curve.names, strict=True)}
    if chart.seen_floor is not None:
        curves.append(_plots.Series([min(ticks), max(ticks)], [scaled(chart.seen_floor[0])] * 2, "-", True))
    if chart.floor is not None:
        where = "" if chart.seen_floor else ", out of sight"
        head.append(f"- floor: {four_digits(chart.floor[0])}{where}")
    text = Text(f"{chart.title} over {chart.x_title}\n") + Text("\n".join(head), overflow="fold") + Text("\n")
    return text + _plots.chart(curves, _apart(ticks), 14, log_y=log_y)


def _apart(ticks: dict[float, str]) -> dict[float, str]:
    """Return the ticks that have room for their labels."""
    room, kept = (max(ticks) - min(ticks)) / 14, dict[float, str]()
    for place in sorted(ticks):
        if not kept or place - max(kept) >= room:
            kept[place] = ticks[place]
    return kept


def _figure(charts: Sequence[Chart]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure((6.4, 3.2 * len(charts)), layout="constrained")
    for axes, chart in zip(figure.subplots(len(charts), squeeze=False)[:, 0], charts, strict=True):
        _draw(axes, chart)
    return figure


def _draw(axes: "Axes", chart: Chart) -> None:
    if chart.seen_floor is not None:
        low, high = chart.seen_floor[0] - chart.seen_floor[1], chart.seen_floor[0] + chart.seen_floor[1]
        axes.axhspan(low, high, color="0.5", alpha=0.25, linewidth=0, label="floor")
    for curve in chart.curves:
        label = chart_file.drawable(curve.label)
        axes.errorbar(curve.x, curve.y, yerr=curve.spread, marker="o", markersize=4, capsize=2, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log" if chart.log_y else "linear")
    ticks: dict[Any, str] = {x: name for curve in chart.curves for x, name in zip(curve.x, curve.names, strict=True)}
    axes.set_xticks(list(ticks), [chart_file.drawable(name) for name in ticks.values()], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_title(chart_file.drawable(chart.title), loc="left", fontsize=9)
    axes.set_xlabel(chart.x_title)
    axes.legend(frameon=False)
