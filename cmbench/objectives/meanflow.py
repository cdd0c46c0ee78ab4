"""MeanFlow: the average velocity between two times of the straight path (Geng et al. 2025).

z_t = (1 - t) x_0 + t eps,  v = eps - x_0,  r <= t
u_target = sg( v - (t - r) (v . grad_z u_theta + d_t u_theta) )
L = E[ ||u_theta(z_t, r, t) - u_target||^2 / sg(||.||^2 + c)^p ]
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench import anatomy
from cmbench.config import Config as BaseConfig
from cmbench.config import LogDeviation, LogMean, NonNegative, Positive
from cmbench.contracts import Anatomy, Terms
from cmbench.equations import tangent, timesteps
from cmbench.equations.gaussian_path import like
from cmbench.equations.tangent import Method
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.randomness import StepRandom


class Config(BaseConfig):
    """[objective] kind = "meanflow"."""

    idle = {"tangent_step": ("tangent_method", ("dual", "jvp"))}  # noqa: RUF012

    P_mean: LogMean = Field(-0.4, description="mean of the logit of t and of r")
    P_std: LogDeviation = Field(1.0, description="standard deviation of the logit of t and of r")
    share_apart: float = Field(0.25, ge=0, le=1, description="share of the batch with r < t; the rest is flow matching")
    p: NonNegative = Field(1.0, description="power of the adaptive weight 1 / (||error||^2 + c)^p; 0: plain squares")
    c: Positive = Field(1e-3, description="c of the adaptive weight")
    tangent_method: Method = Field("dual", description="of the derivative: dual, jvp or finite_difference")
    tangent_step: Positive = Field(tangent.STEP, description="step of finite_difference, in t")


class Objective(nn.Module):
    """MeanFlow on the linear path; f(z_t, t) = z_t - t u(z_t, 0, t).

    The paper has r = t for three quarters of the batch on ImageNet, and for one quarter on CIFAR-10; so do the two
    public codes. `share_apart` is one minus that share. The weight's p and c are 1 and .01 in the code for ImageNet,
    and .75 and .001 in the code for CIFAR-10. At p = 1 and small c the weight falls as fast as the square grows. The
    loss then seeks the mode of the velocity instead of its mean, which shows in few dimensions.
    """

    paths = ("linear",)
    teacher = "none"
    sampler = "average_velocity"
    moves_nothing = True
    times = 2

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        p = model.parameterisation
        if p.scalings != "linear" or p.noise != "identity":
            raise UsageError(
                f"path.scalings, path.c_noise: found '{p.scalings}', '{p.noise}', "
                "allowed for objective 'meanflow': 'linear', 'identity'"
            )
        self.config, self.path = config, model.path
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.forwards = {"student": 3.0, "tangent": tangent.FORWARDS[config.tangent_method]}

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        z_t, t, r, v = self._point(model, x_0, random)
        with random.dropout():
            u, dudt = model.F_and_derivative(
                z_t, t, v, torch.ones_like(t), labels, r, method=cfg.tangent_method, h=cfg.tangent_step
            )
        u_target = v - like(t - r, v) * dudt
        loss = (u - u_target).square().flatten(1).sum(dim=1)
        weight = (loss.detach() + cfg.c).pow(-cfg.p)
        return Terms((weight * loss).mean(), t, loss.detach(), weight, tangent.norm(u.detach() - u_target), r=r)

    @torch.no_grad()
    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of the error u - v + (t - r) du/dt for some samples: stable (u - v), spatial, temporal.

        The factors of the temporal part are those of d_t u, without t - r. As t moves, c_noise = t and t - r both move
        at rate 1.
        """
        z_t, t, r, v = self._point(model, x_0, random)
        how = (self.config.tangent_method, self.config.tangent_step)
        network, interval = (z_t, torch.stack([t, t - r], dim=1), labels), t - r
        with random.dropout(), model.precision(z_t):
            u, spatial = tangent.value_and_derivative(model.network(), network, (v, None, None), *how)
        with random.dropout(), model.precision(z_t):
            _, temporal = tangent.value_and_derivative(
                model.network(), network, (None, torch.ones_like(network[1]), None), *how
            )
        values = {
            "stable": tangent.norm(u - v),
            "spatial": interval * tangent.norm(spatial),
            "temporal": interval * tangent.norm(temporal),
        }
        return Anatomy(t, values | anatomy.factors(model, torch.ones_like(t), temporal))

    def after_step(self, model: Model, step: int) -> None:
        """The target is the student itself: nothing to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 times, evenly spaced in the logit of t."""
        return self.path.t_of_noise_level(timesteps.log_edges(bins, self.sigma_min, self.sigma_max))

    def _point(self, model: Model, x_0: Tensor, random: StepRandom) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return z_t, t, r and v. logit t = log(t / (1 - t)) is the log of the noise level."""
        cfg, n, device = self.config, len(x_0), x_0.device

        def pairs(B: int, generator: torch.Generator) -> Tensor:
            return timesteps.log_normal(2 * B, cfg.P_mean, cfg.P_std, generator, device).view(2, B).T

        draws = random.draw("time", n, pairs)
        t, r = model.time(draws.amax(dim=1)), model.time(draws.amin(dim=1))
        u = random.draw("apart", n, lambda B, generator: torch.rand(B, generator=generator, device=device))
        apart = u < cfg.share_apart
        eps = random.noise(x_0)
        v = model.path.conditional_velocity(x_0, eps, t)
        return model.path.x_t(x_0, eps, t), t, torch.where(apart, r, t), v
