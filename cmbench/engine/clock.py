"""The only definition of training time: seconds in which optimiser steps were taken.

A step lasts from the draw of its batch until weights and averages have moved. A logged step also waits for its means,
and so for the device. The parts of the tangent (`profile.anatomy_every`) belong to a step. Everything between two
steps does not count: evaluations, snapshots, checkpoints, rows and their disk, requests, pauses and stops. The clock
is monotonic: setting the wall clock does not change it. Compiling (`train.compile`) belongs to the first step. Rates
leave it out.

Every row of a run has these seconds as `train_s`, counted over all its segments; checkpoints keep them. Speeds are
images or steps per such second. The remaining time (`eta_s`) is that of the remaining steps at the last speed. For
rows without `train_s`, see `cmbench.rundir.training`.
"""

import time

from cmbench.engine.state import State


class Clock:
    """Adds the seconds of each step to `state.train_s`."""

    def __init__(self, state: State) -> None:
        self._state, self._images, self._since = state, 0, state.train_s

    def start(self) -> None:
        """Begin a step."""
        self._began = time.perf_counter()

    def stop(self, images: int, compiling: float = 0.0) -> None:
        """End a step of so many images, with the seconds in it that the rate leaves out."""
        self._state.train_s += time.perf_counter() - self._began
        self._since += compiling
        self._images += images

    def read(self) -> float:
        """Return images per second since the last reading, or since this clock was made."""
        rate = self._images / max(self._state.train_s - self._since, 1e-9)
        self._images, self._since = 0, self._state.train_s
        return rate
