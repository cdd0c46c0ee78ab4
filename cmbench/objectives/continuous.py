"""The raw continuous-time objective on any path (Lu & Song 2024, eq. 3; on the EDM path Song et al. 2023, theorem 6).

It is known to be unstable, and is here to show why.

L = E[ w(t) f_theta(x_t, t)^T df_theta-/dt ],   df/dt = grad_x f dx_t/dt + d_t f,   theta- = sg theta
dx_t/dt is the conditional velocity (training), or the teacher's (distillation, if the recipe has a [teacher])
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cmbench import anatomy
from cmbench.config import Config as BaseConfig
from cmbench.config import LogDeviation, LogMean, Positive
from cmbench.contracts import Anatomy, Teacher, Terms
from cmbench.equations import boundary, pf_ode, tangent, timesteps, weighting
from cmbench.equations.tangent import Method
from cmbench.model import Model
from cmbench.randomness import StepRandom


class Config(BaseConfig):
    """[objective] kind = "continuous"."""

    idle = {"tangent_step": ("tangent_method", ("dual", "jvp"))}  # noqa: RUF012

    P_mean: LogMean = Field(-1.1, description="mean of log sigma in training")
    P_std: LogDeviation = Field(2.0, description="standard deviation of log sigma in training")
    form: Literal["inner_product", "residual_square"] = Field(
        "inner_product", description="inner_product, or residual_square: 1/2 ||f - sg(f - df/dt)||^2, of equal gradient"
    )
    weighting: Literal["uniform", "edm", "inverse_sigma"] = Field(
        "uniform", description="w: uniform, edm or inverse_sigma"
    )
    reduction: Literal["sum", "mean"] = Field("sum", description="over the elements of a sample: sum or mean")
    tangent_method: Method = Field("dual", description="of the derivative: dual, jvp or finite_difference")
    tangent_step: Positive = Field(tangent.STEP, description="step of finite_difference, in the path's time")


class Objective(nn.Module):
    """The continuous-time objective on the model's own path and clock."""

    paths = ("edm", "vp", "trigflow", "linear")
    teacher = "optional"
    sampler = "consistency"
    moves_nothing = True

    def __init__(self, config: Config, model: Model, teacher: Teacher | None, steps: int) -> None:
        super().__init__()
        self.config = config
        self.denoise = None if teacher is None else teacher.denoise
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.path = model.path
        self.forwards = {"student": 3.0, "tangent": tangent.FORWARDS[config.tangent_method]}
        if teacher is not None:
            self.forwards["teacher"] = 1.0

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg, p = self.config, model.parameterisation
        x_t, t, dxdt = self._point(model, x_0, labels, random)
        with random.dropout():
            F, dF = model.F_and_derivative(
                x_t, t, dxdt, torch.ones_like(t), labels, method=cfg.tangent_method, h=cfg.tangent_step
            )
        f_t, rates = boundary.combined(p.of_f(t), x_t, F), p.d_of_f(t)
        with torch.no_grad():
            dfdt = boundary.combined(rates, x_t, F) + boundary.combined(p.of_f(t), dxdt, dF)

        residual = cfg.form == "residual_square"
        products = 0.5 * (f_t - (f_t - dfdt).detach()).square() if residual else f_t * dfdt
        loss = products.flatten(1).sum(dim=1) if cfg.reduction == "sum" else products.flatten(1).mean(dim=1)
        w = self._weight(p.path.noise_level(t), model.sigma_data).to(loss.dtype)
        return Terms((w * loss).mean(), t, loss.detach(), w, tangent.norm(dfdt))

    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of df/dt for some samples x_0 (b, ...) of the batch."""
        how = (self.config.tangent_method, self.config.tangent_step)
        return anatomy.of_f(model, *self._point(model, x_0, labels, random), labels, random, *how)

    def after_step(self, model: Model, step: int) -> None:
        """There is no target to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 times, evenly spaced in the log of the noise level."""
        return self.path.t_of_noise_level(timesteps.log_edges(bins, self.sigma_min, self.sigma_max))

    def _point(
        self, model: Model, x_0: Tensor, labels: Tensor | None, random: StepRandom
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return x_t, t and the velocity dx_t/dt."""
        cfg = self.config
        sigma = random.draw(
            "time", len(x_0), lambda B, generator: timesteps.log_normal(B, cfg.P_mean, cfg.P_std, generator, x_0.device)
        )
        t = model.time(sigma.clamp_min(model.parameterisation.epsilon))  # f is not defined below epsilon
        eps = random.noise(x_0)
        x_t = model.path.x_t(x_0, eps, t)
        if (denoise := self.denoise) is None:
            return x_t, t, model.path.conditional_velocity(x_0, eps, t)
        with torch.no_grad():
            return x_t, t, pf_ode.velocity(lambda x, sigma: denoise(x, sigma, labels), model.path)(x_t, t)

    def _weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        if self.config.weighting == "inverse_sigma":
            return 1 / sigma
        return weighting.edm(sigma, sigma_data) if self.config.weighting == "edm" else weighting.uniform(sigma)
