"""A metric as a curve in bounded memory: single rows, or buckets of merged rows if there are many.

A curve keeps at most CAPACITY buckets. When they are full, neighbours are merged. Each bucket keeps its lowest and
highest value, so that a spike in one row stays visible.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CAPACITY = 1 << 14  # buckets of a curve

_LARGEST = float(np.finfo(np.float32).max)
_FIELDS = {
    "step": np.int64,
    "time": np.float64,
    "seconds": np.float64,
    "low": np.float32,
    "high": np.float32,
    "mean": np.float32,
    "count": np.int32,  # finite values
    "bad": np.int32,  # values that were not finite
}


@dataclass(frozen=True)
class Points:
    """Buckets of a curve, each array (n,): last step and time, finite values, and how many were not finite.

    `time` is wall-clock time in seconds since 1970; `seconds` is training time.
    """

    step: NDArray[np.int64]
    time: NDArray[np.float64]
    seconds: NDArray[np.float64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    mean: NDArray[np.float32]
    count: NDArray[np.int32]
    bad: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.step)


class Curve:
    """One metric over the steps."""

    def __init__(self) -> None:
        # Allocated at once, so that the memory of a viewer does not grow for hours.
        self._buckets = {name: np.zeros(CAPACITY, dtype) for name, dtype in _FIELDS.items()}
        self._n, self._rows = 0, 1
        self._rest: Points | None = None  # rows of a bucket that is not complete yet
        self.version = 0

    def extend(
        self,
        step: NDArray[np.int64],
        time: NDArray[np.float64],
        seconds: NDArray[np.float64],
        value: NDArray[np.float64],
        bad: NDArray[np.bool_],
    ) -> None:
        """Take in rows, each array (n,); `bad` marks values that were not finite."""
        finite = as_float32(np.where(bad, np.nan, value))
        rows = Points(step, time, seconds, finite, finite, finite, (~bad).astype(np.int32), bad.astype(np.int32))
        self.version += 1
        while len(rows):
            if self._n == CAPACITY:
                self._halve()
            waiting = rows if self._rest is None else _joined(self._rest, rows)
            whole = min(len(waiting) // self._rows, CAPACITY - self._n)
            self._put(_merged(_part(waiting, 0, whole * self._rows), self._rows))
            left = _part(waiting, whole * self._rows, len(waiting))
            if len(left) < self._rows:
                self._rest, rows = (left if len(left) else None), _part(left, 0, 0)
            else:
                self._rest, rows = None, left

    def drop_from(self, step: int) -> None:
        """Drop rows at or past a step; a bucket that spans the step is dropped as a whole."""
        self._n = int(np.searchsorted(self._buckets["step"][: self._n], step))
        if self._rest is not None:
            kept = int(np.searchsorted(self._rest.step, step))
            self._rest = _part(self._rest, 0, kept) if kept else None
        self.version += 1

    def end(self) -> tuple[int, float]:
        """Return the last step and its seconds of training, or zeros if there is none."""
        last = self._rest or Points(
            **{name: array[max(0, self._n - 1) : self._n] for name, array in self._buckets.items()}
        )
        return (int(last.step[-1]), float(last.seconds[-1])) if len(last) else (0, 0.0)

    def points(self) -> Points:
        """Return all buckets, including the incomplete last one. Arrays are views: do not change them."""
        whole = Points(**{name: array[: self._n] for name, array in self._buckets.items()})
        return whole if self._rest is None else _joined(whole, _merged(self._rest, len(self._rest)))

    def _put(self, buckets: Points) -> None:
        for name, array in self._buckets.items():
            array[self._n : self._n + len(buckets)] = getattr(buckets, name)
        self._n += len(buckets)

    def _halve(self) -> None:
        merged = _merged(Points(**self._buckets), 2)
        self._n, self._rows = 0, 2 * self._rows
        self._put(merged)


def as_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return float32, clipped to its range: large values must stay finite."""
    return np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)


def _part(points: Points, start: int, stop: int) -> Points:
    return Points(**{name: getattr(points, name)[start:stop] for name in _FIELDS})


def _joined(a: Points, b: Points) -> Points:
    return Points(**{name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in _FIELDS})


def _merged(points: Points, size: int) -> Points:
    """Merge every `size` neighbours; `size` divides their number."""
    if size == 1 or not len(points):
        return points
    table = {name: getattr(points, name).reshape(-1, size) for name in _FIELDS}
    count = table["count"].sum(axis=1)
    total = np.nansum(table["mean"] * table["count"], axis=1)
    low = np.fmin.reduce(table["low"], axis=1)
    high = np.fmax.reduce(table["high"], axis=1)
    mean = np.divide(total, count, out=np.full(len(count), np.nan, total.dtype), where=count > 0)
    step, time, seconds = (table[name][:, -1] for name in ("step", "time", "seconds"))
    return Points(step, time, seconds, low, high, mean, count, table["bad"].sum(axis=1))
