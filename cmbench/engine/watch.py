"""A watch on the tangent: a robust z-score of its norm in each time bin, against the bin's own recent past."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from cmbench.rundir.fields import number_of

_PAST = 20  # profile rows that are remembered
_ENOUGH = 5  # rows before the first judgement
_SPIKE = 8.0  # z-score from which a bin is reported
_FLAT = 0.05  # a deviation below this share of the median counts as this share


class SpikeWatch:
    """Finds time bins whose tangent norm jumps. It needs only rows of profiles.jsonl, so a resumed run can continue.

    Args:
        rows: rows already written, newest first.
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        norms = (norm for row in rows if (norm := _norms(row.get("tangent_norm"))) is not None)
        self._past = deque(reversed(list(islice(norms, _PAST))), maxlen=_PAST)

    def look(self, row: dict[str, Any]) -> dict[int, float]:
        """Take in a profile row and return the z-score of each bin in which the tangent norm jumped up."""
        if (now := _norms(row.get("tangent_norm"))) is None:
            return {}
        if self._past and len(self._past[-1]) != len(now):  # damaged rows
            self._past.clear()
        found = self._spikes(now) if len(self._past) >= _ENOUGH else {}
        self._past.append(now)
        return found

    def _spikes(self, now: np.ndarray) -> dict[int, float]:
        from scipy.stats import median_abs_deviation  # here, since the import is slow and no run needs it at once

        found = {}
        for i, past in enumerate(np.stack(self._past, axis=1)):
            known = past[np.isfinite(past)]
            if len(known) < _ENOUGH or not np.isfinite(now[i]):
                continue
            median = float(np.median(known))
            deviation = max(float(median_abs_deviation(known, scale="normal")), _FLAT * abs(median), 1e-12)
            if (z := (now[i] - median) / deviation) > _SPIKE:
                found[i] = round(z, 1)
        return found


def _norms(found: object) -> np.ndarray | None:
    """Return the tangent norm of each bin, nan where missing; None if it is not a list."""
    if not isinstance(found, list | tuple):
        return None
    return np.array([np.nan if (v := number_of(value)) is None else v for value in found], np.float64)


def described(jumps: dict[int, float], edges: Sequence[float]) -> str:
    """Return a line that describes the jumps, for bins between `edges`."""
    worst = max(jumps, key=lambda i: jumps[i])
    return (
        f"the tangent norm jumped in {len(jumps)} of {len(edges) - 1} time bins, most for t from "
        f"{edges[worst]:.3g} to {edges[worst + 1]:.3g} (robust z-score {jumps[worst]:g})"
    )
