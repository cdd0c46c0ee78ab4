"""A run's rows as curves: read further as the files grow, in bounded memory.

Files may be damaged: values of the wrong type are skipped. A curve keeps at most CAPACITY buckets. When they are full,
neighbours are merged. Each bucket keeps its lowest and highest value, so that a spike in one row stays visible.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.rundir.curve import Curve, as_float32
from cmbench.rundir.fields import moment, value_of, whole
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import parts
from cmbench.rundir.settings import is_setting
from cmbench.rundir.training import Seconds

CURVES = 1 << 12  # names that a run may have
PROFILES = 256  # rows of profiles.jsonl kept for each quantity
JOURNAL = 1000  # rows of events.jsonl kept

_NO_CURVES = {"step", "time", "train_s", "segment", "images", "nonfinite"}


def _is_row(row: Row) -> bool:
    """Return whether a row has a step and a time."""
    return whole(row.get("step")) is not None and type(row.get("time")) in (int, float)


def _values(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """Return a column, nan where there is no number."""
    try:
        values = np.array([row.get(key) for row in rows], np.float64)  # None becomes nan
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape == (len(rows),):
        return values
    return np.array([v if isinstance(v := row.get(key), int | float) else None for row in rows], np.float64)


@dataclass
class Metrics:
    """metrics.jsonl as curves by name."""

    reader: Tail
    curves: dict[str, Curve] = field(default_factory=dict)  # at most CURVES
    last: dict[str, float] = field(default_factory=dict)
    clock: Seconds = field(default_factory=Seconds)

    def read(self) -> bool:
        """Read the next piece. Return whether it had rows."""
        rows = self.reader.read_piece()
        for part in parts(rows):
            if part.first_step is not None:
                self._drop_from(part.first_step)
            self._extend(part.rows)
        return bool(rows)

    def _drop_from(self, first_step: int) -> None:
        if not first_step:  # another file: even its names may differ
            self.curves.clear()
            self.last.clear()
        for curve in self.curves.values():
            curve.drop_from(first_step)
        self.clock.back_to(*max((curve.end() for curve in self.curves.values()), default=(0, 0.0)))

    def course(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return steps that have rows (ascending), their seconds of training and their wall-clock time, of one curve.

        Each is a copy, (n,); a single zero if there is no curve.
        """
        points = max((curve.points() for curve in self.curves.values()), key=len, default=None)
        if points is None or not len(points):
            return np.zeros(1), np.zeros(1), np.zeros(1)
        return points.step.astype(np.float64), points.seconds.copy(), points.time.copy()

    def _extend(self, rows: Sequence[Row]) -> None:
        if not (rows := list(filter(_is_row, rows))):
            return
        step = np.array([row["step"] for row in rows], np.int64)
        time = np.array([row["time"] for row in rows], np.float64)
        told = {key: _values(rows, key) for key in ("images", "images_per_s", "train_s")}
        seconds = self.clock.at({"step": step.astype(np.float64), "time": time, **told})
        named = [(i, row["nonfinite"]) for i, row in enumerate(rows) if isinstance(row.get("nonfinite"), dict)]
        for key in sorted(set().union(*rows) - _NO_CURVES):
            value = _values(rows, key)
            bad = np.zeros(len(rows), bool)
            bad[[i for i, names in named if key in names]] = True
            there = bad | ~np.isnan(value)
            if not there.any() or (key not in self.curves and len(self.curves) == CURVES):
                continue
            self.curves.setdefault(key, Curve()).extend(
                step[there], time[there], seconds[there], value[there], bad[there]
            )
            final = int(np.flatnonzero(there)[-1])
            self.last[key] = math.nan if (last := value_of(rows[final], key)) is None else last


@dataclass
class Profiles:
    """profiles.jsonl: the rows of each quantity, thinned evenly in a long run."""

    reader: Tail
    rows: dict[str, list[tuple[int, NDArray[np.float32]]]] = field(default_factory=dict)
    version: int = 0

    def read(self) -> bool:
        """Read the next piece. Return whether it had rows."""
        rows = self.reader.read_piece()
        for part in parts(rows):
            if part.first_step is not None:
                self._drop_from(part.first_step)
            self._extend(part.rows)
        self.version += bool(rows)
        return bool(rows)

    def _extend(self, rows: Sequence[Row]) -> None:
        rows = list(filter(_is_row, rows))
        for key in dict.fromkeys(chain.from_iterable(rows)):
            self._take(key, [row for row in rows if isinstance(row.get(key), list)])

    def _take(self, key: str, rows: Sequence[Row]) -> None:
        """Take in one quantity of rows that have a list of it: all at once, or one by one if their lengths differ."""
        table = _table([row[key] for row in rows])
        if table is not None:
            self._add(key, [(row["step"], bins.copy()) for row, bins in zip(rows, table, strict=True)])
        elif len(rows) > 1:
            for row in rows:
                self._take(key, [row])

    def _add(self, key: str, rows: Sequence[tuple[int, NDArray[np.float32]]]) -> None:
        kept = self.rows.get(key, [])
        if kept and len(kept[-1][1]) != len(rows[0][1]):  # other bins: earlier rows cannot be shown beside them
            kept = []
        while rows:
            room = 2 * PROFILES + 1 - len(kept)
            kept, rows = [*kept, *rows[:room]], rows[room:]
            if len(kept) > 2 * PROFILES:
                kept = kept[::2]  # the number is odd, so the newest stays
        self.rows[key] = kept

    def _drop_from(self, first_step: int) -> None:
        self.rows = {key: [r for r in kept if r[0] < first_step] for key, kept in self.rows.items()}


def _table(values: Sequence[list[Any]]) -> NDArray[np.float32] | None:
    """Return the bins of profiles, (n, B), nan where not a number; None if they are empty or differ in length."""
    try:
        table = as_float32(np.array(values, np.float64))
    except (TypeError, ValueError):
        return None
    return table if table.ndim == 2 and table.size else None


@dataclass
class Journal:
    """events.jsonl: the newest rows, and all settings made in the run."""

    reader: Tail
    rows: deque[Row] = field(default_factory=lambda: deque(maxlen=JOURNAL))
    settings: list[Row] = field(default_factory=list)

    def read(self) -> bool:
        """Read the next piece. Return whether it had rows."""
        rows = self.reader.read_piece()
        for part in parts(rows):
            if part.first_step is not None:
                kept = (row for row in self.rows if whole(row.get("step")) is None or part.spares(row))
                self.rows = deque(kept, maxlen=JOURNAL)
                self.settings = list(filter(part.spares, self.settings))
            self.rows.extend(part.rows)
            self.settings += filter(is_setting, part.rows)
        return bool(rows)


class Series:
    """Everything that grows in a run directory."""

    def __init__(self, run: RunDir) -> None:
        began = moment((read_json(run.meta) or {}).get("created"))
        self.metrics = Metrics(Tail(run.metrics), clock=Seconds(began))
        self.machine = Metrics(Tail(run.machine), clock=Seconds(began))
        self.profiles = Profiles(Tail(run.profiles))
        self.journal = Journal(Tail(run.events))

    def read(self) -> bool:
        """Read a piece of each file. Return whether any had new rows."""
        new = [part.read() for part in self._parts()]
        return any(new)

    def _parts(self) -> tuple[Metrics, Metrics, Profiles, Journal]:
        return self.metrics, self.machine, self.profiles, self.journal

    @property
    def behind(self) -> int:
        """Bytes not read yet."""
        return sum(part.reader.behind for part in self._parts())
