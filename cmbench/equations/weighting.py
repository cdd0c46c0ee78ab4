"""Fixed weightings lambda of the loss over time. sigma, r (B,) noise levels with r < sigma -> (B,)."""

from typing import Literal

import torch
from torch import Tensor

from cmbench.equations.gaussian_path import GaussianPath

TrigWeighting = Literal["adaptive", "uniform", "cosine"]
PairWeighting = Literal["uniform", "edm", "inverse_interval"]


def uniform(sigma: Tensor) -> Tensor:
    """Return 1, as in the released code of Song et al. 2023."""
    return torch.ones_like(sigma)


def edm(sigma: Tensor, sigma_data: float) -> Tensor:
    """Return (sigma^2 + sigma_data^2) / (sigma sigma_data)^2, unit weight on F_theta (Karras et al. 2022, table 1)."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()


def velocity(t: Tensor, path: GaussianPath) -> Tensor:
    """Return (s' - s sigma' / sigma)^2, which turns the error of D into that of dx/dt (flow matching). (B,)."""
    return (path.ds(t) - path.s(t) * path.dsigma(t) / path.sigma(t)).square()


def inverse_interval(sigma: Tensor, r: Tensor) -> Tensor:
    """Return 1 / (sigma - r) (Song & Dhariwal 2023, section 3.1)."""
    return 1 / (sigma - r)


def of_pair(kind: PairWeighting, sigma: Tensor, r: Tensor, sigma_data: float) -> Tensor:
    """Return the weighting that a recipe names, for a pair of times r < sigma."""
    if kind == "inverse_interval":
        return inverse_interval(sigma, r)
    return edm(sigma, sigma_data) if kind == "edm" else uniform(sigma)


def adaptive(loss: Tensor, log_weight: Tensor) -> Tensor:
    """Return e^w loss - w, whose optimum is e^w = 1 / E[loss] at every time (Lu & Song 2024, section 4.2; EDM2 eq. 21).

    loss, log_weight (B,) -> (B,).
    """
    return log_weight.exp() * loss - log_weight
