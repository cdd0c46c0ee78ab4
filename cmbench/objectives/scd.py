"""Stabilised continuous-time consistency distillation, sCD (Lu & Song 2024, algorithm 1).

x_t = cos t x_0 + sin t z,  v = sigma_data F_pre(x_t / sigma_data, t),  tau ~ N(P_mean, P_std^2)
t = arctan(e^tau / sigma_data)
g = -cos^2 t (sigma_data F_minus - v) - r cos t sin t (x_t + sigma_data dF_minus/dt),  r = min(1, k / H)
g <- g / (||g|| + c)
L = E[ e^w_phi(t) / D ||F_theta(x_t / sigma_data, t) - F_minus - g||^2 - w_phi(t) ],  F_minus = sg F_theta
"""

import torch
from torch import Tensor

from cmbench.contracts import Teacher
from cmbench.equations import pf_ode
from cmbench.model import Model
from cmbench.objectives._scm import Config as Config
from cmbench.objectives._scm import Point, Scm
from cmbench.randomness import StepRandom


class Objective(Scm):
    """sCD on TrigFlow: the velocity is the teacher's, whatever path the teacher was trained on."""

    teacher = "denoiser"

    def __init__(self, config: Config, model: Model, teacher: Teacher, steps: int) -> None:
        super().__init__(config, model, teacher, steps)
        self.denoise = teacher.denoise  # only the method: the teacher is not part of this module's state
        self.forwards["teacher"] = 1.0

    @torch.no_grad()
    def point(self, model: Model, x_0: Tensor, labels: Tensor | None, random: StepRandom) -> Point:
        """Return x_t, t and the teacher's velocity. The labels are the student's, if it takes any."""
        t = self.time(model, x_0, random)
        x_t = model.path.x_t(x_0, random.noise(x_0), t)
        v = pf_ode.velocity(lambda x, sigma: self.denoise(x, sigma, labels), model.path)
        return x_t, t, v(x_t, t)
