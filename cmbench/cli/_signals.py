"""The signals that ask a process to end, and their handlers."""

import signal
from collections.abc import Callable
from types import FrameType

BY_HAND = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ANNOUNCED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)  # by batch systems, some more than once
ASKING = (*BY_HAND, *ANNOUNCED)


def on(*signals: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
    """Let signals call a handler, except ignored ones, so that nohup keeps its effect."""
    for each in signals:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, handler)
