"""The axis of a profile, which counts bins: round times on it, and the column of cells for each of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmbench.views.axes import Scale, ticks
from cmbench.words.numbers import number

ROOM = 9  # columns for a label and the gap to the next
_PARTS = 128  # into which a zoomed part of the axis is divided
_OF_ONE_DIGIT = 3  # tiers of `_ever_less_round`: powers of ten, their multiples by 2 and 5, other digits
_FEW = 3  # labels
_CLOSER = 0.75


def ticks_of(edges: Sequence[float]) -> Callable[[float, float, int], list[tuple[float, str]]]:
    """Return a function that yields round values and their labels between two places, at most so many of them."""

    def between(low: float, high: float, most: int) -> list[tuple[float, str]]:
        last = len(edges) - 1
        if last < 1 or (low <= 0 and high >= last):
            return places_between(edges, most)
        inside = np.interp(np.linspace(low, high, _PARTS + 1), np.arange(last + 1), np.asarray(edges, np.float64))
        scale = (high - low) / _PARTS
        return [(low + place * scale, label) for place, label in places_between(inside.tolist(), most)]

    return between


def labels(edges: Sequence[float], name: Callable[[int], str], bins: int, columns: int) -> list[tuple[int, str]]:
    """Return labels of an axis of bins, each with the column that shows its place.

    Args:
        edges: values between the bins; if they are unknown, some edges are labelled with `name`.
        name: returns the name of an edge, given its number.
        bins: number of bins.
        columns: number of columns of cells; the first one shows the first bin.
    """
    found = places_between(edges, max(2, columns // ROOM)) if len(edges) == bins + 1 else []
    if not found:
        found = [(float(edge), name(edge)) for edge in np.linspace(0, bins, max(2, columns // 18), dtype=int).tolist()]
    return [(column_of(place, bins, columns), label) for place, label in found]


def column_of(place: float, bins: int, columns: int) -> int:
    """Return the column for a place on an axis of bins: a column of the bin that contains the place."""
    firsts = np.arange(columns) * bins // columns  # the first bin of each column
    last = int(np.searchsorted(firsts, math.floor(place), side="right")) - 1
    first = int(np.searchsorted(firsts, firsts[last]))
    return min(max(math.floor(place * columns / bins), first), last)


def places_between(edges: Sequence[float], most: int) -> list[tuple[float, str]]:
    """Return places and labels of at most `most` round values, spread over an axis that counts bins.

    Args:
        edges: ascending values between the bins, (bins + 1,), at the places 0, 1, ... of the axis.
        most: largest number of labels.
    """
    return list(_places_between(tuple(edges), most))


@lru_cache(maxsize=64)
def _places_between(edges: tuple[float, ...], most: int) -> tuple[tuple[float, str], ...]:
    at = np.array(edges, np.float64)
    if most < 1 or len(at) < 2 or not np.isfinite(at).all() or not (np.diff(at) > 0).all():
        return ()
    for scale in (Scale(), Scale("log")):  # if the bins are even on a scale, use its ticks
        own = scale.forward(at)
        if np.isfinite(own).all() and np.allclose(np.diff(own), (own[-1] - own[0]) / (len(own) - 1), rtol=1e-3):
            ends, last = (float(own[0]), float(own[-1])), len(own) - 1
            return tuple(((p - ends[0]) / (ends[1] - ends[0]) * last, label) for p, label in ticks(*ends, scale, most))
    return tuple(_spread(at, most))


def _spread(at: NDArray[np.float64], most: int) -> list[tuple[float, str]]:
    """Return round values, each with at least a `most`-th part of the axis free on either side.

    Rounder values are placed first. Powers of ten may be closer together. Values of two digits and more are used only
    where there would be few labels.
    """
    found = list[tuple[float, str]]()
    for tier, values in enumerate(_ever_less_round(float(at[0]), float(at[-1]))):
        if tier >= _OF_ONE_DIGIT and len(found) >= _FEW:
            break
        apart = (len(at) - 1) / most * (_CLOSER if tier == 0 else 1.0)
        places = np.interp(values, at, np.arange(len(at)))
        free = np.array([np.abs(places - place) >= apart for place, _ in found] or [places == places]).all(axis=0)
        while free.any() and len(found) < most:
            i = int(np.flatnonzero(free)[0])
            found.append((float(places[i]), number(float(values[i]))))
            free &= np.abs(places - places[i]) >= apart
    return sorted(found)


def _ever_less_round(low: float, high: float) -> Iterator[NDArray[np.float64]]:
    """Yield tiers of values in a range: zero and powers of ten; 2 and 5 times those; one, two, three digits.

    Values may have either sign.
    """
    top = math.floor(math.log10(max(abs(low), abs(high))))
    bottom = math.floor(math.log10(low)) if low > 0 else top - 4
    powers = range(max(bottom, top - 12), top + 1)
    for digits, mantissas in ((0, (1,)), (0, (2, 5)), (0, range(1, 10)), (1, range(10, 100)), (2, range(100, 1000))):
        sizes = np.array([float(f"{m}e{e - digits}") for m in mantissas for e in powers])
        signed = np.unique([0.0, *sizes, *-sizes])
        yield signed[(signed >= low) & (signed <= high)]
