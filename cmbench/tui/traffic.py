"""What the dashboard itself sends to the terminal."""

import time
from typing import Any

from textual.app import App


class Traffic:
    """Counts bytes written to the terminal."""

    def __init__(self) -> None:
        self.total = 0
        self._last = (time.monotonic(), 0)

    def watch(self, app: App[Any]) -> None:
        """Count what an app's driver writes from here on."""
        driver = app._driver
        if driver is None:
            return
        write = driver.write

        def counted(data: str) -> None:
            self.total += len(data.encode("utf-8", "replace"))
            write(data)

        driver.write = counted  # type: ignore[method-assign]

    def rate(self) -> float:
        """Return bytes a second since the last call."""
        now, before = time.monotonic(), self._last
        self._last = (now, self.total)
        return (self.total - before[1]) / max(1e-3, now - before[0])
