"""Waiting for what will happen. The end is far off: no test may fail because a machine is slow."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0  # seconds until a test gives up


def until(condition: Callable[[], Any], told: Callable[[], object] = lambda: "it never came to hold") -> Any:
    """Wait until a condition holds, and return its value. Where it never does, say what `told` says."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)
    return value


async def soon(condition: Callable[[], Any], told: Callable[[], object] = lambda: "it never came to hold") -> Any:
    """Wait in an event loop until a condition holds, which may be awaitable, and return its value."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, told()
        await asyncio.sleep(0.01)
