"""A comparison as CSV: one value per line, with its name and run. No text is a formula to a spreadsheet."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from cmbench.comparison.compare import Comparison
from cmbench.comparison.readings import AXES
from cmbench.recipe import MISSING
from cmbench.rundir import floors
from cmbench.views.chart_file import safe

HEADERS = ("section", "name", "figure", "letter", "run", "value")

_Line = tuple[str, str, str, int, Any]  # section, name, figure, place of the run, value


def encoded(found: Comparison) -> str:
    """Return a comparison as CSV with headers; missing values have no line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADERS)
    for section, name, figure, i, value in (*_tables(found), *_metrics(found), *_rest(found)):
        if value is not None and value is not MISSING:
            member = found.members[i]
            writer.writerow(safe(part) for part in (section, name, figure, member.letter, member.run.name, value))
    return buffer.getvalue()


def _tables(found: Comparison) -> Iterator[_Line]:
    for i, member in enumerate(found.members):
        yield "run", "state", "", i, member.status["state"]
        yield "run", "step", "", i, member.status["step"]
        yield "run", "seed", "", i, member.seed
        yield "run", "note", "", i, member.written.note or None
        yield "run", "tags", "", i, " ".join(member.written.tags) or None
    for section, table in (("recipe", found.recipe), ("environment", found.environment)):
        for key, values in table.items():
            yield from ((section, key, "", i, value) for i, value in enumerate(values))


def _metrics(found: Comparison) -> Iterator[_Line]:
    for name, metric in found.metrics.items():
        for i, figures in enumerate(metric.figures):
            if not figures:
                continue
            yield "metric", name, "last", i, figures.last
            if figures.best:
                yield "metric", name, "best", i, figures.best.value
                yield "metric", name, "step of best", i, figures.best.step
            yield "metric", name, "area", i, figures.area
            if floor := floors.of_row(found.members[i].floors, name):
                yield "metric", name, "floor", i, floor.value
                yield "metric", name, "floor's deviation", i, floor.spread
            yield from (("metric", name, f"at {axis} {metric.ends[axis]}", i, figures.at[axis]) for axis in AXES)


def _rest(found: Comparison) -> Iterator[_Line]:
    for goal in found.goals:
        for i, reached in enumerate(goal.reached):
            for axis in AXES if reached else ():
                yield "until", goal.text, axis, i, getattr(reached, axis)
    for i, apart in enumerate(found.apart, start=1):
        yield from (("apart", name, "judged", i, int(name in apart.judged)) for name in found.metrics)
        for name, departure in apart.metrics.items():
            yield "apart", name, "step", i, departure.step
            yield "apart", name, "sigma", i, departure.size
        if apart.band:
            for figure in ("step", "low", "high", "size"):
                yield "apart over time", apart.band.quantity, figure, i, getattr(apart.band, figure)
    for group in found.groups:
        of = " ".join(found.members[i].letter for i in group.places)
        yield "group", "runs", "", group.places[0], of
        for name, spread in group.spreads.items():
            yield "seeds", name, "n", group.places[0], spread.n
            yield "seeds", name, "mean", group.places[0], spread.mean
            yield "seeds", name, "deviation", group.places[0], spread.deviation
        for name, difference in group.differences.items():
            for figure in ("mean", "low", "high", "welch_low", "welch_high"):
                yield "seeds", name, f"difference {figure}", group.places[0], getattr(difference, figure)
    for name, loads in (found.machine or {}).items():
        for i, load in enumerate(loads):
            for figure in ("mean", "lowest", "highest") if load else ():
                yield "machine", name, figure, i, getattr(load, figure)
    for name, profiles in found.profiles.items():
        for i, profile in enumerate(profiles):
            for k, value in enumerate(profile[1].tolist() if profile else ()):
                yield "profile", name, f"bin {k}", i, value
    for row in found.pictures:
        for i, picture in row.pictures.items():
            yield "snapshot", f"{row.sampler_steps} steps", f"step {picture.step}", i, str(picture.path)
