"""Improved consistency training: no teacher and no average of the student (Song & Dhariwal 2023).

L = E[ lambda d( f_theta(x_0 + t_{n+1} eps, t_{n+1}),  sg f_theta(x_0 + t_n eps, t_n) ) ]
n from a discretised log-normal on the N(k)-point Karras grid, N(k) doubling; lambda = 1 / (t_{n+1} - t_n)
"""

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.config import GridPoints, LogDeviation, LogMean
from cmbench.contracts import Terms
from cmbench.equations import distance, timesteps
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.objectives import _pair
from cmbench.objectives._pair import Curriculum, Distance, Weighting
from cmbench.randomness import StepRandom


class Config(Curriculum):
    """[objective] kind = "ict"."""

    s_0: GridPoints = Field(10, description="intervals of the grid at the first step")
    s_1: GridPoints = Field(1280, description="intervals of the grid at most")
    P_mean: LogMean = Field(-1.1, description="mean of log sigma in the proposal of n")
    P_std: LogDeviation = Field(2.0, description="standard deviation of log sigma in the proposal of n")
    distance: Distance = "pseudo_huber"
    weighting: Weighting = "inverse_interval"


class Objective(nn.Module):
    """Improved consistency training on the EDM path, with the curriculum N(k) over K = train.steps."""

    paths = ("edm",)
    teacher = "none"
    sampler = "consistency"
    moves_nothing = True
    forwards = {"student": 3.0, "target": 1.0}  # noqa: RUF012

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        self.config, self.K = config, steps
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.distance = distance.named(config.distance, model.shape, config.huber_c)
        if timesteps.discretised_log_normal(self._grid(2), config.P_mean, config.P_std).isnan().any():
            ends = f"log sigma between {math.log(self.sigma_min):.3g} and {math.log(self.sigma_max):.3g}"
            raise UsageError(
                f"objective.P_mean: found {config.P_mean:g}, allowed: near {ends}, where the proposal lies"
            )

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        N = self.N(step)
        grid = self._grid(N)
        p = timesteps.discretised_log_normal(grid, cfg.P_mean, cfg.P_std).to(x_0.device)
        n = random.draw(
            "time", len(x_0), lambda B, generator: torch.multinomial(p, B, replacement=True, generator=generator)
        )
        grid = model.time(grid.to(x_0.device, model.time_type(x_0)))
        r, t = grid[n], grid[n + 1]
        eps = random.noise(x_0)
        x_t, x_r = model.path.x_t(x_0, eps, t), model.path.x_t(x_0, eps, r)
        f = _pair.both(model, model, (x_t, t), (x_r, r), labels, random)
        return _pair.terms(cfg, self.distance, f, (t, r), model.sigma_data, {"N": N})

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 noise levels, evenly spaced in log sigma."""
        return timesteps.log_edges(bins, self.sigma_min, self.sigma_max)

    def N(self, step: int) -> int:  # noqa: N802
        """Return the number of grid points at a step."""
        return timesteps.N_doubling(step, self.K, self.config.s_0, self.config.s_1)

    def _grid(self, N: int) -> Tensor:
        return timesteps.karras_grid(N, self.sigma_min, self.sigma_max, self.config.rho)
