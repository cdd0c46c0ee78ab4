"""Seconds of pieces of work, measured in turn, so that what else the machine does meets all of them alike."""

import time
from collections.abc import Callable, Hashable, Mapping
from itertools import count
from statistics import median
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)
Clock = Callable[[], float]


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleaved(
    works: Mapping[Name, Callable[[], object]],
    goes_on: Callable[[int], bool],
    device: torch.device,
    times: int = 1,
    clock: Clock = time.perf_counter,
) -> dict[Name, list[float]]:
    """Do each work once to warm up, and then all in turn, round by round; return the seconds of each round.

    Args:
        works: by name. Each is waited for.
        goes_on: whether there is another round, after so many.
        device: where they work.
        times: how often a round goes through all; their seconds are added up.
        clock: returns seconds.
    """
    for work in works.values():
        work()
    wait(device)
    seconds: dict[Name, list[float]] = {name: [] for name in works}
    for n in count():
        if not goes_on(n):
            return seconds
        spent = dict.fromkeys(works, 0.0)
        for _ in range(times):
            for name, work in works.items():
                began = clock()
                work()
                wait(device)
                spent[name] += clock() - began
        for name, taken in spent.items():
            seconds[name].append(taken)
    return seconds


def ratio(of: list[float], to: list[float]) -> float:
    """Return the median of the ratios within a round."""
    return median(a / b for a, b in zip(of, to, strict=True))
