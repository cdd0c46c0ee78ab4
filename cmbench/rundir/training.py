"""The training time at the rows of a run: seconds in which steps were taken, as `cmbench.engine.clock` defines it.

Rows have it as `train_s`. Rows of earlier versions lack it, but their speed refers to the same seconds. Their time is
therefore steps times images per step over `images_per_s`, taken from the next row that has it. If no speed is known
either, the wall clock is used: the time since the row before in the same segment, never negative, or since the run
began. Only the wall clock counts pauses and evaluations.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEYS = ("step", "time", "images", "images_per_s", "train_s")  # of rows, from which these seconds follow


class Seconds:
    """Follows the rows of a run in the order of their file, one piece at a time.

    Args:
        began: when the run began, seconds since 1970; None takes the time of its first row.
    """

    def __init__(self, began: float | None = None) -> None:
        self._time = np.nan if began is None else began
        self._step, self._seconds, self._rate = 0.0, 0.0, np.nan
        self._has_rows = False

    def at(self, rows: Mapping[str, Floats]) -> Floats:
        """Return the seconds of training at each of the next rows, (n,); they never decrease.

        Args:
            rows: their KEYS, each (n,), nan where a row lacks the key.
        """
        step, time, images, rate, told = (rows[key] for key in KEYS)
        if not len(step):
            return np.empty(0)
        with np.errstate(all="ignore"):  # damaged values become nan and count as nothing
            rate = _known_before(_known_before(np.where(rate > 0, rate, np.nan)[::-1], np.nan)[::-1], self._rate)
            steps = np.maximum(np.diff(step, prepend=self._step), 0.0)
            by_speed = steps * (images / step) / rate
            began = time[0] if np.isnan(self._time) else self._time
            by_clock = np.maximum(np.diff(time, prepend=began), 0.0)
            is_told = (told >= 0) & np.isfinite(told)
            passed = np.where(np.isfinite(by_speed), by_speed, np.nan_to_num(by_clock, posinf=0.0))
            counted = self._seconds + np.cumsum(np.where(is_told, 0.0, passed))
            ahead = _known_before(np.where(is_told, told - counted, np.nan), 0.0)
        seconds = np.maximum.accumulate(np.append(self._seconds, counted + ahead))[1:]
        self._step, self._time, self._rate, self._seconds = (float(last[-1]) for last in (step, time, rate, seconds))
        self._has_rows = True
        return seconds

    def back_to(self, step: float, seconds: float) -> None:
        """Continue in another segment from the last earlier row that still counts, or from zeros if there is none."""
        if self._has_rows:  # else it is the first segment, which begins with the run
            self._step, self._seconds, self._time, self._rate = step, seconds, np.nan, np.nan


def _known_before(values: Floats, first: float) -> Floats:
    """Return values (n,) with each nan replaced by the last known value before it, at the start by `first`."""
    place = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(1, len(values) + 1)))
    return np.append(first, values)[place]
