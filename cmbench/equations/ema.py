"""Exponential moving averages of weights: theta_minus <- mu theta_minus + (1 - mu) theta (Song et al. 2023, alg. 2)."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Follower:
    """A running average of a model's weights. It lists the tensors once: walking the modules costs more than averaging.

    Args:
        average: a copy of the model, changed in place.
        model: the model to follow.
    """

    def __init__(self, average: nn.Module, model: nn.Module) -> None:
        self._mine: list[Tensor] = list(average.parameters())
        self._theirs: list[Tensor] = list(model.parameters())
        self._buffers = list(zip(average.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, mu: float) -> None:
        """Move the parameters by mu in [0, 1): theta_minus <- mu theta_minus + (1 - mu) theta. Copy the buffers."""
        get_ema_multi_avg_fn(mu)(self._mine, self._theirs, None)
        for copied, buffer in self._buffers:
            copied.copy_(buffer)


def power_gamma(sigma_rel: float) -> float:
    """Return gamma of the power-function profile whose relative width is sigma_rel (Karras et al. 2024, eq. 123).

    Solves sigma_rel = (gamma + 1)^(1/2) (gamma + 2)^(-1) (gamma + 3)^(-1/2); sigma_rel in (0, .28).
    """
    from scipy.optimize import brentq  # here because it is slow to import and most runs do not need it

    return float(brentq(lambda g: (g + 1) ** 0.5 / (g + 2) / (g + 3) ** 0.5 - sigma_rel, 0.0, 1e9))


def power_mu(k: int, gamma: float) -> float:
    """Return the decay (1 - 1/k)^(gamma + 1) of the power-function profile at step k >= 1 (ibid., eq. 127)."""
    return (1 - 1 / k) ** (gamma + 1)
