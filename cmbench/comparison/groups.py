"""Runs of one recipe that differ only in their seed: means over seeds, and how certain their differences are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmbench.rundir import figures
from cmbench.rundir.columns import Floats

# Ends of intervals of mean(second) - mean(first) for each row of two arrays (metrics, seeds), as in `interval`.
Intervals = Callable[[Floats, Floats], tuple[Floats, Floats, Floats, Floats]]


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds of a group; deviation is None for one seed, both are nan if a value is not finite."""

    n: int
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Difference:
    """The mean of a later group minus that of the first, and its 95% intervals: by bootstrap, and Welch's."""

    mean: float
    low: float
    high: float
    welch_low: float
    welch_high: float


@dataclass(frozen=True)
class Group:
    """Runs, by their places, that differ only in their seed, one per seed; differences are from the first group."""

    places: tuple[int, ...]
    seeds: tuple[int, ...]
    spreads: Mapping[str, Spread]
    differences: Mapping[str, Difference]


def of(
    keys: Sequence[Mapping[str, Any] | None], values: Mapping[str, Sequence[float | None]], intervals: Intervals
) -> list[Group]:
    """Return the groups of two seeds or more, in the order of their first runs.

    Args:
        keys: one per run, as in `Member`; None if its recipe cannot be read. Of runs with the same seed only the first
            counts: a copy is not a second draw.
        values: of each metric in each run, after the same number of steps; None if missing.
        intervals: of the difference of two means; called only if there are two groups.
    """
    sets = over_seeds(keys)
    first = sets[0][0] if sets else ()
    return [
        Group(places, seeds, _spreads(places, values), _differences(first, places, values, intervals) if n else {})
        for n, (places, seeds) in enumerate(sets)
    ]


def over_seeds(keys: Sequence[Mapping[str, Any] | None]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return places and seeds of the runs of each group, as `of` finds them."""
    found: dict[str, dict[int, int]] = {}  # shared keys and values -> seed -> place
    for i, own in enumerate(keys):
        if own is not None:
            same = repr(sorted((key, value) for key, value in own.items() if key not in ("seed", "name")))
            found.setdefault(same, {}).setdefault(own["seed"], i)
    return [(tuple(places.values()), tuple(places)) for places in found.values() if len(places) > 1]


def _spreads(group: Sequence[int], values: Mapping[str, Sequence[float | None]]) -> dict[str, Spread]:
    spreads = {}
    for metric, of_runs in values.items():
        there = [value for i in group if (value := of_runs[i]) is not None]
        mean, deviation = figures.mean_and_deviation(there)
        if mean is not None:
            spreads[metric] = Spread(len(there), mean, deviation)
    return spreads


def _differences(
    first: Sequence[int], group: Sequence[int], values: Mapping[str, Sequence[float | None]], intervals: Intervals
) -> dict[str, Difference]:
    """Return the differences of the metrics that are finite in every run of both groups."""
    tables = {name: np.array([own[i] for i in (*first, *group)], np.float64) for name, own in values.items()}
    names = [name for name, table in tables.items() if np.isfinite(table).all()]
    if not names:
        return {}
    whole = np.array([tables[name] for name in names])
    x, y = whole[:, : len(first)], whole[:, len(first) :]
    means = y.mean(axis=1) - x.mean(axis=1)
    rows = zip(names, means, *intervals(x, y), strict=True)
    return {name: Difference(*map(float, numbers)) for name, *numbers in rows}
