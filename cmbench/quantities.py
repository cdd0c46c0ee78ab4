"""The quantities in rows and profiles, by name, for charts, profiles, reports and comparisons. Imports no torch.

A quantity in no table is also shown, after the others, under its own name. Figures of quality, such as sw_1step, are
described in `cmbench.measures`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cmbench.measures import quality_keys, sampler_steps


class Quantity(NamedTuple):
    """The properties of a quantity.

    Attributes:
        title: its title in charts; empty for its own name.
        is_scheduled: the recipe sets it for each step, nothing measures it. It is never averaged, and no sign of
            learning.
        is_signed: its values lie on both sides of 0, like differences.
    """

    title: str = ""
    is_scheduled: bool = False
    is_signed: bool = False


# In the order in which charts show them; QUALITY stands for the figures of samples.
QUALITY = "quality"
OF_STEPS = {
    "loss": Quantity(),
    "tangent_norm": Quantity("tangent norm"),
    "grad_norm": Quantity("gradient norm"),
    "weight": Quantity(),
    QUALITY: Quantity(),
    "images_per_s": Quantity("images/s"),
    "true_error": Quantity("true error"),
    "true_error_trained": Quantity("true error where trained"),
    "N": Quantity(is_scheduled=True),
    "stage": Quantity(is_scheduled=True),
    "r": Quantity(is_scheduled=True),
    "lr": Quantity("learning rate", is_scheduled=True),
    "unweighted_loss": Quantity("unweighted loss"),
    "mu": Quantity(is_scheduled=True),
    "forwards": Quantity("forward passes", is_scheduled=True),
    "forwards_with_teacher": Quantity("forward passes with the teacher's", is_scheduled=True),
    "forwards_per_image": Quantity("forward passes an image", is_scheduled=True),
}
_MORE_TITLES = {
    "sw": "sliced W2",
    "machine_cpu_use": "processors in use",
    "machine_memory_gib": "memory in use, GiB",
    "machine_rss_gib": "trainer's memory, GiB",
}
# Over the sampler's time, in the order in which the waterfall offers them.
OF_TIMES = {
    "tangent_norm": Quantity("tangent norm"),
    "weight": Quantity(),
    "loss": Quantity(),
    "true_error": Quantity("true error"),
    "F_gradient": Quantity("gradient at F"),
    "F_gradient_variance": Quantity("variance of the gradient at F"),
    "anatomy_stable": Quantity("tangent's stable part"),
    "anatomy_spatial": Quantity("tangent's spatial part"),
    "anatomy_temporal": Quantity("tangent's temporal part"),
    "anatomy_dc_noise_dt": Quantity("dc_noise/dt"),
    "anatomy_demb_dc": Quantity("demb/dc_noise"),
    "anatomy_dF_demb": Quantity("dF/demb"),
    "gradient_share": Quantity("share of the gradient"),
    "batch_share": Quantity("share of the batch"),
    "consistency_debt": Quantity("added to the error by each bin", is_signed=True),
}
# The values of `Terms.per_sample`, shown after OF_TIMES under names that OF_TIMES lacks. A name in neither table is
# shown as it is.
OF_SAMPLES: dict[str, Quantity] = {}
COUNTS = frozenset({"count", "anatomy_count"})  # numbers of samples in a bin, over which the others are means
SCHEDULES = frozenset(name for name, quantity in OF_STEPS.items() if quantity.is_scheduled)
_OF_GPU = {"use": "in use", "memory_gib": "memory, GiB", "temperature_c": "temperature, °C", "power_w": "power, W"}
_GPU = re.compile(rf"machine_gpu([0-9]+)_({'|'.join(_OF_GPU)})")


def title(name: str) -> str:
    """Return the title of a quantity in charts, e.g. "tangent norm"; by default its own name."""
    if gpu := _GPU.fullmatch(name):
        return f"GPU {gpu[1]} {_OF_GPU[gpu[2]]}"
    found = OF_STEPS.get(name) or OF_TIMES.get(name) or OF_SAMPLES.get(name)
    return (found or Quantity(_MORE_TITLES.get(name, ""))).title or name


def is_signed(name: str) -> bool:
    """Return whether a quantity over time takes both signs, so that no logarithm can show it."""
    return (OF_TIMES.get(name) or OF_SAMPLES.get(name) or Quantity()).is_signed


def title_of(names: Sequence[str]) -> str:
    """Return the title of a chart of some quantities; figures of quality by measure and sampler steps."""
    if not names:
        return ""
    if names[0] not in quality_keys(names):
        return title(names[0])
    steps = " ".join(str(sampler_steps(name)) for name in names)
    return f"{title(names[0].rpartition('_')[0])} {steps}-step"


def charts(names: Sequence[str]) -> list[list[str]]:
    """Return the quantities of each chart: those of the table in its order, then the rest, one per chart."""
    there, quality = set(names), quality_keys(names)
    groups = [quality if name == QUALITY else [name] for name in OF_STEPS if name == QUALITY or name in there]
    found = [group for group in groups if group]
    shown = {name for group in found for name in group}
    return found + [[name] for name in names if name not in shown]


def over_time(names: Iterable[str]) -> list[str]:
    """Return the quantities recorded over time, without counts: those of the table in its order, then the rest."""
    there, known = dict.fromkeys(names), {**OF_TIMES, **OF_SAMPLES}
    return [name for name in known if name in there] + [n for n in there if n not in known and n not in COUNTS]
