"""The smallest recipe that still logs, profiles, saves, draws and evaluates."""

from collections.abc import Sequence

TINY = """\
name = "tiny"
seed = 3

[data]
kind = "mixtures"
name = "ring"

[network]
kind = "mlp"
width = 16
depth = 1

[objective]
kind = "ct"
mu_0 = 0.5

[optimizer]
lr = 1e-2

[ema]
lengths = [0.9, 0.5]

[train]
steps = 12
batch_size = 8
device = "cpu"

[log]
every = 3

[profile]
every = 4
bins = 4

[checkpoint]
every = 5
keep = 2

[snapshot]
every = 6
n = 4

[evaluate]
every = 6
n = 32
"""

TEACHER = ["name=dm", "objective.kind=denoise"]
PICTURES = [
    "network={kind='unet', width=8, multipliers=[1]}",
    *("train.steps=2", "train.batch_size=4", "evaluate.every=0", "snapshot.every=0", "profile.every=0"),
]
DISTILL = ["name=cd", "objective.kind=cd", "teacher.kind=run"]


def set_options(overrides: Sequence[str]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]
