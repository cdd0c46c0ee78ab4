"""The one definition of the time of training: seconds in which optimiser steps were taken.

A step lasts from the draw of its batch until weights and averages have moved. In a step that is logged its means are
waited for, and with them the device. Its parts of the tangent (`profile.anatomy_every`) belong to a step. What lies
between two steps does not: evaluations, snapshots, checkpoints, rows and their disk, requests and pauses, whatever a
stop, a kill or a night leaves out. The clock is monotonic: one of the wall that is set does not move it.

Every row of a run says these seconds as `train_s`, counted over all its segments; checkpoints keep them. Speeds are
images or steps over them, and the time to go (`eta_s`) is that of the steps to come, by the last speed. What readers
make of rows that lack them, `cmbench.rundir.training` says.
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

    def stop(self, images: int) -> None:
        """End a step of so many images."""
        self._state.train_s += time.perf_counter() - self._began
        self._images += images

    def read(self) -> float:
        """Return images per second since the last reading, or since this clock was made."""
        rate = self._images / max(self._state.train_s - self._since, 1e-9)
        self._images, self._since = 0, self._state.train_s
        return rate
