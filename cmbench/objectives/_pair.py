"""The common parts of objectives that compare f at two times of a trajectory, lambda(t, r) d(f(x_t, t), f(x_r, r)).

They are the settings, the two passes, and the terms of the loss (Song et al. 2023, algorithms 2 and 3).
"""

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cmbench.config import Config as BaseConfig
from cmbench.config import Curvature, GridPoints, NonNegative
from cmbench.contracts import Terms, weighted
from cmbench.equations import tangent
from cmbench.equations import weighting as weightings
from cmbench.equations.distance import Distance as Metric
from cmbench.equations.distance import DistanceName
from cmbench.equations.weighting import PairWeighting
from cmbench.randomness import StepRandom

Distance = Annotated[DistanceName, Field(description="d(x, y): l2, norm, pseudo_huber or lpips")]
Weighting = Annotated[
    PairWeighting, Field(description="lambda: uniform, edm (1/t^2 + 1/sigma_data^2) or inverse_interval (1 / (t - r))")
]


class Pair(BaseConfig):
    """lambda(t, r) d(f(x_t, t), f(x_r, r)); the defaults are those of Song et al. 2023."""

    idle = {"huber_c": ("distance", ("l2", "norm", "lpips"))}  # noqa: RUF012

    distance: Distance = "l2"
    huber_c: NonNegative = Field(0.0, description="c of pseudo_huber; 0: .00054 sqrt(D)")
    weighting: Weighting = "uniform"


class Curriculum(Pair):
    """Pairs on the Karras grid, which grows from the first step to the last."""

    s_0: GridPoints
    s_1: GridPoints
    rho: Curvature = Field(7.0, description="curvature of the Karras grid")

    @model_validator(mode="after")
    def _grid_grows(self) -> "Curriculum":
        if self.s_1 < self.s_0:
            raise ValueError(f"s_1: found {self.s_1}, allowed: at least s_0 = {self.s_0}")
        return self


Point = tuple[Tensor, Tensor]  # x (B, ...) and its time (B,)


def both(
    model: nn.Module, target: nn.Module, at_t: Point, at_r: Point, labels: Tensor | None, random: StepRandom
) -> tuple[Tensor, Tensor]:
    """Return f_theta(x_t, t), recorded, and f_theta-(x_r, r), each (B, ...), with one dropout mask.

    The target runs first, so that its memory is free before the student's pass is recorded.
    """
    with random.dropout(), torch.no_grad():
        f_r = target(*at_r, labels)
    with random.dropout():
        return model(*at_t, labels), f_r


def terms(
    config: Pair,
    d: Metric,
    f: tuple[Tensor, Tensor],
    times: tuple[Tensor, Tensor],
    sigma_data: float,
    scalars: dict[str, float] | None = None,
    per_sample: dict[str, Tensor] | None = None,
) -> Terms:
    """Return lambda(t, r) d(f_t, f_r), whose tangent is (f_t - f_r) / (t - r).

    Args:
        config: the objective's settings.
        d: the distance.
        f: f_t and f_r, (B, ...).
        times: t and r, (B,), r < t.
        sigma_data: standard deviation of the data.
        scalars: further numbers for metrics.jsonl.
        per_sample: further values for profiles.jsonl, (B,) each.
    """
    (f_t, f_r), (t, r) = f, times
    return weighted(
        loss=d(f_t, f_r),
        weight=weightings.of_pair(config.weighting, t, r, sigma_data),
        t=t,
        tangent_norm=tangent.norm(tangent.finite_difference(f_t, f_r, t, r)),
        scalars=scalars,
        r=r,
        per_sample=per_sample,
    )
