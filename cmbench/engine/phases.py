"""The phases of a training step, named as each begins. In training nobody listens: `engine.bench` does."""

from typing import Literal, Protocol

# "loss" is the objective, whose passes a listener can tell apart by hooks. "log" brings means to the host. "rows" and
# "profiles" lie between two steps, where they are written. What follows "" belongs to nothing.
_OF_STEPS = Literal["data", "loss", "backward", "optimiser", "averages", "diagnostics", "anatomy", "log"]
Phase = _OF_STEPS | Literal["rows", "profiles", ""]


class Listener(Protocol):
    """Whoever is told that a phase begins, and with it that the last one has ended."""

    def __call__(self, phase: Phase, /) -> None:
        """Hear that a phase begins."""


def unheard(phase: Phase) -> None:
    """Listen to nothing: a dozen calls of it take half a microsecond a step."""
