"""How many bytes the dashboard itself sends to the terminal."""

import math
import time
from typing import Any

from textual.app import App

_LENGTH = 5.0  # time constant of the average, in seconds


class Traffic:
    """Counts bytes written to the terminal."""

    def __init__(self) -> None:
        self.total, self._rate = 0, 0.0
        self._last = (time.monotonic(), 0)

    def watch(self, app: App[Any]) -> None:
        """Count what an app's driver writes from now on."""
        driver = app._driver
        if driver is None:
            return
        write = driver.write

        def counted(data: str) -> None:
            self.total += len(data.encode("utf-8", "replace"))
            write(data)

        driver.write = counted  # type: ignore[method-assign]

    def rate(self) -> float:
        """Return bytes per second over the last seconds. The result does not depend on how often it is called."""
        now, (then, before) = time.monotonic(), self._last
        passed = max(1e-3, now - then)
        kept = math.exp(-passed / _LENGTH)
        self._rate = kept * self._rate + (1 - kept) * (self.total - before) / passed
        self._last = (now, self.total)
        return self._rate
