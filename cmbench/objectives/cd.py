"""Consistency distillation: a teacher steps down its own trajectory (Song et al. 2023, algorithm 2).

x_r = one solver step of the teacher's PF-ODE from (x_{t_{n+1}}, t_{n+1}) to t_n
L = E[ lambda d( f_theta(x_{t_{n+1}}, t_{n+1}),  f_theta-(x_r, t_n) ) ]
theta- <- mu theta- + (1 - mu) theta,   n uniform on the N-point Karras grid
"""

import copy
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench.config import Curvature, Fraction, GridPoints
from cmbench.contracts import Teacher, Terms
from cmbench.equations import distance, ema, pf_ode, timesteps
from cmbench.model import Model
from cmbench.objectives import _pair
from cmbench.objectives._pair import Pair
from cmbench.randomness import StepRandom


class Config(Pair):
    """[objective] kind = "cd"."""

    N: GridPoints = Field(18, ge=2, description="points of the Karras grid")
    solver: Literal["euler", "heun"] = Field("heun", description="the teacher's ODE step: euler or heun")
    mu: Fraction = Field(0.0, description="decay of the target's EMA; 0: the target is the student")
    rho: Curvature = Field(7.0, description="curvature of the Karras grid")


class Objective(nn.Module):
    """Consistency distillation on the EDM path."""

    paths = ("edm",)
    teacher = "denoiser"
    sampler = "consistency"

    def __init__(self, config: Config, model: Model, teacher: Teacher, steps: int) -> None:
        super().__init__()
        self.config = config
        self.forwards = {"student": 3.0, "target": 1.0, "teacher": {"euler": 1.0, "heun": 2.0}[config.solver]}
        self.denoise = teacher.denoise  # only the method: the teacher is not part of this module's state
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.distance = distance.named(config.distance, model.shape, config.huber_c)
        self.target = copy.deepcopy(model).requires_grad_(False) if config.mu else None
        self._follower = None if self.target is None else ema.Follower(self.target, model)
        self.moves_nothing = self.target is None

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg, device = self.config, x_0.device
        grid = model.time(self._grid(cfg.N).to(device, model.time_type(x_0)))
        n = random.draw(
            "time", len(x_0), lambda B, generator: torch.randint(cfg.N - 1, (B,), generator=generator, device=device)
        )
        r, t = grid[n], grid[n + 1]
        x_t = model.path.x_t(x_0, random.noise(x_0), t)
        x_r = self._teacher_step(model, x_t, t, r, labels)
        f = _pair.both(model, self.target or model, (x_t, t), (x_r, r), labels, random)
        return _pair.terms(cfg, self.distance, f, (t, r), model.sigma_data)

    @torch.no_grad()
    def _teacher_step(self, model: Model, x_t: Tensor, t: Tensor, r: Tensor, labels: Tensor | None) -> Tensor:
        """Follow the teacher's PF-ODE from t to r in one step. The labels are the student's, if it takes any."""
        v = pf_ode.velocity(lambda x, sigma: self.denoise(x, sigma, labels), model.path)
        return pf_ode.SOLVERS[self.config.solver](v, x_t, t, r)

    def after_step(self, model: Model, step: int) -> None:
        """Move the target: theta- <- mu theta- + (1 - mu) theta. Without decay it is the student itself."""
        if self._follower is not None:
            self._follower.update(self.config.mu)

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 noise levels, evenly spaced on the Karras grid, from which n is drawn uniformly."""
        return self._grid(bins + 1)

    def _grid(self, N: int) -> Tensor:
        return timesteps.karras_grid(N, self.sigma_min, self.sigma_max, self.config.rho)
