"""Runs of one recipe that differ in their seed alone: means over seeds, and how sure a difference of two means is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmbench.recipe import Recipe, flat
from cmbench.rundir import figures
from cmbench.rundir.columns import Floats

# Ends of an interval of mean(second) - mean(first) for each row of two arrays (metrics, seeds), each (metrics,).
Interval = Callable[[Floats, Floats], tuple[Floats, Floats]]


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds of a group; deviation is None for one seed, both are nan where a value is not finite."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """The mean of a later group less that of the first, and an interval of it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Runs, by their places, that differ in their seed alone; differences are to the first group."""

    places: tuple[int, ...]
    seeds: tuple[int, ...]
    spreads: Mapping[str, Spread]
    differences: Mapping[str, Difference]


def of(recipes: Sequence[Recipe | None], last: Mapping[str, Sequence[float | None]], interval: Interval) -> list[Group]:
    """Return the groups of two seeds or more, in the order of their first runs.

    Args:
        recipes: one a run; None where it cannot be read.
        last: the last value of each metric in each run, None where it has none.
        interval: of the difference of two means; asked only where there are two groups.
    """
    places: dict[str, list[int]] = {}
    for i, recipe in enumerate(recipes):
        if recipe:
            same = repr(sorted((key, value) for key, value in flat(recipe.tables()) if key != "seed"))
            places.setdefault(same, []).append(i)
    seeds = [recipe.seed if recipe else 0 for recipe in recipes]
    sets = [tuple(group) for group in places.values() if len({seeds[i] for i in group}) > 1]
    return [
        Group(
            group,
            tuple(seeds[i] for i in group),
            _spreads(group, last),
            _differences(sets[0], group, last, interval) if group != sets[0] else {},
        )
        for group in sets
    ]


def _spreads(group: Sequence[int], last: Mapping[str, Sequence[float | None]]) -> dict[str, Spread]:
    spreads = {}
    for metric, values in last.items():
        there = [value for i in group if (value := values[i]) is not None]
        mean, deviation = figures.mean_and_deviation(there)
        if mean is not None:
            spreads[metric] = Spread(len(there), mean, deviation)
    return spreads


def _differences(
    first: Sequence[int], group: Sequence[int], last: Mapping[str, Sequence[float | None]], interval: Interval
) -> dict[str, Difference]:
    """Return the differences of the metrics that are finite in every run of both groups."""
    tables = {name: np.array([values[i] for i in (*first, *group)], np.float64) for name, values in last.items()}
    names = [name for name, values in tables.items() if np.isfinite(values).all()]
    if not names:
        return {}
    values = np.array([tables[name] for name in names])
    x, y = values[:, : len(first)], values[:, len(first) :]
    means = y.mean(axis=1) - x.mean(axis=1)
    rows = zip(names, means, *interval(x, y), strict=True)
    return {name: Difference(float(mean), float(low), float(high)) for name, mean, low, high in rows}
