"""Stabilised continuous-time consistency training, sCT (Lu & Song 2024, algorithm 1; seed sections 5.1 to 5.4).

x_t = cos t x_0 + sin t z,  v = cos t z - sin t x_0,  tau ~ N(P_mean, P_std^2),  t = arctan(e^tau / sigma_data)
g = -cos^2 t (sigma_data F_minus - v) - r cos t sin t (x_t + sigma_data dF_minus/dt),  r = min(1, k / H)
g <- g / (||g|| + c)
L = E[ e^w_phi(t) / D ||F_theta(x_t / sigma_data, t) - F_minus - g||^2 - w_phi(t) ],  F_minus = sg F_theta
"""

from torch import Tensor, nn

from cmbench import anatomy
from cmbench.contracts import Anatomy, Terms
from cmbench.equations import timesteps
from cmbench.model import Model
from cmbench.objectives import _scm
from cmbench.objectives._scm import Config as Config
from cmbench.objectives._scm import F_and_g as F_and_g
from cmbench.randomness import StepRandom


class Objective(nn.Module):
    """sCT on TrigFlow: the velocity is that of the noise and data at hand."""

    paths = ("trigflow",)
    teacher = "none"
    sampler = "consistency"
    switches = _scm.SWITCHES

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        _scm.check("sct", model)
        self.config, self.w_phi, self.forwards = config, _scm.log_weight(config), _scm.forwards(config)
        self.path, self.sigma_min, self.sigma_max = model.path, model.sigma_min, model.sigma_max

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        x_t, t, v = self._point(model, x_0, random)
        r = timesteps.warm_up(step, cfg.tangent_warmup)
        with random.dropout():
            F, g = F_and_g(cfg, model, x_t, t, v, labels, r)
        return _scm.terms(cfg, self.w_phi, F, g, t, model.sigma_data, r)

    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of df/dt for some samples x_0 (b, ...) of the batch."""
        how = (self.config.tangent_method, self.config.tangent_step)
        return anatomy.of_f(model, *self._point(model, x_0, random), labels, random, *how)

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 times, evenly spaced in log(sigma_data tan t)."""
        return self.path.t_of_noise_level(timesteps.log_edges(bins, self.sigma_min, self.sigma_max))

    def _point(self, model: Model, x_0: Tensor, random: StepRandom) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t, t and the conditional velocity v; z = sigma_data eps."""
        t, eps = _scm.time(self.config, model, x_0, random), random.noise(x_0)
        return model.path.x_t(x_0, eps, t), t, model.path.conditional_velocity(x_0, eps, t)
