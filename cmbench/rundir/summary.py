"""Last and best value of each metric, as `ls`, `show` and status.json give them."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from cmbench.measures import Better, better
from cmbench.rundir.fields import best, number_of, numbers
from cmbench.rundir.log import Row

NOT_METRICS = {"step", "time", "train_s", "segment", "images", "nonfinite", "forwards_per_image"}


class Summary:
    """The last value of every metric, and the best of every quality measure; `measures` says what is better.

    A loss has no best: the loss of a curriculum grows as the task gets harder.
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.last: dict[str, float] = {}
        self.best: dict[str, dict[str, Any]] = {}
        for row in rows or []:
            self.add(row)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Summary":
        """Return the summary with the given `last` and `best`, as in status.json; wrong types are dropped."""
        summary = cls()
        summary.last, summary.best = numbers(told.get("last")), best(told.get("best"))
        return summary

    def add_before(self, rows: Sequence[Row]) -> None:
        """Take in rows of metrics.jsonl that count and come before all earlier ones: many rows, of which few matter."""
        keys = set().union(*rows) - NOT_METRICS
        for key in keys - self.last.keys():
            found = (row[key] for row in reversed(rows) if key in row and number_of(row[key]) is not None)
            self.last.update((key, value) for value in islice(found, 1))
        for key in filter(better, keys):
            earlier = Summary([{key: row[key], "step": row["step"]} for row in rows if key in row]).best.get(key)
            if earlier and not (key in self.best and _beats(self.best[key]["value"], earlier["value"], better(key))):
                self.best[key] = earlier

    def add(self, row: Row) -> None:
        """Take in one row of metrics.jsonl."""
        for key, value in row.items():
            if key in NOT_METRICS or number_of(value) is None:
                continue
            self.last[key] = value
            if (way := better(key)) and (key not in self.best or _beats(value, self.best[key]["value"], way)):
                self.best[key] = {"value": value, "step": row["step"]}


def _beats(value: float, best: float, way: Better) -> bool:
    return value > best if way == "higher" else value < best
