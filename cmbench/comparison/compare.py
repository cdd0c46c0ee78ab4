"""Compares several runs: everything in a report about them, computed from their files alone."""

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmbench import recipe as recipes
from cmbench.comparison import departure, groups, interval, machine, readings
from cmbench.comparison.departure import Band, Departure
from cmbench.comparison.expression import metric_named
from cmbench.comparison.groups import Group
from cmbench.comparison.member import Member
from cmbench.comparison.reading import read_all
from cmbench.comparison.readings import AXES, Axis, Best, Reached
from cmbench.measures import better
from cmbench.quantities import SCHEDULES
from cmbench.rundir import floors, snapshots
from cmbench.rundir.columns import Column, Floats, Profile
from cmbench.rundir.layout import RunDir

# Set by the recipe or the machine: differences in these say nothing about what was learned.
NOT_LEARNED = SCHEDULES | {"images_per_s"}
_COUNTS = {"count", "anatomy_count"}  # of samples in each bin of a profile


@dataclass(frozen=True)
class Figures:
    """The figures of one metric in one run; None for missing ones.

    Attributes:
        last: nan or inf if it was not finite.
        best: of metrics of quality.
        area: under the curve over the steps that all runs share, in units of the metric times steps.
        at: the value at the furthest place that all runs share, by axis.
    """

    last: float | None
    best: Best | None
    area: float | None
    at: Mapping[Axis, float | None]


@dataclass(frozen=True)
class Metric:
    """One metric of all runs.

    Attributes:
        figures: one per run; None for runs without the metric.
        start: the first step that all runs with the metric share.
        ends: the furthest place that they share, by axis; None if there is none.
        ends_together: whether their last rows are of the same step.
    """

    figures: Sequence[Figures | None]
    start: float | None
    ends: Mapping[Axis, float | None]
    ends_together: bool

    @property
    def comparable(self) -> list[float | None]:
        """A value of each run after the same number of steps: the last, or that at the last shared step."""
        return [
            None if found is None else found.last if self.ends_together else found.at["step"] for found in self.figures
        ]


@dataclass(frozen=True)
class Goal:
    """When each run first was as good as a level; None for runs that never were."""

    metric: str
    level: float
    reached: Sequence[Reached | None]
    is_floor: bool = False  # the level is the edge of the floor's band: which run passes it first is chance

    @property
    def text(self) -> str:
        """The level and its side, such as `sw_1step <= 0.06`."""
        return f"{self.metric} {'>=' if better(self.metric) == 'higher' else '<='} {self.level:.6g}"


@dataclass(frozen=True)
class Apart:
    """Where a run departs from the first: metric by metric, and the first band of times of the profiles.

    Measures of quality are not judged in this way. They use the same latents each time, so that they differ more from
    seed to seed than from one row to the next, and smoothly. `groups` judges their differences.

    Attributes:
        compared: metrics that both runs have and that are judged, quality left out.
        judged: those of them with enough rows to tell.
        metrics: those of them that depart, and those that are finite in only one run.
        profiles_compared: quantities over time that both runs have and that are judged, quality left out.
        profiles_judged: those of them with equal bins and enough shared rows to tell.
        band: of the profiles.
    """

    compared: frozenset[str]
    judged: frozenset[str]
    metrics: Mapping[str, Departure]
    profiles_compared: frozenset[str]
    profiles_judged: frozenset[str]
    band: Band | None

    @property
    def earliest(self) -> tuple[str, Departure] | None:
        """The metric that departs first, among those that are learned."""
        learned = [(name, found) for name, found in self.metrics.items() if name not in NOT_LEARNED]
        return min(learned, key=lambda item: (item[1].step, -abs(item[1].size)), default=None)


@dataclass(frozen=True)
class Picture:
    """The snapshot of one run in a row."""

    step: int
    path: Path


@dataclass(frozen=True)
class PictureRow:
    """Snapshots of equal latents with the same number of sampler steps: pictures by the places of their runs."""

    sampler_steps: int
    pictures: Mapping[int, Picture]

    @property
    def title(self) -> str:
        """What the row shows."""
        latents = ", from the same latents" if len(self.pictures) > 1 else ""
        return f"snapshots in {self.sampler_steps} step{'s' * (self.sampler_steps > 1)}{latents}"


@dataclass(frozen=True)
class Comparison:
    """A whole comparison. Lists are in the order of `members`."""

    members: Sequence[Member]
    recipe: Mapping[str, Sequence[Any]]
    environment: Mapping[str, Sequence[Any]]
    metrics: Mapping[str, Metric]
    goals: Sequence[Goal]
    apart: Sequence[Apart]  # of each run after the first
    groups: Sequence[Group]
    machine: machine.Loads | None  # None if only other metrics were wanted
    profiles: Mapping[str, Sequence[tuple[int, Floats] | None]]  # the newest step and bins of each run
    pictures: Sequence[PictureRow]


def compare(runs: Sequence[RunDir], wanted: Sequence[str] = ()) -> Comparison:
    """Read runs and compare them.

    Args:
        runs: one or more; parts that cannot be read are missing.
        wanted: names, short forms or patterns of the metrics, profiles and machine curves to compare; all if empty.

    Raises:
        UsageError: a name or pattern matches none of them; the message names the nearest.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # sums of huge values are inf, and shown so
        return _compared(read_all(runs, [letter(i) for i in range(len(runs))]), wanted)


def metrics_of(members: Sequence[Member]) -> list[str]:
    """Return the metrics of all runs together, quality first."""
    return sorted({name for member in members for name in member.columns}, key=_rank)


def _compared(members: Sequence[Member], wanted: Sequence[str]) -> Comparison:
    quantities = {name for member in members for name in member.profiles} - _COUNTS
    loads = machine.names_of(members)
    meant = _meant(wanted, list(dict.fromkeys([*metrics_of(members), *sorted(quantities), *loads])))
    of_machine = [name for name in loads if name in meant]
    wants_machine = not wanted or of_machine or any(text.startswith(machine.PREFIX) for text in wanted)
    names, profiles = [name for name in metrics_of(members) if name in meant], sorted(quantities & meant)
    metrics = {name: _metric(name, [member.columns.get(name) for member in members]) for name in names}
    values = {name: metric.comparable for name, metric in metrics.items()}
    return Comparison(
        members=members,
        recipe=_recipe_differences([member.keys for member in members]),
        environment=recipes.differing([member.environment for member in members]),
        metrics=metrics,
        goals=_usual_goals(members, metrics),
        apart=[_apart(members[0], member, metrics, profiles) for member in members[1:]],
        machine=machine.loads(members, of_machine) if wants_machine else None,
        groups=groups.of([member.keys for member in members], values, interval.of_difference),
        profiles={name: [_newest(member.profiles.get(name)) for member in members] for name in profiles},
        pictures=_picture_rows(members),
    )


def letter(i: int) -> str:
    """Return the letter of the run at a place: a to z, then a1, b1 and so on."""
    return chr(ord("a") + i % 26) + (str(i // 26) if i >= 26 else "")


def goal(members: Sequence[Member], metric: str, level: float, is_floor: bool = False) -> Goal:
    """Return when each run first reached a level of a metric."""
    found = [member.columns.get(metric) for member in members]
    reached = [readings.reached(column, level, better(metric)) if column else None for column in found]
    return Goal(metric, level, reached, is_floor)


def _meant(wanted: Sequence[str], names: Sequence[str]) -> set[str]:
    """Return the wanted names; all if `wanted` is empty."""
    found = set() if wanted else set(names)
    for text in wanted:
        of_none = text.startswith(machine.PREFIX) and not any(name.startswith(machine.PREFIX) for name in names)
        found.update(fnmatch.filter(names, text) or ([] if of_none else [metric_named(text, names)]))
    return found


def _rank(metric: str) -> tuple[bool, bool, str]:
    """Put quality first, and metrics that are not learned last."""
    return metric in NOT_LEARNED, not better(metric), metric


def _recipe_differences(found: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    """Return the keys that differ; the value of a recipe that cannot be read is MISSING."""
    readable = [i for i, keys in enumerate(found) if keys is not None]
    rows = {}
    for key, values in recipes.differing([keys for keys in found if keys is not None]).items():
        known = dict(zip(readable, values, strict=True))
        rows[key] = [known.get(i, recipes.MISSING) for i in range(len(found))]
    return rows


def _metric(name: str, found: Sequence[Column | None]) -> Metric:
    there = [column.finite() for column in found if column and len(column.finite())]
    ends = {axis: _shared_end(there, axis) for axis in AXES}
    start = max((column.step[0] for column in there), default=None)
    figures = [_figures(name, column, start, ends) if column else None for column in found]
    return Metric(figures, start, ends, len({column.step[-1] for column in found if column}) < 2)


def _shared_end(there: Sequence[Column], axis: Axis) -> float | None:
    ends = [getattr(column, axis)[-1] for column in there]
    return float(min(ends)) if ends and np.isfinite(ends).all() else None


def _figures(name: str, column: Column, start: float | None, ends: Mapping[Axis, float | None]) -> Figures:
    end = ends["step"]
    return Figures(
        last=column.last,
        best=readings.best(name, column),
        area=None if start is None or end is None or end <= start else readings.area(column, start, end),
        at={axis: None if x is None else readings.at(column, axis, x) for axis, x in ends.items()},
    )


def _usual_goals(members: Sequence[Member], metrics: Mapping[str, Metric]) -> list[Goal]:
    """Return, for each metric of quality, the best level that all runs with the metric have reached.

    The level is not beyond the edge of a floor: within a floor no figure is better than another.
    """
    goals = []
    for name in filter(better, metrics):
        bests = [figures.best.value for figures in metrics[name].figures if figures and figures.best]
        edges = [floor.edge(better(name)) for member in members if (floor := floors.of_row(member.floors, name))]
        if bests:
            worst = min if better(name) == "higher" else max
            level = worst([*bests, *edges])
            goals.append(goal(members, name, level, level not in bests))
    return goals


def _apart(first: Member, other: Member, metrics: Collection[str], profiles: Collection[str]) -> Apart:
    names = [name for name in first.columns.keys() & other.columns.keys() & set(metrics) if not better(name)]
    both = {name: (first.columns[name], other.columns[name]) for name in sorted(names)}
    judged = frozenset(name for name, pair in both.items() if departure.can_be_told(*pair))
    found = {name: apart for name, pair in both.items() if (apart := departure.of_columns(*pair))}
    of_time = first.profiles.keys() & other.profiles.keys() & set(profiles)
    over_all_time = frozenset(name for name in of_time if not better(name))
    shared = sorted(over_all_time) if first.edges == other.edges else []
    pairs = {name: (first.profiles[name], other.profiles[name]) for name in shared}
    over_time = frozenset(name for name, pair in pairs.items() if departure.can_be_told_over_time(first.edges, *pair))
    bands = [b for name in sorted(over_time) if (b := departure.of_profiles(name, first.edges, *pairs[name]))]
    band = min(bands, key=lambda band: (band.step, -abs(band.size)), default=None)
    return Apart(frozenset(both), judged, found, over_all_time, over_time, band)


def _newest(rows: Profile | None) -> tuple[int, Floats] | None:
    return (int(rows.step[-1]), rows.bins[-1]) if rows and len(rows.step) else None


def _picture_rows(members: Sequence[Member]) -> list[PictureRow]:
    """Return rows of snapshots, each near the step that the shortest of its runs has reached."""
    rows: dict[tuple[Any, int], dict[int, dict[int, Path]]] = {}
    for i, member in enumerate(members):
        for step, files in snapshots.files_of(member.run.snapshots).items():
            for sampler_steps, file in files.items():
                rows.setdefault((member.latents, sampler_steps), {}).setdefault(i, {})[step] = file.picture
    ordered = sorted(rows.items(), key=lambda row: (row[0][1], min(row[1])))
    return [PictureRow(sampler_steps, _pictures(found)) for (_, sampler_steps), found in ordered]


def _pictures(found: Mapping[int, Mapping[int, Path]]) -> dict[int, Picture]:
    end = min(max(pictures) for pictures in found.values())
    steps = {i: max((step for step in pictures if step <= end), default=min(pictures)) for i, pictures in found.items()}
    return {i: Picture(step, found[i][step]) for i, step in steps.items()}
