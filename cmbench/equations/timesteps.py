"""Noise levels and times: the Karras grid, the curricula of consistency models, the proposals of t, and t -> r.

Grids ascend, as in the papers on consistency models: sigma_1 = sigma_min < ... < sigma_N = sigma_max. EDM's code and
openai/consistency_models index the same values downwards.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Adjustment = Literal["sigmoid", "constant"]


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
    """Return the number of grid points at step k of K, from s_0 to s_1 + 1 (Song et al. 2023, app. C).

    N(k) = ceil(sqrt(k / K ((s_1 + 1)^2 - s_0^2) + s_0^2) - 1) + 1, in integers, as a rounded root may be one too high.
    """
    under_root = -(-(k * ((s_1 + 1) ** 2 - s_0**2) + K * s_0**2) // K)  # rounded up, as the root will be
    return math.isqrt(under_root - 1) + 1


def mu_of_k(N: int, s_0: int, mu_0: float) -> float:
    """Return the target's EMA decay mu(k) = exp(s_0 log(mu_0) / N(k)) (Song et al. 2023, app. C).

    This is the paper's form; openai/consistency_models divides by N(k) - 1 instead.
    """
    return math.exp(s_0 * math.log(mu_0) / N)


def log_normal(n: int, P_mean: float, P_std: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw n noise levels with log sigma ~ N(P_mean, P_std^2) (Karras et al. 2022, table 1). Shape (n,)."""
    return torch.exp(P_mean + P_std * torch.randn(n, generator=generator, device=device))


def N_doubling(k: int, K: int, s_0: int, s_1: int) -> int:  # noqa: N802
    """Return iCT's number of grid points min(s_0 2^floor(k / K'), s_1) + 1 (Song & Dhariwal 2023, section 3.4).

    K' = floor(K / (log2 floor(s_1 / s_0) + 1)), so that all doublings last equally long.
    """
    K_prime = max(1, int(K / (math.log2(s_1 // s_0) + 1)))
    return min(s_0 * 2 ** min(k // K_prime, 60), s_1) + 1


def discretised_log_normal(grid: Tensor, P_mean: float, P_std: float) -> Tensor:
    """Return iCT's probability of each interval of an ascending grid (N,) (Song & Dhariwal 2023, section 3.5).

    p(i) ~ erf((log sigma_{i+1} - P_mean) / (sqrt(2) P_std)) - erf((log sigma_i - P_mean) / (sqrt(2) P_std)). (N - 1,).
    """
    p = torch.erf((grid.double().log() - P_mean) / (math.sqrt(2) * P_std)).diff()
    return p / p.sum()


def ect_stage(k: int, K: int, stages: int) -> int:
    """Return the stage of step k of K, from 0 to stages - 1, all equally long (Geng et al. 2024, section 4)."""
    return min(stages - 1, k * stages // K)


def ect_r(t: Tensor, stage: int, q: float, k: float, b: float, adjustment: Adjustment) -> Tensor:
    """Return ECT's r = max(0, t (1 - n(t) / q^(stage + 1))), the other end of the interval. (B,) -> (B,).

    n(t) = 1 + k sigmoid(-b t), or 1 for "constant" (Geng et al. 2024, section 3 and appendix; locuslab/ect).
    """
    n = 1 + k * torch.sigmoid(-b * t) if adjustment == "sigmoid" else torch.ones_like(t)
    return (t * (1 - n / q ** (stage + 1))).clamp_min(0)


def shortest_interval(dtype: torch.dtype) -> float:
    """Return the least (t - r) / t that a dtype resolves: eight of its steps, so that t - r is accurate to 10%.

    At half a step r = t (1 - (t - r) / t) is rounded to t, and 1 / (t - r) is infinite.
    """
    return 8 * torch.finfo(dtype).eps


def warm_up(k: int, H: int) -> float:
    """Return sCM's r = min(1, k / H), 1 for H = 0 (Lu & Song 2024, algorithm 1)."""
    return min(1.0, k / H) if H else 1.0


def log_edges(bins: int, sigma_min: float, sigma_max: float) -> Tensor:
    """Return bins + 1 noise levels, evenly spaced in log sigma, in float64."""
    return torch.linspace(math.log(sigma_min), math.log(sigma_max), bins + 1, dtype=torch.float64).exp()


def truncated_student_t(points: int, nu: float, scale: float, low: float, high: float) -> Tensor:
    """Return `points` quantiles, evenly spaced in probability, of log t = scale T_nu truncated to [log low, log high].

    This is the proposal of truncated consistency training (Lee et al. 2024): heavy tails, most mass at the lower end.
    """
    from scipy import stats  # here because it is slow to import and most runs do not need it

    law = stats.t(nu)
    ends = law.cdf(np.log([low, high]) / scale)
    quantiles = np.exp(scale * law.ppf(np.linspace(ends[0], ends[1], points)))
    quantiles[0], quantiles[-1] = low, high
    return torch.from_numpy(quantiles)


def of_quantiles(quantiles: Tensor, u: Tensor) -> Tensor:
    """Interpolate evenly spaced quantiles at probabilities u in [0, 1). (points,), (B,) -> (B,)."""
    place = u * (len(quantiles) - 1)
    below = place.long().clamp_max(len(quantiles) - 2)
    return torch.lerp(quantiles[below], quantiles[below + 1], place - below)
