"""The time of training at the rows of a run: seconds in which steps were taken, as `cmbench.engine.clock` defines it.

Rows say it as `train_s`. Those of earlier versions do not; what they say of speed is of the same seconds, so that
theirs follow from it: steps times images a step over `images_per_s`, that of the next row that has one. Where a row
says no speed either, the clock of the wall stands in: what passed since the row before, in the same segment and not
backwards, or since the run began. That alone counts pauses and evaluations.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEYS = ("step", "time", "images", "images_per_s", "train_s")  # of rows, that these seconds follow from


class Seconds:
    """Follows the rows of a run in the order of their file, a piece at a time.

    Args:
        began: when the run began, seconds since 1970; None lets its first row be the begin.
    """

    def __init__(self, began: float | None = None) -> None:
        self._time = np.nan if began is None else began
        self._step, self._seconds, self._rate = 0.0, 0.0, np.nan
        self._has_rows = False

    def at(self, rows: Mapping[str, Floats]) -> Floats:
        """Return the seconds of training at each of the next rows, (n,), which never fall.

        Args:
            rows: KEYS of them, each (n,), nan where a row has none.
        """
        step, time, images, rate, told = (rows[key] for key in KEYS)
        if not len(step):
            return np.empty(0)
        with np.errstate(all="ignore"):  # what is damaged comes to no number, and counts as nothing
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
        """Go on in another segment, from the last row that it leaves of those before; from zeros without one."""
        if self._has_rows:  # else it is the first segment, which begins with the run
            self._step, self._seconds, self._time, self._rate = step, seconds, np.nan, np.nan


def _known_before(values: Floats, first: float) -> Floats:
    """Return values (n,) with each nan replaced by the last before it that is none, at the begin by `first`."""
    place = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(1, len(values) + 1)))
    return np.append(first, values)[place]
