"""The signals that ask a process to end, and their handlers."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

BY_HAND = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ANNOUNCED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)  # by batch systems, some more than once
ASKING = (*BY_HAND, *ANNOUNCED)


def on(*signals: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
    """Let signals call a handler, except ignored ones, so that nohup keeps its effect."""
    for each in signals:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, handler)


@contextmanager
def passed_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let all signals that ask for an end call a handler within the block, except ignored ones."""
    before = {number: signal.getsignal(number) for number in ASKING}
    on(*before, handler=handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def ignore() -> None:
    """Let no signal change how one of several ranks ends: once one has ended, torchrun sends SIGTERM to the others.

    A handler would not do: it is gone while Python ends.
    """
    for each in ASKING:
        signal.signal(each, signal.SIG_IGN)
