"""Noise levels: the Karras grid, the consistency-model curricula, the log-normal proposal.

Grids ascend as in the papers of consistency models, sigma_1 = sigma_min < ... < sigma_N = sigma_max; EDM's code
and openai/consistency_models index the same values downwards.
"""

import math

import torch
from torch import Tensor


def karras_grid(
    N: int, sigma_min: float, sigma_max: float, rho: float = 7.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return the N >= 2 noise levels of Karras et al. 2022 (eq. 5), ascending, both ends exact. Shape (N,)."""
    u = torch.linspace(0, 1, N, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    grid = (low + u * (high - low)) ** rho
    grid[0], grid[-1] = sigma_min, sigma_max
    return grid.to(dtype)


def N_of_k(k: int, K: int, s_0: int, s_1: int) -> int:  # noqa: N802
    """Return the number of grid points at step k of K: s_0 at first, s_1 + 1 at last (Song et al. 2023, app. C).

    N(k) = ceil(sqrt(k / K ((s_1 + 1)^2 - s_0^2) + s_0^2) - 1) + 1, in integers: a rounded root may be one too high.
    """
    under_root = -(-(k * ((s_1 + 1) ** 2 - s_0**2) + K * s_0**2) // K)  # rounded up, as the root will be
    return math.isqrt(under_root - 1) + 1


def mu_of_k(N: int, s_0: int, mu_0: float) -> float:
    """Return the target's EMA decay mu(k) = exp(s_0 log(mu_0) / N(k)) (Song et al. 2023, app. C).

    openai/consistency_models divides by N(k) - 1 instead; the paper's form stands here.
    """
    return math.exp(s_0 * math.log(mu_0) / N)


def log_normal(n: int, P_mean: float, P_std: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw n noise levels with log sigma ~ N(P_mean, P_std^2) (Karras et al. 2022, table 1). Shape (n,)."""
    return torch.exp(P_mean + P_std * torch.randn(n, generator=generator, device=device))
