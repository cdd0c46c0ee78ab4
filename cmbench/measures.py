"""The measures by name: what their rows are called, which way is better. Imports no torch, so that recipes, which list
them, and views, which show them, may know them.

A name is that of a file of `cmbench.evaluation`. A figure of samples is a row `<key>_<sampler steps>step` of
metrics.jsonl, such as sw_1step.
"""

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
        version: another one for a measure whose figures change, so that cached ones are not taken for it.
    """

    key: str
    better: Better
    against: Literal["held_out", "train"] = "held_out"
    version: int = 1


OF_SAMPLES = {
    "sliced_wasserstein": Measure("sw", "lower"),
    "energy_distance": Measure("energy", "lower"),
    "kernel_mmd": Measure("mmd", "lower"),
    "frechet_distance": Measure("fd", "lower"),
    "precision": Measure("precision", "higher"),
    "recall": Measure("recall", "higher"),
    "density": Measure("density", "higher"),
    "coverage": Measure("coverage", "higher"),
    "nearest_neighbour": Measure("nn", "", against="train"),
}
OF_FUNCTIONS = {
    "consistency_error": Measure("true_error", "lower", version=2),
    "self_consistency": Measure("self_error", "lower", version=2),
}
MEASURES = {**OF_SAMPLES, **OF_FUNCTIONS}

# What a recipe lays down for a step and nothing measures: never averaged, and no sign of learning.
SCHEDULES = frozenset({"lr", "r", "N", "stage", "mu", "forwards", "forwards_with_teacher", "forwards_per_image"})

_STEPS = re.compile(r"_([0-9]{1,6})step$")


def row_key(name: str, steps: int) -> str:
    """Return what the figure of a measure of samples is called in a row, e.g. fd_1step."""
    return f"{OF_SAMPLES[name].key}_{steps}step"


@lru_cache(maxsize=4096)
def better(key: str) -> Better:
    """Return which way is better for a row's key, e.g. "lower" for sw_1step; "" for what measures no quality."""
    return next((measure.better for measure in MEASURES.values() if measure.key == _STEPS.sub("", key)), "")


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
