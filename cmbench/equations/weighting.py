"""Fixed weightings lambda of the loss over time. sigma, r (B,) noise levels with r < sigma -> (B,)."""

from typing import Literal

import torch
from torch import Tensor

PairWeighting = Literal["uniform", "edm", "inverse_interval"]


def uniform(sigma: Tensor) -> Tensor:
    """Return 1: what consistency models were released with (Song et al. 2023)."""
    return torch.ones_like(sigma)


def edm(sigma: Tensor, sigma_data: float) -> Tensor:
    """Return (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, unit weight on F_theta (Karras et al. 2022, table 1)."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def inverse_interval(sigma: Tensor, r: Tensor) -> Tensor:
    """Return 1 / (sigma - r) (Song & Dhariwal 2023, section 3.1)."""
    return 1 / (sigma - r)


def of_pair(kind: PairWeighting, sigma: Tensor, r: Tensor, sigma_data: float) -> Tensor:
    """Return the weighting that a recipe names, for a pair of times r < sigma."""
    if kind == "inverse_interval":
        return inverse_interval(sigma, r)
    return edm(sigma, sigma_data) if kind == "edm" else uniform(sigma)
