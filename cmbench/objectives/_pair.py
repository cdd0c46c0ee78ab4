"""Settings of objectives that compare f at two times of a trajectory: d, its c, lambda, and a grid that grows."""

from typing import Annotated

from pydantic import Field, model_validator

from cmbench.config import Config as BaseConfig
from cmbench.config import Curvature, GridPoints, NonNegative
from cmbench.equations.distance import DistanceName
from cmbench.equations.weighting import PairWeighting

Distance = Annotated[DistanceName, Field(description="d(x, y): l2, norm, pseudo_huber or lpips")]
Weighting = Annotated[
    PairWeighting, Field(description="lambda: uniform, edm (1/t^2 + 1/sigma_data^2) or inverse_interval (1 / (t - r))")
]


class Pair(BaseConfig):
    """lambda(t, r) d(f(x_t, t), f(x_r, r)); the defaults are those of consistency models as first published."""

    idle = {"huber_c": ("distance", ("l2", "norm", "lpips"))}  # noqa: RUF012

    distance: Distance = "l2"
    huber_c: NonNegative = Field(0.0, description="c of pseudo_huber; 0: .00054 sqrt(D)")
    weighting: Weighting = "uniform"


class Curriculum(Pair):
    """The Karras grid of such pairs, which grows from the first step to the last."""

    s_0: GridPoints
    s_1: GridPoints
    rho: Curvature = Field(7.0, description="curvature of the Karras grid")

    @model_validator(mode="after")
    def _grid_grows(self) -> "Curriculum":
        if self.s_1 < self.s_0:
            raise ValueError(f"s_1: found {self.s_1}, allowed: at least s_0 = {self.s_0}")
        return self
