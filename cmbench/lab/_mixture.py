"""The problem of most claims: p(x_0) = .3 N(-.6, .15^2) + .7 N(.4, .25^2) in one dimension, all in closed form.

It uses only torch's elementary functions, not `cmbench.equations`, so that it can judge those. Noise levels n are those
of the EDM path, x = x_0 + n eps; x and n broadcast, in float64. In one dimension the PF-ODE is the monotone transport
between the distributions at two noise levels. So its flow is Q_to(C_n(x)), with the distribution functions C and
their inverses Q.
"""

import math

import numpy as np
import torch
from scipy.special import roots_hermitenorm
from torch import Tensor, nn

from cmbench.equations.oracle import GaussianMixture

WEIGHTS, MEANS, DEVIATIONS = (torch.tensor(x, dtype=torch.float64) for x in ((0.3, 0.7), (-0.6, 0.4), (0.15, 0.25)))
SIGMA_DATA = 0.5  # of the parameterisations; the deviation of the data is .51


def oracle() -> GaussianMixture:
    """Return the package's oracle of the same distribution."""
    return GaussianMixture(WEIGHTS, MEANS[:, None], DEVIATIONS.square()[:, None, None])


def sample(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw x_0 and eps, each (n, 1)."""
    generator = torch.Generator().manual_seed(seed)
    k = torch.multinomial(WEIGHTS, n, replacement=True, generator=generator)
    z, eps = torch.randn(2, n, 1, dtype=torch.float64, generator=generator)
    return MEANS[k, None] + DEVIATIONS[k, None] * z, eps


def pairs(nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x_0 and eps, each (2 nodes^2, 1), and weights (2 nodes^2,) of sum one, by Gauss-Hermite quadrature."""
    z, w = (torch.from_numpy(a) for a in roots_hermitenorm(nodes))
    w = w / w.sum()
    x_0 = (MEANS[:, None] + DEVIATIONS[:, None] * z)[:, :, None].expand(-1, -1, nodes)
    weight = WEIGHTS[:, None, None] * w[:, None] * w
    return x_0.reshape(-1, 1), z.expand_as(x_0).reshape(-1, 1), weight.reshape(-1)


def _by_component(x: Tensor, n: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x - m_k, the variances c_k^2 + n^2 and w_k N(x; m_k, c_k^2 + n^2), with a last axis for k."""
    gap, variance = x[..., None] - MEANS, DEVIATIONS.square() + n.square()[..., None]
    return gap, variance, WEIGHTS * torch.exp(-gap.square() / (2 * variance)) / torch.sqrt(2 * math.pi * variance)


def density(x: Tensor, n: Tensor) -> Tensor:
    """Return p_n(x)."""
    return _by_component(x, n)[2].sum(dim=-1)


def distribution(x: Tensor, n: Tensor) -> Tensor:
    """Return C_n(x)."""
    gap, variance, _ = _by_component(x, n)
    return (WEIGHTS * (0.5 + 0.5 * torch.erf(gap / torch.sqrt(2 * variance)))).sum(dim=-1)


def score(x: Tensor, n: Tensor) -> Tensor:
    """Return d log p_n(x) / dx."""
    gap, variance, p = _by_component(x, n)
    return -(p * gap / variance).sum(dim=-1) / p.sum(dim=-1)


def posterior_variance(x: Tensor, n: Tensor) -> Tensor:
    """Return Var(x_0 | x)."""
    gap, variance, p = _by_component(x, n)
    share, c_2 = p / p.sum(dim=-1, keepdim=True), DEVIATIONS.square()
    mean = MEANS + gap * c_2 / variance
    second = (share * (mean.square() + c_2 * (1 - c_2 / variance))).sum(dim=-1)
    return second - (share * mean).sum(dim=-1).square()


def transport(x: Tensor, n: Tensor, to: Tensor) -> Tensor:
    """Return the PF-ODE's flow of x from noise level n to noise level `to` (0 allowed), by bisection.

    A final step of Newton's method gives the result its derivatives in x and n.
    """
    level, to = distribution(x, n), to.expand_as(x).detach()
    root = _inverse(level.detach(), to)
    return root + (level - distribution(root, to)) / density(root, to)


def _inverse(level: Tensor, n: Tensor) -> Tensor:
    """Return the x with C_n(x) = level, to 3e-11."""
    low, high = torch.full_like(level, -500.0), torch.full_like(level, 500.0)
    for _ in range(45):
        middle = (low + high) / 2
        below = distribution(middle, n) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def quantiles(n: float, count: int = 41) -> Tensor:
    """Return `count` points x (count, 1) at noise level n, evenly spaced in probability from .005 to .995."""
    u = torch.from_numpy(np.linspace(0.005, 0.995, count))[:, None]
    return _inverse(u, torch.full_like(u, n))


class ExactF(nn.Module):
    """F* with which c_skip x + c_out F* is the exact consistency function, for edm scalings and c_noise = log n / 4."""

    def forward(self, y: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F*. y (B, 1) is c_in x, c_noise (B,) -> (B, 1)."""
        n = torch.exp(4 * c_noise)[:, None]
        root = torch.sqrt(n.square() + SIGMA_DATA**2)
        x = y * root
        return (transport(x, n, torch.zeros_like(n)) - x * SIGMA_DATA**2 / root.square()) * root / (SIGMA_DATA * n)
