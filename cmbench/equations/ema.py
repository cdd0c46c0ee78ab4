"""Exponential moving averages of weights: theta_minus <- mu theta_minus + (1 - mu) theta (Song et al. 2023, alg. 2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def half_life_mu(batch_size: int, half_life: float, images: float = 0.0, ramp_up: float = 0.0) -> float:
    """Return the decay 0.5^(B / H) of a half-life of H images (Karras et al. 2022, EDM's training loop).

    Args:
        batch_size: B.
        half_life: H > 0.
        images: seen before this step.
        ramp_up: H is at most this share of them, so the first step forgets the initial weights; 0: no ramp-up.
    """
    H = min(half_life, ramp_up * images) if ramp_up else half_life
    return 0.5 ** (batch_size / H) if H else 0.0


@dataclass(frozen=True)
class Profiles:
    """Power-function averages: each gives theta(s) the weight (gamma + 1) s^gamma / t^(gamma + 1) at times s < t.

    The averages that `power_mu` makes are exactly of this form, with theta(s) that of the step s ends.

    Attributes:
        t: when each average was taken, in steps, (n,) float64.
        gamma: of each, (n,) float64.
    """

    t: Tensor
    gamma: Tensor

    @classmethod
    def of_widths(cls, t: Sequence[float], sigma_rel: Sequence[float]) -> "Profiles":
        """Return the profiles of averages taken at times t >= 1, whose relative widths are sigma_rel."""
        gammas = {width: power_gamma(width) for width in set(sigma_rel)}
        gamma = [gammas[width] for width in sigma_rel]
        return cls(torch.tensor(t, dtype=torch.float64), torch.tensor(gamma, dtype=torch.float64))

    def inner(self, other: "Profiles") -> Tensor:
        """Return the integral of p_i(s) q_j(s) over s, (n, m), of each with each (Karras et al. 2024, appendix C).

        It is (a + 1) (b + 1) / (a + b + 1) r / t_max, with r = (t_min / t_max)^g, g the exponent of the earlier one.
        """
        a, b, s, t = self.gamma[:, None], other.gamma[None], self.t[:, None], other.t[None]
        ratio = torch.where(s < t, (s / t) ** b, (t / s) ** a)
        return (a + 1) * (b + 1) / (a + b + 1) * ratio / torch.maximum(s, t)


def combination(kept: Profiles, wanted: Profiles) -> tuple[Tensor, Tensor]:
    """Return how to combine kept averages so that the sum is nearest to each wanted one (ibid.).

    The least-squares problem min |sum_i x_i p_i - q|^2 has the normal equations A x = b, with inner products alone. As
    there, x is then scaled to sum up to 1. Profiles are scaled to norm 1 before, for the condition of A.

    Args:
        kept: the averages at hand, n of them.
        wanted: m averages, at times no later than the last kept one.

    Returns:
        x (n, m), and |sum_i x_i p_i - q| / |q| (m,): 0 means exact. The averages differ by at most this times
        |q| |theta - c|, with the norm over all steps and any constant c.
    """
    A, b = kept.inner(kept), kept.inner(wanted)
    scale = A.diagonal().sqrt()[:, None]
    x = torch.linalg.lstsq(A / scale / scale.T, b / scale, rcond=1e-15, driver="gelsd").solution / scale
    x = x / x.sum(dim=0)
    norm = wanted.inner(wanted).diagonal()
    squares = torch.einsum("im,ij,jm->m", x, A, x) - 2 * (x * b).sum(dim=0) + norm
    return x, (squares.clamp(min=0) / norm).sqrt()


def reachable(kept: Profiles, t: float, within: float) -> tuple[float, float] | None:
    """Return the shortest and the longest sigma_rel that kept averages give at time t, with errors up to `within`.

    All widths between the two are that near. They are on a grid of 200; None if none is.
    """
    widths = torch.logspace(math.log10(0.002), math.log10(0.2799), 200, dtype=torch.float64).tolist()
    _, errors = combination(kept, Profiles.of_widths([t] * len(widths), widths))
    near = [error <= within for error in errors.tolist()]
    best = int(errors.argmin())
    if not near[best]:
        return None
    low = best - next(i for i, fits in enumerate([*reversed(near[: best + 1]), False]) if not fits) + 1
    high = best + next(i for i, fits in enumerate([*near[best:], False]) if not fits) - 1
    return widths[low], widths[high]
