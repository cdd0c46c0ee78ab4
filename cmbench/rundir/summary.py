"""Last and best of each metric: what `ls`, `show` and status.json tell of a run."""

import math
from typing import Any

from cmbench.rundir.log import Row

NOT_METRICS = {"step", "time", "segment", "images", "nonfinite", "forwards_per_image"}
_QUALITY = ("sw_", "true_error")


def is_quality(name: str) -> bool:
    """Return whether a metric measures samples, so that its lowest value is its best."""
    return name.startswith(_QUALITY)


class Summary:
    """The last value of every metric, and the lowest of every quality metric ("sw_..." and "true_error...").

    A loss has no best: that of a curriculum grows as the task gets harder.
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.last: dict[str, float] = {}
        self.best: dict[str, dict[str, Any]] = {}
        for row in rows or []:
            self.add(row)

    def add(self, row: Row) -> None:
        """Take in one row of metrics.jsonl."""
        for key, value in row.items():
            if key in NOT_METRICS or value is None or not math.isfinite(value):
                continue
            self.last[key] = value
            if is_quality(key) and value < self.best.get(key, {"value": float("inf")})["value"]:
                self.best[key] = {"value": value, "step": row["step"]}
