"""The measures by name: the names of their rows, and which way is better. Imports no torch, so that recipes and views
may use it.

A name is that of a file in `cmbench.evaluation`. A figure of samples has the key `<key>_<sampler steps>step` in
metrics.jsonl, such as sw_1step.
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

Better = Literal["lower", "higher", ""]


class Measure(NamedTuple):
    """The properties of a measure.

    Attributes:
        key: the start of its rows' names.
        better: which way is better; "" if neither is, and the figure is compared with its floor.
        against: the real samples that it compares with.
        samples: the fewest samples for which it is defined.
        real: the fewest real samples for which it is defined.
        version: changes when the measure's figures change, so that cached figures are not reused.
    """

    key: str
    better: Better
    against: Literal["held_out", "train"] = "held_out"
    samples: int = 1
    real: int = 1
    version: int = 2


OF_SAMPLES = {
    "sliced_wasserstein": Measure("sw", "lower"),
    "energy_distance": Measure("energy", "lower"),
    "kernel_mmd": Measure("mmd", "lower", samples=2, real=2),
    "frechet_distance": Measure("fd", "lower", samples=2, real=2),
    "precision": Measure("precision", "higher", real=4),
    "recall": Measure("recall", "higher", samples=4),
    "density": Measure("density", "higher", real=6),
    "coverage": Measure("coverage", "higher", real=6),
    "nearest_neighbour": Measure("nn", "", against="train"),
}
OF_FUNCTIONS = {
    "consistency_error": Measure("true_error", "lower", version=3),
    "self_consistency": Measure("self_error", "lower", version=3),
}
MEASURES = {**OF_SAMPLES, **OF_FUNCTIONS}
PARTIAL = "_trained"  # ends the key of a mean over the trained noise levels only, if those are fewer than in other runs


class Floor(NamedTuple):
    """The figure of a perfect sampler by a measure.

    Attributes:
        value: the mean over several draws of real samples, used as samples.
        spread: their standard deviation; None if there was one draw, as in runs of earlier versions.
        draws: the number of draws; None if unknown.
    """

    value: float
    spread: float | None = None
    draws: int | None = None

    def edge(self, way: Better) -> float:
        """Return the end of the band on the worse side."""
        return self.value + (-1 if way == "higher" else 1) * (self.spread or 0.0)

    def holds(self, value: float | None, way: Better) -> bool:
        """Return whether a figure is indistinguishable from a perfect sampler's: at the band's edge or better.

        No sampler is better than a perfect one: a better figure is chance, or a weakness of the measure. If neither way
        is better, the figure must lie in the band.
        """
        if value is None or not math.isfinite(value):
            return False
        if way == "":
            return abs(value - self.value) <= (self.spread or 0.0)
        return value >= self.edge(way) if way == "higher" else value <= self.edge(way)


def too_few(name: str, samples: int, real: int) -> str:
    """Return why a measure is not defined for so few samples; empty if it is defined."""
    measure = OF_SAMPLES[name]
    for least, found, what in ((measure.samples, samples, "samples"), (measure.real, real, "real samples")):
        if found < least:
            return f"it needs {least} or more {what}, found {found}"
    return ""


_STEPS = re.compile(r"_([0-9]{1,6})step$")


def row_key(name: str, steps: int) -> str:
    """Return the row key of a measure of samples, e.g. fd_1step."""
    return f"{OF_SAMPLES[name].key}_{steps}step"


@lru_cache(maxsize=4096)
def better(key: str) -> Better:
    """Return which way is better for a row's key, e.g. "lower" for sw_1step; "" if it measures no quality."""
    return next((measure.better for measure in MEASURES.values() if measure.key == measure_of(key)), "")


def measure_of(key: str) -> str:
    """Return the measure's key in a row's key, e.g. sw for sw_1step."""
    return _STEPS.sub("", key).removesuffix(PARTIAL)


def sampler_steps(key: str) -> int | None:
    """Return the number of sampler steps in a row's key, e.g. 2 for sw_2step; None if there is none."""
    found = _STEPS.search(key)
    return int(found[1]) if found else None


def quality_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys that show a run's quality, fewest sampler steps first.

    They belong to one measure of samples: the first of OF_SAMPLES that is present and has a better direction.
    """
    there = [key for key in keys if _STEPS.search(key)]
    for measure in OF_SAMPLES.values():
        own = [key for key in there if key.startswith(f"{measure.key}_") and better(key)]
        if own:
            return sorted(own, key=lambda key: sampler_steps(key) or 0)
    return []
