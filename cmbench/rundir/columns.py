"""A run's metrics as exact columns of float64, for figures. Screens take `series`, whose memory is bounded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row
from cmbench.rundir.overview import number_of
from cmbench.rundir.series import Reader
from cmbench.rundir.summary import NOT_METRICS

Floats = NDArray[np.float64]
_PLACES = ("step", "images", "time", "segment")


@dataclass(frozen=True)
class Column:
    """One metric, a value a row that has it; each array (n,), the steps ascending.

    Attributes:
        step, images: after which the row was written; nan where a row does not say how many images.
        seconds: of training, without the time between a stop and the first row of the next segment.
        value: nan and inf where it was not finite.
    """

    step: Floats
    images: Floats
    seconds: Floats
    value: Floats

    def __len__(self) -> int:
        return len(self.value)

    def finite(self) -> "Column":
        """Return the rows with a finite value."""
        there = np.isfinite(self.value)
        return self if there.all() else Column(*(part[there] for part in self._parts()))

    def _parts(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.step, self.images, self.seconds, self.value


def read(run: RunDir, created: float | None = None) -> dict[str, Column]:
    """Return the metrics of a run by name, without rows that a later segment trained again.

    Args:
        run: whose metrics.jsonl; a missing file has no metrics.
        created: when the run began, seconds since 1970; None lets its first row be the begin.
    """
    blocks: list[dict[str, Floats]] = []
    for piece in _pieces(run):
        keys = set().union(*piece)
        start = 0
        for i, first in _openings(piece) if "first_step" in keys else ():
            blocks.append(_block(piece[start:i], keys))
            blocks = [_where(block, block["step"] < first) for block in blocks]
            start = i + 1
        blocks.append(_block(piece[start:], keys))
    return _columns([block for block in blocks if len(block["step"])], created)


def _pieces(run: RunDir) -> Iterator[list[Row]]:
    reader = Reader(run.metrics)
    yield reader.read()
    while reader.behind:
        yield reader.read()


def _openings(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return where segments open, and their first steps."""
    return [(i, row["first_step"]) for i, row in enumerate(rows) if isinstance(row.get("first_step"), int)]


def _block(rows: Sequence[Row], keys: set[str]) -> dict[str, Floats]:
    """Return arrays (n,) by key, nan where a row lacks it; "there KEY" marks the rows that have one."""
    if np.isnan(_numbers(rows, "step")).any():
        rows = [row for row in rows if number_of(row.get("step")) is not None]
    block = {key: _numbers(rows, key) for key in _PLACES}
    named = [(i, row.get("nonfinite")) for i, row in enumerate(rows)] if "nonfinite" in keys else []
    for key in sorted(keys - NOT_METRICS):
        value = _numbers(rows, key)
        there = ~np.isnan(value)
        for i, names in named:
            if isinstance(names, dict) and names.get(key) in ("nan", "inf", "-inf"):
                value[i], there[i] = float(names[key]), True
        if there.any():
            block[key], block[f"there {key}"] = value, there
    return block


def _numbers(rows: Sequence[Row], key: str) -> Floats:
    """Return a key of all rows, nan for what is no number."""
    try:
        return np.fromiter(map(itemgetter(key), rows), np.float64, len(rows))  # a third of the time of what follows
    except (KeyError, TypeError, ValueError, OverflowError):
        return np.array([number_of(row.get(key)) for row in rows], np.float64)  # None becomes nan


def _where(block: dict[str, Floats], kept: NDArray[np.bool_]) -> dict[str, Floats]:
    return block if kept.all() else {key: array[kept] for key, array in block.items()}


def _columns(blocks: Sequence[dict[str, Floats]], created: float | None) -> dict[str, Column]:
    if not blocks:
        return {}
    step, images, time, segment = (np.concatenate([block[key] for block in blocks]) for key in _PLACES)
    order = np.argsort(step, kind="stable")
    seconds = _training_seconds(time, segment, created)[order]
    columns = {}
    for key in sorted(set().union(*blocks) - {*_PLACES}):
        if key.startswith("there "):
            continue
        value, there = (_joined(blocks, name) for name in (key, f"there {key}"))
        kept = there[order] > 0
        rows = order[kept]
        if len(rows):
            columns[key] = Column(step[rows], images[rows], seconds[kept], value[rows])
    return columns


def _joined(blocks: Sequence[dict[str, Floats]], key: str) -> Floats:
    return np.concatenate([block.get(key, np.zeros(len(block["step"]))) for block in blocks])


def _training_seconds(time: Floats, segment: Floats, created: float | None) -> Floats:
    """Return the seconds of training at each row: the clock's, without the gaps between segments."""
    begin = time[0] if created is None or not created <= time[0] else created
    passed = np.maximum(np.diff(time, prepend=begin), 0.0)
    passed[1:][np.diff(segment) != 0] = 0.0
    return np.cumsum(np.nan_to_num(passed))
