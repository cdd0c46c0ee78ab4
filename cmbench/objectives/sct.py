"""Stabilised continuous-time consistency training, sCT (Lu & Song 2024, algorithm 1).

x_t = cos t x_0 + sin t z,  v = cos t z - sin t x_0,  tau ~ N(P_mean, P_std^2),  t = arctan(e^tau / sigma_data)
g = -cos^2 t (sigma_data F_minus - v) - r cos t sin t (x_t + sigma_data dF_minus/dt),  r = min(1, k / H)
g <- g / (||g|| + c)
L = E[ e^w_phi(t) / D ||F_theta(x_t / sigma_data, t) - F_minus - g||^2 - w_phi(t) ],  F_minus = sg F_theta
"""

from torch import Tensor

from cmbench.model import Model
from cmbench.objectives._scm import Config as Config
from cmbench.objectives._scm import F_and_g as F_and_g
from cmbench.objectives._scm import Point, Scm
from cmbench.randomness import StepRandom


class Objective(Scm):
    """sCT on TrigFlow: the velocity is that of the drawn noise and data."""

    teacher = "none"

    def point(self, model: Model, x_0: Tensor, labels: Tensor | None, random: StepRandom) -> Point:
        """Return x_t, t and the conditional velocity v; z = sigma_data eps."""
        t, eps = self.time(model, x_0, random), random.noise(x_0)
        return model.path.x_t(x_0, eps, t), t, model.path.conditional_velocity(x_0, eps, t)
