"""Results of runs, from their rows of metrics.jsonl: first one figure per run, then one over several runs."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from cmbench.rundir.fields import value_of
from cmbench.rundir.log import Row


def newest(rows: Iterable[Row], key: str) -> float | None:
    """Return the last value of a metric, from rows with the newest first; None if no row has it."""
    return next((value for row in rows if (value := value_of(row, key)) is not None), None)


def largest(rows: Iterable[Row], key: str) -> float | None:
    """Return the largest value of a metric; a non-finite value counts as inf. None if no row has it."""
    values = (value for row in rows if (value := value_of(row, key)) is not None)
    return max((v if math.isfinite(v) else math.inf for v in values), default=None)


def mean_and_deviation(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and sample standard deviation (None below two values); both are nan if a value is not finite."""
    if not values:
        return None, None
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan
    return _scaled(statistics.fmean, values), _scaled(statistics.stdev, values) if len(values) > 1 else None


def _scaled(f: Callable[[Sequence[float]], float], values: Sequence[float]) -> float:
    """Return f(values), even if an intermediate sum or square is too large for a float."""
    try:
        return f(values)
    except OverflowError:
        scale = max(map(abs, values))
        return f([value / scale for value in values]) * scale
