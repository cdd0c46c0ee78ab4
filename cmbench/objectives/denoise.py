"""Denoising score matching: trains the teachers of distillation (Karras et al. 2022, table 1).

L = E[ lambda(sigma) / D ||D_theta(x_0 + sigma eps, sigma) - x_0||^2 ],   log sigma ~ N(P_mean, P_std^2)
"""

from pydantic import Field
from torch import Tensor, nn

from cmbench.config import Config as BaseConfig
from cmbench.config import Positive
from cmbench.equations import distance, timesteps, weighting
from cmbench.networks._model import Model
from cmbench.objectives._terms import Terms, weighted
from cmbench.randomness import StepRandom


class Config(BaseConfig):
    """[objective] kind = "denoise"."""

    P_mean: float = Field(-1.2, description="mean of log sigma in training")
    P_std: Positive = Field(1.2, description="standard deviation of log sigma in training")


class Objective(nn.Module):
    """EDM's objective on the EDM path, weighted by (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""

    paths = ("edm",)
    needs_teacher = False
    sampler = "ode"

    def __init__(self, config: Config, model: Model, teacher: object, steps: int) -> None:
        super().__init__()
        self.config = config
        self.sigma_min, self.sigma_max = model.sigma_min, model.sigma_max

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) at `step`."""
        cfg = self.config
        sigma = timesteps.log_normal(len(x_0), cfg.P_mean, cfg.P_std, random.generator("time"), x_0.device).to(
            x_0.dtype
        )
        x_t = model.path.x_t(x_0, random.noise(x_0), sigma)
        with random.dropout():
            denoised = model.denoise(x_t, sigma, labels)
        return weighted(distance.l2(denoised, x_0), weighting.edm(sigma, model.sigma_data), sigma)

    def after_step(self, model: Model, step: int) -> None:
        """There is no target to move."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 noise levels, evenly spaced in log sigma."""
        edges = timesteps.karras_grid(2, self.sigma_min, self.sigma_max).log()
        return edges[0].lerp(edges[1], edges.new_tensor([i / bins for i in range(bins + 1)])).exp()
