"""Consistency training: no teacher, the same x_0 and eps at both times (Song et al. 2023, algorithm 3).

L = E[ lambda d( f_theta(x_0 + t_{n+1} eps, t_{n+1}),  f_theta-(x_0 + t_n eps, t_n) ) ]
theta- <- mu(k) theta- + (1 - mu(k)) theta,   n uniform on the N(k)-point Karras grid
"""

import copy

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.config import Fraction, GridPoints
from cmbench.contracts import Terms
from cmbench.equations import distance, ema, timesteps
from cmbench.model import Model
from cmbench.objectives import _pair
from cmbench.objectives._pair import Curriculum
from cmbench.randomness import StepRandom


class Config(Curriculum):
    """[objective] kind = "ct"."""

    s_0: GridPoints = Field(2, ge=2, description="grid points at the first step, N(0)")
    s_1: GridPoints = Field(150, ge=2, description="intervals of the grid at the last step, N(K) - 1")
    mu_0: Fraction = Field(0.9, description="the target's EMA decay at the first step; 0: the target is the student")


class Objective(nn.Module):
    """Consistency training on the EDM path, with the curricula N(k) and mu(k) over K = train.steps."""

    paths = ("edm",)
    teacher = "none"
    sampler = "consistency"
    forwards = {"student": 3.0, "target": 1.0}  # noqa: RUF012

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        self.config, self.K = config, steps
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.distance = distance.named(config.distance, model.shape, config.huber_c)
        self.target = copy.deepcopy(model).requires_grad_(False) if config.mu_0 else None
        self._follower = None if self.target is None else ema.Follower(self.target, model)
        self.moves_nothing = self.target is None

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        N, mu = self._curricula(step)
        grid = model.time(self._grid(N).to(x_0.device, model.time_type(x_0)))
        n = random.draw(
            "time", len(x_0), lambda B, generator: torch.randint(N - 1, (B,), generator=generator, device=x_0.device)
        )
        r, t = grid[n], grid[n + 1]
        eps = random.noise(x_0)
        x_t, x_r = model.path.x_t(x_0, eps, t), model.path.x_t(x_0, eps, r)
        f = _pair.both(model, self.target or model, (x_t, t), (x_r, r), labels, random)
        return _pair.terms(self.config, self.distance, f, (t, r), model.sigma_data, {"N": N, "mu": mu})

    def after_step(self, model: Model, step: int) -> None:
        """Move the target: theta- <- mu(k) theta- + (1 - mu(k)) theta. Without decay it is the student itself."""
        if self._follower is not None:
            self._follower.update(self._curricula(step)[1])

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 noise levels, evenly spaced on the Karras grid, from which n is drawn uniformly."""
        return self._grid(bins + 1)

    def _grid(self, N: int) -> Tensor:
        return timesteps.karras_grid(N, self.sigma_min, self.sigma_max, self.config.rho)

    def _curricula(self, step: int) -> tuple[int, float]:
        cfg = self.config
        N = timesteps.N_of_k(step, self.K, cfg.s_0, cfg.s_1)
        return N, timesteps.mu_of_k(N, cfg.s_0, cfg.mu_0) if cfg.mu_0 else 0.0
