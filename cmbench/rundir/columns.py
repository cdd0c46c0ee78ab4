"""A run's metrics as exact columns of float64, for figures. Screens use `series`, whose memory is bounded."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmbench.rundir.fields import number_of
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import parts
from cmbench.rundir.series import Profiles
from cmbench.rundir.summary import NOT_METRICS
from cmbench.rundir.training import KEYS, Seconds

Floats = NDArray[np.float64]
_Block = dict[str, Floats]
_PLACES = ("step", "images", "seconds")


@dataclass(frozen=True)
class Column:
    """One metric, one value per row that has it; each array is (n,), and the steps ascend.

    Attributes:
        step, images: after which the row was written; images is nan where a row lacks it.
        seconds: of training, as `training` computes them.
        forwards: cost of the run so far in forward passes of its network; nan where a row lacks it.
        value: nan or inf where it was not finite.
    """

    step: Floats
    images: Floats
    seconds: Floats
    forwards: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.value)

    @property
    def last(self) -> float | None:
        """The last value, nan or inf if it was not finite; None if there is none."""
        return float(self.value[-1]) if len(self) else None

    def finite(self) -> "Column":
        """Return the rows with a finite value."""
        there = np.isfinite(self.value)
        return self if there.all() else Column(*(part[there] for part in self._parts()))

    def _parts(self) -> tuple[Floats, ...]:
        return self.step, self.images, self.seconds, self.forwards, self.value


@dataclass(frozen=True)
class Profile:
    """One quantity over time, one row of bins per step; the steps ascend without repeats.

    Attributes:
        step: (n,).
        bins: (n, B), nan where a bin was empty.
    """

    step: NDArray[np.int64]
    bins: Floats


def read(run: RunDir, created: float | None = None) -> dict[str, Column]:
    """Return the metrics of a run by name, without rows that a later segment trained again.

    Args:
        run: whose metrics.jsonl is read; a missing file has no metrics.
        created: when the run began, seconds since 1970; None takes the time of its first row.
    """
    return _read(run.metrics, created)


def of_machine(run: RunDir, created: float | None = None) -> dict[str, Column]:
    """Return the machine's metrics while a run trained, in the form of `read`; empty if there are none."""
    return _read(run.machine, created)


def _read(path: Path, created: float | None) -> dict[str, Column]:
    blocks, seconds = list[_Block](), Seconds(created)
    for piece in Tail(path).pieces():
        for part in parts(piece):
            if (first := part.first_step) is not None:
                blocks = [kept for block in blocks if len((kept := _where(block, block["step"] < first))["step"])]
                seconds.back_to(*((blocks[-1][key][-1] for key in ("step", "seconds")) if blocks else (0.0, 0.0)))
            blocks.append(_block(part.rows, seconds))
    return _columns([block for block in blocks if len(block["step"])])


def profiles(run: RunDir) -> dict[str, Profile]:
    """Return the profiles of a run by quantity, thinned evenly in a long run; empty if they are damaged."""
    found = Profiles(Tail(run.profiles))
    try:
        found.read()
        while found.reader.behind:
            found.read()
    except (KeyError, TypeError, ValueError):  # no trainer writes such rows
        return {}
    return {name: _profile(rows) for name, rows in found.rows.items()}


def _profile(rows: Sequence[tuple[int, NDArray[np.float32]]]) -> Profile:
    newest = dict(sorted(rows, key=itemgetter(0)))  # the later of two rows of one step
    return Profile(np.array(list(newest), np.int64), np.array(list(newest.values()), np.float64))


def _block(rows: Sequence[Row], seconds: Seconds) -> _Block:
    """Return arrays (n,) by key, nan where a row lacks it; "there KEY" marks the rows that have one."""
    found = _numbers(rows)
    nowhere = np.full(len(rows), np.nan)
    if (lost := np.isnan(found.get("step", nowhere))).any():
        return _block([row for row, gone in zip(rows, lost, strict=True) if not gone], seconds)
    places = {key: found.get(key, nowhere) for key in KEYS}
    block = {"step": places["step"], "images": places["images"], "seconds": seconds.at(places)}
    named = [(i, row["nonfinite"]) for i, row in enumerate(rows) if "nonfinite" in row] if "nonfinite" in found else []
    for key in sorted(found.keys() - NOT_METRICS):
        value = found[key]
        there = ~np.isnan(value)
        for i, names in named:
            if isinstance(names, dict) and names.get(key) in ("nan", "inf", "-inf"):
                value[i], there[i] = float(names[key]), True
        if there.any():
            block[key], block[f"there {key}"] = value, there
    return block


def _numbers(rows: Sequence[Row]) -> dict[str, Floats]:
    """Return every key of all rows, (n,), nan where a value is missing or not a number."""
    alike: dict[tuple[str, ...], list[Row]] = {}  # rows with the same keys, which are read as one table
    places: dict[tuple[str, ...], list[int]] = {}
    start = 0
    for keys, group in groupby(rows, tuple):
        stretch = list(group)
        alike.setdefault(keys, []).extend(stretch)
        places.setdefault(keys, []).extend(range(start, start + len(stretch)))
        start += len(stretch)
    found: dict[str, Floats] = {key: np.full(len(rows), np.nan) for keys in alike for key in keys}
    for keys, own in alike.items():
        where = np.array(places[keys])
        for key, column in zip(keys, _table(own, len(keys)).T, strict=True):
            found[key][where] = column
    return found


def _table(rows: Sequence[Row], width: int) -> Floats:
    """Return the values of rows with the same keys, (n, width), nan where a value is not a number."""
    try:
        return np.fromiter(chain.from_iterable(map(dict.values, rows)), np.float64).reshape(-1, width)
    except (TypeError, ValueError, OverflowError):  # one at a time takes four times as long
        return np.array([[number_of(value) for value in row.values()] for row in rows], np.float64)  # None becomes nan


def _where(block: _Block, kept: NDArray[np.bool_]) -> _Block:
    return block if kept.all() else {key: array[kept] for key, array in block.items()}


def _columns(blocks: Sequence[_Block]) -> dict[str, Column]:
    if not blocks:
        return {}
    step, images, seconds = (np.concatenate([block[key] for block in blocks]) for key in _PLACES)
    order = np.argsort(step, kind="stable")
    seconds = np.maximum.accumulate(seconds[order])
    forwards = np.concatenate([block.get("forwards", np.full(len(block["step"]), np.nan)) for block in blocks])
    columns: dict[str, Column] = {}
    shared: dict[
        bytes, tuple[NDArray[np.int64], tuple[Floats, Floats, Floats, Floats]]
    ] = {}  # for metrics that have the same rows
    for key in sorted(set().union(*blocks) - {*_PLACES}):
        if key.startswith("there "):
            continue
        kept = _joined(blocks, f"there {key}")[order] > 0
        if not kept.any():
            continue
        if (mark := kept.tobytes()) not in shared:
            rows = order[kept]
            shared[mark] = rows, (step[rows], images[rows], seconds[kept], forwards[rows])
        rows, places = shared[mark]
        columns[key] = Column(*places, _joined(blocks, key)[rows])
    return columns


def _joined(blocks: Sequence[_Block], key: str) -> Floats:
    return np.concatenate([block.get(key, np.zeros(len(block["step"]))) for block in blocks])
