"""Seconds of each phase of a step. The passes within the loss are told apart by hooks on the networks."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from cmbench.engine.bench.timing import Clock, wait
from cmbench.engine.doctor import probe
from cmbench.engine.phases import Phase
from cmbench.engine.trainer import Trainer
from cmbench.model import Model

BOTH = "student and tangent"  # in one pass
Hear = Callable[[str], None]


class Stopwatch:
    """A listener that stamps the beginning of each phase: by a clock, or on a GPU by events in its queue.

    A phase on a GPU lasts until the device has come to the next, so no phase waits for it, and waits show where they
    are.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        self._device, self._clock = device, clock
        self._stamps: list[tuple[str, Any]] = []

    def __call__(self, phase: Phase | str) -> None:
        """Hear that a phase begins."""
        self._stamps.append((phase, self._now()))

    def taken(self) -> dict[str, float]:
        """Return the seconds of each phase since this was last called. The last phase must have ended."""
        wait(self._device)
        seconds: dict[str, float] = {}
        for (phase, began), (_, ended) in pairwise(self._stamps):
            if phase:
                seconds[phase] = seconds.get(phase, 0.0) + self._between(began, ended)
        self._stamps.clear()
        return seconds

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def _between(self, began: Any, ended: Any) -> float:
        return began.elapsed_time(ended) / 1e3 if self._device.type == "cuda" else ended - began


@contextmanager
def heard(built: Trainer, hear: Hear) -> Iterator[None]:
    """Let `hear` be told of the phases of the steps in the block, with the passes of the loss by who makes them."""
    now = ""

    def phase(name: Phase) -> None:
        nonlocal now
        now = name
        hear(name)

    def watched(network: nn.Module, named: Callable[[], str]) -> list[Any]:
        def begin(*_: object) -> None:
            if now == "loss":
                hear(named())

        def end(*_: object) -> None:
            if now == "loss":
                hear("loss")

        return [network.register_forward_pre_hook(begin), network.register_forward_hook(end)]

    before = built.state.phase
    with ExitStack() as undo:
        undo.callback(setattr, built.state, "phase", before)
        built.state.phase = phase
        for network, named in _networks(built):
            for hook in watched(network, named):
                undo.callback(hook.remove)
        yield


def _networks(built: Trainer) -> Iterator[tuple[nn.Module, Callable[[], str]]]:
    """Yield each network that a loss may ask, and a function that names its pass as it begins."""
    takes_tangent, student = probe.needs_tangent(built), built.state.model
    recorded = BOTH if takes_tangent and probe.method_of(built) == "dual" else "student"
    other = "tangent" if takes_tangent else "target"
    yield student.F_theta, lambda: recorded if torch.is_grad_enabled() else other
    for module in built.objective.modules():  # type: ignore[attr-defined]
        if isinstance(module, Model) and module not in (student, built.state.teacher):
            yield module.F_theta, lambda: "target"
    if built.state.teacher is not None:
        yield built.state.teacher.F_theta, lambda: "teacher"
