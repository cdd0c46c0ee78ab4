"""Exponential moving averages of weights: theta_minus <- mu theta_minus + (1 - mu) theta (seed section 2.1)."""

import torch
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, mu: float) -> None:
    """Move `average` towards `model` in place: parameters by mu in [0, 1), buffers copied."""
    mine: list[Tensor] = list(average.parameters())
    theirs: list[Tensor] = list(model.parameters())
    get_ema_multi_avg_fn(mu)(mine, theirs, None)
    for copied, buffer in zip(average.buffers(), model.buffers(), strict=True):
        copied.copy_(buffer)


def power_gamma(sigma_rel: float) -> float:
    """Return gamma of the power-function profile whose relative width is sigma_rel (Karras et al. 2024, eq. 123).

    Solves sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^(-1) (gamma + 3)^(-1/2); sigma_rel in (0, .28).
    """
    return float(brentq(lambda g: (g + 1) ** 0.5 / (g + 2) / (g + 3) ** 0.5 - sigma_rel, 0.0, 1e9))


def power_mu(k: int, gamma: float) -> float:
    """Return the decay (1 - 1/k)^(gamma + 1) of the power-function profile at step k >= 1 (ibid., eq. 127)."""
    return (1 - 1 / k) ** (gamma + 1)
