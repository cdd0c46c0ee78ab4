"""The consistency function of a one-dimensional mixture in closed form, as a network.

In one dimension the PF-ODE is the monotone transport between the laws at two noise levels: f*(x, n) = Q_epsilon(C_n(x))
with the distribution functions C and their inverses Q.
"""

import math

import torch
from torch import nn

from cmbench.equations.oracle import GaussianMixture

WEIGHTS, MEANS, DEVIATIONS = (torch.tensor(x, dtype=torch.float64) for x in ((0.3, 0.7), (-0.6, 0.4), (0.15, 0.25)))


def oracle():
    return GaussianMixture(WEIGHTS, MEANS[:, None], DEVIATIONS.square()[:, None, None])


def sample(n, seed=0):
    return oracle().sample(n, torch.Generator().manual_seed(seed))[0]


def distribution(x, n):
    """C_n(x) for x, n (B, 1)."""
    z = (x - MEANS) / torch.sqrt(DEVIATIONS.square() + n.square())
    return (WEIGHTS * (0.5 + 0.5 * torch.erf(z / math.sqrt(2)))).sum(dim=1, keepdim=True)


def density(x, n):
    variance = DEVIATIONS.square() + n.square()
    terms = WEIGHTS * torch.exp(-((x - MEANS).square()) / (2 * variance)) / torch.sqrt(2 * math.pi * variance)
    return terms.sum(dim=1, keepdim=True)


def transport(x, n, epsilon):
    """f*(x, n) by bisection; one step of Newton's method on top carries the derivatives in x and n."""
    level, at_epsilon = distribution(x, n), torch.full((len(x), 1), float(epsilon), dtype=torch.float64)
    low, high = torch.full_like(at_epsilon, -20.0), torch.full_like(at_epsilon, 20.0)
    for _ in range(70):
        middle = (low + high) / 2
        below = distribution(middle, at_epsilon) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    root = (low + high) / 2
    return root + (level - distribution(root, at_epsilon)) / density(root, at_epsilon)


NOISE_LEVELS = {
    "log": lambda c: torch.exp(4 * c),
    "trigflow": lambda t: 0.5 * torch.tan(t),
    "linear": lambda t: t / (1 - t),
}


class Network(nn.Module):
    """F* with which c_skip x + c_out F* is the exact consistency function; sigma_data is one half.

    Args:
        clock: what c_noise is, one of NOISE_LEVELS.
        scalings: edm, trigflow or linear.
        epsilon: noise level at which f is the identity.
    """

    def __init__(self, clock, scalings, epsilon):
        super().__init__()
        self.clock, self.scalings, self.epsilon = clock, scalings, epsilon

    def forward(self, y, c_noise, labels=None):
        n, epsilon = NOISE_LEVELS[self.clock](c_noise)[:, None], self.epsilon
        if self.scalings == "linear":
            x = y * (1 + n)
            return (x - (1 + n) * transport(x, n, epsilon)) / n
        root = torch.sqrt(n.square() + 0.25)
        x, sign = y * root, 1 if self.scalings == "edm" else -1
        rest = transport(x, n, epsilon) - x * 0.25 / ((n - epsilon).square() + 0.25)
        return rest * root / (sign * 0.5 * (n - epsilon))
