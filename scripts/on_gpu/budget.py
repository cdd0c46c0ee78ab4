"""The time that `make gpu` has."""

import time
from collections.abc import Callable


class Budget:
    """Seconds from now on, of which every part asks for what it may need before it begins."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._end = clock, clock() + seconds

    @property
    def left(self) -> float:
        """The seconds that are left, at least 0."""
        return max(0.0, self._end - self._clock())

    def has(self, seconds: float) -> bool:
        """Return whether so many seconds are left."""
        return self.left >= seconds
