"""The derivative of a time embedding and its scale (Lu & Song 2024, section 4.1)."""

import math

import torch
from torch import Tensor, nn

from cmbench.equations.tangent import value_and_derivative
from cmbench.lab import _fit
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.layers.embedding import Fourier, Positional
from cmbench.randomness import forked_seed

SOURCE = "Lu & Song 2024, section 4.1"
CLAIM = "d emb / dc grows with the Fourier scale s, and positional embeddings amount to s of about .02"
SETTING = "embeddings of 64 and 4,096 channels, 201 times c in [0, pi / 2], scales .02 to 16, norms over the channels"
SCALES = (0.02, 0.1, 0.5, 2.0, 16.0)


def measure() -> Finding:
    """Measure derivatives in forward mode, and the scale at which both embeddings are equally steep."""
    c = torch.linspace(0, math.pi / 2, 201, dtype=torch.float64)
    fourier = [_norm(_fourier(4096, s), c) for s in SCALES]
    turns = [_norm(_fourier(4096, s), c, twice=True) for s in SCALES]
    per_scale = [value / (2 * math.pi * s * 2048**0.5) for value, s in zip(fourier, SCALES, strict=True)]
    drawn = 2 * math.pi * _fourier(4096, 16.0).frequencies.norm().item()
    positional = _norm(Positional(64).double(), c)
    omega_2 = sum(10_000 ** (-2 * i / 31) for i in range(32))
    equal = positional / (2 * math.pi * 32**0.5)
    spread = 5 / (2 * 2048**0.5)  # five standard errors of the root mean square of 2,048 normal numbers
    measures = [
        Measure("power of s with which ||d emb / dc|| grows", _fit.order(SCALES, fourier), 1, 1e-6),
        Measure("power of s for the second derivative: it oscillates faster", _fit.order(SCALES, turns), 2, 1e-6),
        Measure("||d emb / dc|| over 2 pi s sqrt(channels / 2)", per_scale[0], 1, spread),
        Measure("the same over 2 pi times the norm of the frequencies drawn", fourier[-1] / drawn, 1, 1e-6),
        Measure(
            "Fourier: derivative_norm over that by forward mode",
            _fourier(4096, 16.0).derivative_norm() / fourier[-1],
            1,
            1e-6,
        ),
        Measure("positional, 64 channels: ||d emb / dc||", positional, omega_2**0.5, 1e-6),
        Measure(
            "positional: derivative_norm over that by forward mode",
            Positional(64).derivative_norm() / positional,
            1,
            1e-6,
        ),
        Measure(
            "Fourier scale of equal steepness, Lu & Song's .02 to within a factor of 2.5", equal, 0.05, relation="<="
        ),
        Measure("the same, from below", equal, 0.02, relation=">="),
    ]
    flat = [positional * 64**0.5] * len(SCALES)  # as if it had 4,096 channels
    curves = [Curve("Fourier", SCALES, fourier), Curve("positional", SCALES, flat)]
    chart = Chart("steepness of 4,096 channels", "Fourier scale s", "||d emb / dc||", curves, log_x=True, log_y=True)
    note = (
        f"Proportional to s. By root mean square a positional embedding amounts to s = {equal:.3f}, twice Lu & Song's."
    )
    return Finding(measures, chart, note, in_part=True)


def _fourier(channels: int, scale: float) -> Fourier:
    with forked_seed(0):
        return Fourier(channels, scale).double()


def _norm(embedding: nn.Module, c: Tensor, twice: bool = False) -> float:
    """Return the mean over c of the L2 norm of the first derivative, or of its central difference."""
    one = (torch.ones_like(c),)

    def first(c: Tensor) -> Tensor:
        return value_and_derivative(embedding, (c,), one, "jvp")[1]

    derivative = value_and_derivative(first, (c,), one, "finite_difference", h=1e-6)[1] if twice else first(c)
    return derivative.norm(dim=1).mean().item()
