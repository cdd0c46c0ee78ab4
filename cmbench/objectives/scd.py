"""Stabilised continuous-time consistency distillation, sCD (Lu & Song 2024, algorithm 1; seed sections 5.1 to 5.4).

x_t = cos t x_0 + sin t z,  v = sigma_data F_pre(x_t / sigma_data, t),  tau ~ N(P_mean, P_std^2)
t = arctan(e^tau / sigma_data)
g = -cos^2 t (sigma_data F_minus - v) - r cos t sin t (x_t + sigma_data dF_minus/dt),  r = min(1, k / H)
g <- g / (||g|| + c)
L = E[ e^w_phi(t) / D ||F_theta(x_t / sigma_data, t) - F_minus - g||^2 - w_phi(t) ],  F_minus = sg F_theta
"""

import torch
from torch import Tensor, nn

from cmbench import anatomy
from cmbench.contracts import Anatomy, Teacher, Terms
from cmbench.equations import pf_ode, timesteps
from cmbench.model import Model
from cmbench.objectives import _scm
from cmbench.objectives._scm import Config as Config
from cmbench.randomness import StepRandom


class Objective(nn.Module):
    """sCD on TrigFlow: the velocity is the teacher's, whatever path the teacher was trained on."""

    paths = ("trigflow",)
    teacher = "denoiser"
    sampler = "consistency"
    switches = _scm.SWITCHES

    def __init__(self, config: Config, model: Model, teacher: Teacher, steps: int) -> None:
        super().__init__()
        _scm.check("scd", model)
        self.denoise = teacher.denoise  # the method alone: the teacher is no part of this module's state
        self.config, self.w_phi = config, _scm.log_weight(config)
        self.forwards = {**_scm.forwards(config), "teacher": 1.0}
        self.path, self.sigma_min, self.sigma_max = model.path, model.sigma_min, model.sigma_max

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        x_t, t, v = self._point(model, x_0, labels, random)
        r = timesteps.warm_up(step, cfg.tangent_warmup)
        with random.dropout():
            F, g = _scm.F_and_g(cfg, model, x_t, t, v, labels, r)
        return _scm.terms(cfg, self.w_phi, F, g, t, model.sigma_data, r)

    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of df/dt for some samples x_0 (b, ...) of the batch."""
        how = (self.config.tangent_method, self.config.tangent_step)
        return anatomy.of_f(model, *self._point(model, x_0, labels, random), labels, random, *how)

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 times, evenly spaced in log(sigma_data tan t)."""
        return self.path.t_of_noise_level(timesteps.log_edges(bins, self.sigma_min, self.sigma_max))

    @torch.no_grad()
    def _point(
        self, model: Model, x_0: Tensor, labels: Tensor | None, random: StepRandom
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t, t and the teacher's velocity. The labels are the student's, if it takes any."""
        t = _scm.time(self.config, model, x_0, random)
        x_t = model.path.x_t(x_0, random.noise(x_0), t)
        v = pf_ode.velocity(lambda x, sigma: self.denoise(x, sigma, labels), model.path)
        return x_t, t, v(x_t, t)
