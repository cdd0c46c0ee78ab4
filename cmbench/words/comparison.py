"""A comparison as tables of text, for screen, terminal and page. Control characters in names and notes are shown."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from cmbench.comparison.compare import Apart, Comparison, Figures, Goal, Metric
from cmbench.comparison.departure import Departure
from cmbench.comparison.machine import Loads
from cmbench.comparison.member import Member
from cmbench.comparison.readings import AXES, Axis
from cmbench.measures import better
from cmbench.recipe import MISSING
from cmbench.rundir import floors
from cmbench.rundir.columns import Floats
from cmbench.rundir.floors import Floors
from cmbench.text import plain
from cmbench.words.numbers import NONE, four_digits
from cmbench.words.signs import spark
from cmbench.words.tables import Section
from cmbench.words.times import EXACT, duration

NO_MACHINE = "no machine history in this run"
_WIDTH = 32  # characters of a profile
_COLUMNS = 6  # runs that have a column each; of more, equal values are grouped


def report(found: Comparison, ascii_only: bool = False) -> list[Section]:
    """Return all tables of a comparison, profiles as lines of blocks or of ASCII."""
    return [*overview(found), *figures(found), *_profiles(found, ascii_only), *_pictures(found)]


def overview(found: Comparison) -> Iterator[Section]:
    """Yield the tables that list the runs and show how they differ."""
    letters = [member.letter for member in found.members]
    yield _runs(found)
    if len(letters) > 1:
        yield _differing("recipe keys that differ", letters, found.recipe, _of_equal_recipes(found))
        yield _differing("environment that differs", letters, found.environment, "the environments are equal")
        yield _apart(found)
    if found.groups:
        yield _groups(found)


def figures(found: Comparison) -> Iterator[Section]:
    """Yield a table for each metric, and one for each goal."""
    letters = [member.letter for member in found.members]
    for name, metric in found.metrics.items():
        yield _metric(found.members, name, metric)
    for goal in found.goals:
        yield _goal(letters, goal)
    if found.machine is not None:
        yield _machine(found.members, found.machine)


def place(axis: Axis, value: float | None) -> str:
    """Return a place on an axis in words, e.g. `step 500`, `64000 images`, `1m20s` of training time."""
    if value is None:
        return f"equal {axis}"
    words = {"step": f"step {value:.0f}", "images": f"{value:.0f} images", "seconds": duration(value, EXACT)}
    return words.get(axis, f"{four_digits(value)} forwards")


def value_text(value: Any) -> str:
    """Return a value of a recipe or of the environment as text."""
    return NONE if value is MISSING else plain(f"{value:g}" if isinstance(value, float) else value)


def _runs(found: Comparison) -> Section:
    rows = [
        [
            member.letter,
            plain(member.run.name),
            plain(member.status["state"]),
            f"{member.status['step']}",
            NONE if member.seed is None else str(member.seed),
            plain(" ".join([*(f"#{tag}" for tag in member.written.tags), member.written.note])),
        ]
        for member in found.members
    ]
    return Section("runs", ["", "run", "state", "step", "seed", "tags and note"], rows)


def _of_equal_recipes(found: Comparison) -> str:
    unread = [member.letter for member in found.members if member.keys is None]
    return f"not known: no recipe of {', '.join(unread)} can be read" if unread else "the recipes are equal"


def _differing(title: str, letters: Sequence[str], table: Any, otherwise: str) -> Section:
    texts = {plain(key): [value_text(value) for value in values] for key, values in table.items()}
    if len(letters) <= _COLUMNS:
        return Section(title, ["key", *letters], [[key, *values] for key, values in texts.items()], otherwise)
    rows = []
    texts.pop("seed", None)  # for many runs, only the table of runs shows it
    for key, values in texts.items():
        for value in dict.fromkeys(values):
            same = [letter for letter, other in zip(letters, values, strict=True) if other == value]
            rows.append([key, value, " ".join(same)])
    return Section(title, ["key", "value", "runs"], rows, otherwise)


def _apart(found: Comparison) -> Section:
    rows = [
        [
            member.letter,
            *_first_difference(apart, found.members[0], member, found.metrics),
            ", ".join(f"{plain(n)} {d.step}" for n, d in _in_order(apart)),
        ]
        for member, apart in zip(found.members[1:], found.apart, strict=True)
    ]
    headers = ["run", "metric", "steps", "sigma", "times, from the profiles", "every metric, from step"]
    return Section(f"apart from {found.members[0].letter} beyond the noise of their rows", headers, rows)


def _first_difference(apart: Apart, first: Member, other: Member, wanted: Iterable[str]) -> list[str]:
    band = _band(apart, first, other)
    if not apart.earliest:
        return [_why_none(apart, wanted), NONE, NONE, band]
    name, found = apart.earliest
    return [plain(name), f"{found.step} to {found.until}", f"{found.size:+.3g}", band]


def _why_none(apart: Apart, wanted: Iterable[str]) -> str:
    """Return why no metric differs: none does, or none can be judged."""
    if apart.compared:
        return "none" if apart.judged else "too few rows"
    return "quality is not judged here" if any(map(better, wanted)) else "no metric to judge"


def _band(apart: Apart, first: Member, other: Member) -> str:
    if not apart.profiles_compared:
        return NONE
    if not apart.profiles_judged:
        return "too few rows" if first.edges == other.edges else "different time bins"
    if (band := apart.band) is None:
        return "none"
    return f"{plain(band.quantity)}, t {four_digits(band.low)} to {four_digits(band.high)}, step {band.step}"


def _in_order(apart: Apart) -> list[tuple[str, Departure]]:
    return sorted(apart.metrics.items(), key=lambda item: item[1].step)


def _metric(members: Sequence[Member], name: str, metric: Metric) -> Section:
    start, end = metric.start, metric.ends["step"]
    area = "area" if start is None or end is None or end <= start else f"area {start:.0f} to {end:.0f}"
    headers = ["run", "last", "best", "best at", area, *(f"at {place(axis, metric.ends[axis])}" for axis in AXES)]
    rows = [
        [member.letter, *_figures(figures, member.floors, name)]
        for member, figures in zip(members, metric.figures, strict=True)
        if figures
    ]
    is_marked = any(floors.MARK in text for row in rows for text in row)
    title = f"{plain(name)}  ({floors.legend()})" if is_marked else plain(name)
    return Section(title, headers, rows + _floors(members, name, len(headers)), spare=1)


def _floors(members: Sequence[Member], name: str, columns: int) -> list[list[str]]:
    """Return a row with the floor of all runs, or one for each floor if they differ."""
    texts: dict[str, list[str]] = {}
    for member in members:
        if floor := floors.of_row(member.floors, name):
            texts.setdefault(floors.in_words(floor, four_digits), []).append(member.letter)
    of = ["floor" if len(texts) == 1 else f"floor of {' '.join(letters)}" for letters in texts.values()]
    return [[label, text, *[""] * (columns - 2)] for label, text in zip(of, texts, strict=True)]


def _figures(figures: Figures, known: Floors, name: str) -> list[str]:
    def marked(value: float | None) -> str:
        return floors.marked(four_digits(value), floors.is_within(known, name, value))

    best = [marked(figures.best.value), str(figures.best.step)] if figures.best else [NONE, NONE]
    return [marked(figures.last), *best, four_digits(figures.area), *(marked(figures.at[axis]) for axis in AXES)]


def _goal(letters: Sequence[str], goal: Goal) -> Section:
    rows = [
        [
            *(letter, str(found.step), NONE if found.images is None else str(found.images)),
            *(duration(found.seconds, EXACT), four_digits(found.forwards)),
        ]
        if found
        else [letter, NONE, NONE, NONE, NONE]
        for letter, found in zip(letters, goal.reached, strict=True)
    ]
    floor = ", the edge of its floor" * goal.is_floor
    return Section(f"until {plain(goal.text)}{floor}", ["run", "step", "images", "training time", "forwards"], rows)


def _groups(found: Comparison) -> Section:
    letters, groups = [member.letter for member in found.members], found.groups
    names = [" ".join(letters[i] for i in group.places) for group in groups]
    headers = ["last value", names[0]]
    for name in names[1:]:
        headers += [name, "difference", "95% by bootstrap", "95% by Welch"]
    rows = [[_after_as_many_steps(name, metric), *_over_seeds(found, name)] for name, metric in found.metrics.items()]
    rows = [row for row in rows if set(row[1:]) != {NONE}]
    note = f"  ({floors.legend()})" if any(floors.MARK in text for row in rows for text in row) else ""
    return Section(f"over seeds: mean and standard deviation{note}", headers, rows)


def _machine(members: Sequence[Member], loads: Loads) -> Section:
    """Return a row for each machine curve and run; runs of earlier versions get a row that says there are none."""
    all_loads = [(name, *pair) for name, each in loads.items() for pair in zip(members, each, strict=True)]
    rows = [[plain(n), m.letter, *map(four_digits, (x.mean, x.lowest, x.highest))] for n, m, x in all_loads if x]
    rows += [[NO_MACHINE, m.letter, NONE, NONE, NONE] for m in members if rows and not m.machine]
    return Section("machine, while they trained", ["", "run", "mean", "lowest", "highest"], rows, NO_MACHINE)


def _after_as_many_steps(name: str, metric: Metric) -> str:
    end = metric.ends["step"]
    return plain(name) if metric.ends_together or end is None else f"{plain(name)} at step {end:.0f}"


def _over_seeds(found: Comparison, metric: str) -> Iterator[str]:
    """Yield the cells of each group; after the first also its difference, unless both are within the floor."""
    first = False
    for i, group in enumerate(found.groups):
        spread, difference = group.spreads.get(metric), group.differences.get(metric)
        known = found.members[group.places[0]].floors
        within = spread is not None and floors.is_within(known, metric, spread.mean)
        first = within if i == 0 else first
        yield floors.marked(four_digits(spread.mean, spread.deviation), within) if spread else NONE
        if i:
            if difference and not (first and within):
                yield f"{difference.mean:+.3g}"
                yield _interval(difference.low, difference.high)
                yield _interval(difference.welch_low, difference.welch_high)
            else:
                yield from ("within the floor" if difference else NONE, NONE, NONE)


def _interval(low: float, high: float) -> str:
    return f"[{low:+.3g}, {high:+.3g}]"


def _profiles(found: Comparison, ascii_only: bool) -> list[Section]:
    """Return a table for each quantity: the newest profile of each run as a line of blocks, early times on the left."""
    return [
        Section(
            f"profile of {plain(name)} over time",
            ["run", "step", "lowest", "", "highest", "t", "noise level"],
            [
                [member.letter, str(profile[0]), *_course(profile[1], ascii_only), *_range_of_times(member)]
                for member, profile in zip(found.members, profiles, strict=True)
                if profile and np.isfinite(profile[1]).any()
            ],
            "no values",
        )
        for name, profiles in found.profiles.items()
    ]


def _range_of_times(member: Member) -> list[str]:
    ends = [(values[0], values[-1]) if values else None for values in (member.edges, member.levels)]
    return [f"{four_digits(end[0])} to {four_digits(end[1])}" if end else NONE for end in ends]


def _course(bins: Floats, ascii_only: bool) -> list[str]:
    low, high = float(np.nanmin(bins)), float(np.nanmax(bins))
    return [four_digits(low), spark(bins, _WIDTH, ascii_only), four_digits(high)]


def _pictures(found: Comparison) -> list[Section]:
    return [
        Section(
            row.title,
            ["run", "step", "file"],
            [[found.members[i].letter, str(shown.step), plain(shown.path)] for i, shown in row.pictures.items()],
        )
        for row in found.pictures
    ]
