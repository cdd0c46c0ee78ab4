"""Denoising score matching, which trains the teachers of distillation (Karras et al. 2022, table 1).

L = E[ lambda(sigma) / D ||D_theta(x_t, t) - x_0||^2 ],   log sigma ~ N(P_mean, P_std^2), t the path's time of sigma
With a learned log-variance u: E[ e^-u lambda / D ||.||^2 + u ] (Karras et al. 2024, section 2.3)
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from cmbench.config import Config as BaseConfig
from cmbench.config import LogDeviation, LogMean
from cmbench.contracts import HasLogVariance, Terms, has, weighted
from cmbench.equations import distance, timesteps, weighting
from cmbench.errors import UsageError
from cmbench.layers.log_weight import LogWeight
from cmbench.model import Model
from cmbench.randomness import StepRandom


class Config(BaseConfig):
    """[objective] kind = "denoise"."""

    P_mean: LogMean = Field(-1.2, description="mean of log sigma in training")
    P_std: LogDeviation = Field(1.2, description="standard deviation of log sigma in training")
    weighting: Literal["edm", "velocity"] = Field(
        "edm", description="lambda: edm, unit weight on F_theta; velocity, unit weight on dx/dt (flow matching)"
    )
    log_variance: Literal["none", "linear", "network"] = Field(
        "none", description="u: none, 0; linear, learned on an embedding of t; network, the network's own head (edm2)"
    )


class Objective(nn.Module):
    """The denoising objective on any path, lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 by default.

    On TrigFlow this is ||sigma_data F - v||^2 / sigma_data^2 (Lu & Song 2024, eq. 4). "velocity" is the squared error
    of dx/dt; on the linear path that is the loss of flow matching (Lipman et al. 2023).
    """

    paths = ("edm", "vp", "trigflow", "linear")
    teacher = "none"
    sampler = "ode"
    moves_nothing = True
    forwards = {"student": 3.0}  # noqa: RUF012

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        self.config, self.path = config, model.path
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max
        self.minus_u = LogWeight() if config.log_variance == "linear" else None
        if config.log_variance == "network":
            if not has(model.F_theta, HasLogVariance):
                raise UsageError("objective.log_variance: found 'network', allowed for this network: none or linear")
            model.F_theta.train_log_variance()

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg, path = self.config, model.path
        sigma = random.draw(
            "time", len(x_0), lambda B, generator: timesteps.log_normal(B, cfg.P_mean, cfg.P_std, generator, x_0.device)
        ).to(x_0.dtype)
        t = model.time(sigma)
        x_t = path.x_t(x_0, random.noise(x_0), t)
        with random.dropout():
            denoised = model.denoise(x_t, t, labels)
        if cfg.weighting == "edm":
            weight = weighting.edm(sigma, model.sigma_data)
        else:
            weight = weighting.velocity(t, path).to(sigma)
        loss = distance.l2(denoised, x_0)
        if cfg.log_variance == "none":
            return weighted(loss, weight, t)
        w = (-model.log_variance(t) if self.minus_u is None else self.minus_u(t)).to(loss)
        weight = weight.to(loss)
        total = weighting.adaptive(weight * loss, w).mean()
        return Terms(total, t, loss.detach(), weight * w.detach().exp())

    def after_step(self, model: Model, step: int) -> None:
        """There is no target to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 times, evenly spaced in the log of the noise level."""
        return self.path.t_of_noise_level(timesteps.log_edges(bins, self.sigma_min, self.sigma_max))
