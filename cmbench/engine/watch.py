"""The watch on the tangent: a robust z-score of its norm in each time bin, against the bin's own recent past."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import median_abs_deviation

_PAST = 20  # profile rows that are remembered
_ENOUGH = 5  # rows before the first judgement
_SPIKE = 8.0  # z-score from which a bin is reported
_FLAT = 0.05  # a deviation below this share of the median counts as this share


class SpikeWatch:
    """Finds time bins whose tangent norm jumps. Knows rows of profiles.jsonl alone, so that a resumed run goes on."""

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self._past: deque[np.ndarray] = deque(maxlen=_PAST)
        for row in rows:
            self.look(row)

    def look(self, row: dict[str, Any]) -> dict[int, float]:
        """Take in a profile row and return the z-score of each bin in which the tangent norm jumped up."""
        if "tangent_norm" not in row:
            return {}
        now = np.array([np.nan if v is None else v for v in row["tangent_norm"]], dtype=np.float64)
        found = self._spikes(now) if len(self._past) >= _ENOUGH else {}
        self._past.append(now)
        return found

    def _spikes(self, now: np.ndarray) -> dict[int, float]:
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


def described(jumps: dict[int, float], edges: Sequence[float]) -> str:
    """Return a line about the jumps, for bins between `edges`."""
    worst = max(jumps, key=lambda i: jumps[i])
    return (
        f"the tangent norm jumped in {len(jumps)} of {len(edges) - 1} time bins, most for t from "
        f"{edges[worst]:.3g} to {edges[worst + 1]:.3g} (robust z-score {jumps[worst]:g})"
    )
