"""A minimal network for when no real one is needed: to look at an objective's schedules."""

import torch
from torch import Tensor, nn

from cmbench.config import Config as BaseConfig


class Config(BaseConfig):
    """[network] kind = "cmbench.networks._stand_in:Network"."""

    class_conditional: bool = False


class Network(nn.Module):
    """F_theta = a x + b c_noise with a = b = 0 at first, like a network whose last layer starts at zero."""

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, ...), c_noise (B,) or (B, times) -> (B, ...)."""
        c = c_noise.flatten(1).sum(dim=1) if c_noise.ndim > 1 else c_noise
        return self.a * x + self.b * c.view(-1, *[1] * (x.ndim - 1)).to(x.dtype)
