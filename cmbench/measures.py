"""The measures by name: what their rows are called, which way is better. Imports no torch, so that recipes, which list
them, and views, which show them, may know them.

A name is that of a file of `cmbench.evaluation`. A figure of samples is a row `<key>_<sampler steps>step` of
metrics.jsonl, such as sw_1step.
"""

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

Better = Literal["lower", "higher", ""]


class Measure(NamedTuple):
    """What there is to know of a measure without computing it.

    Attributes:
        key: begins the names of its rows.
        better: "" where neither is: such a figure is read beside its floor.
        against: the real samples that it compares with.
        samples: the fewest of which it is a number.
        real: the fewest real samples with which it is one.
        version: another one for a measure whose figures change, so that cached ones are not taken for it.
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
PARTIAL = "_trained"  # ends the key of a mean over fewer noise levels than other runs have: those that are trained


class Floor(NamedTuple):
    """What a perfect sampler shows by a measure.

    Attributes:
        value: the mean over several draws of real samples in the place of samples.
        spread: their standard deviation; None where there was one draw, as of runs of earlier versions.
        draws: how many; None where that is not known.
    """

    value: float
    spread: float | None = None
    draws: int | None = None

    def edge(self, way: Better) -> float:
        """Return where the band ends on the side of the worse."""
        return self.value + (-1 if way == "higher" else 1) * (self.spread or 0.0)

    def holds(self, value: float | None, way: Better) -> bool:
        """Return whether a figure is not to be told from a perfect sampler's: at the band's edge, or beyond it.

        No figure is better than a perfect sampler: what lies beyond is chance, or a measure's blind side. Where neither
        way is better, it has to lie in the band.
        """
        if value is None or not math.isfinite(value):
            return False
        if way == "":
            return abs(value - self.value) <= (self.spread or 0.0)
        return value >= self.edge(way) if way == "higher" else value <= self.edge(way)


def too_few(name: str, samples: int, real: int) -> str:
    """Return why a measure of samples is no number of so few; empty where it is one."""
    measure = OF_SAMPLES[name]
    for least, found, what in ((measure.samples, samples, "samples"), (measure.real, real, "real samples")):
        if found < least:
            return f"it needs {least} or more {what}, found {found}"
    return ""


_STEPS = re.compile(r"_([0-9]{1,6})step$")


def row_key(name: str, steps: int) -> str:
    """Return what the figure of a measure of samples is called in a row, e.g. fd_1step."""
    return f"{OF_SAMPLES[name].key}_{steps}step"


@lru_cache(maxsize=4096)
def better(key: str) -> Better:
    """Return which way is better for a row's key, e.g. "lower" for sw_1step; "" for what measures no quality."""
    return next((measure.better for measure in MEASURES.values() if measure.key == measure_of(key)), "")


def measure_of(key: str) -> str:
    """Return the key of the measure whose row this is, e.g. sw for sw_1step."""
    return _STEPS.sub("", key).removesuffix(PARTIAL)


def sampler_steps(key: str) -> int | None:
    """Return the number of sampler steps in a row's key, e.g. 2 for sw_2step; None without any."""
    found = _STEPS.search(key)
    return int(found[1]) if found else None


def quality_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys that tell a run's quality, fewest sampler steps first.

    They are those of one measure of samples, the first of OF_SAMPLES that is among them and has a better way.
    """
    there = [key for key in keys if _STEPS.search(key)]
    for measure in OF_SAMPLES.values():
        own = [key for key in there if key.startswith(f"{measure.key}_") and better(key)]
        if own:
            return sorted(own, key=lambda key: sampler_steps(key) or 0)
    return []
