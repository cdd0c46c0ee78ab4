"""Section 5.3: adaptive double normalisation against the plain adaptive norm."""

import torch
from torch import Tensor
from torch.func import jvp

from cmbench.lab import _fit
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.networks._embedding import Positional
from cmbench.networks._norm import ScaleShift, pnorm
from cmbench.randomness import forked_seed

SECTION = "5.3"
CLAIM = "y = norm(x) pnorm(s) + pnorm(b) stays bounded where norm(x) s + b grows with the embedding"
SETTING = (
    "64 channels, positional embedding of 101 times t in [0, pi / 2] by one linear layer, its weights times 1 to 10,000"
)
GAINS = (1.0, 10.0, 100.0, 1e3, 1e4)


def measure() -> Finding:
    """Measure the size of y and of dy/dt as the layer's weights grow."""
    single, double = ([_sizes(double, gain) for gain in GAINS] for double in (False, True))
    (y_single, dy_single), (y_double, dy_double) = (list(zip(*sizes, strict=True)) for sizes in (single, double))
    steep = jvp(pnorm, (torch.zeros(1, 64, dtype=torch.float64),), (torch.ones(1, 64, dtype=torch.float64),))[1]
    largest = GAINS[2:]
    measures = [
        Measure("AdaGN: power of the gain with which y grows", _fit.order(largest, y_single[2:]), 1, 0.02),
        Measure("AdaGN: power of the gain with which dy/dt grows", _fit.order(largest, dy_single[2:]), 1, 0.02),
        Measure("ADN: largest rms of y over the gains, at most 2", max(y_double), 2, 1e-9, "<="),
        Measure("ADN: power of the gain with which dy/dt grows", _fit.order(largest, dy_double[2:]), 0, 0.05),
        Measure("ADN: rms of pnorm(s) and of pnorm(b), the furthest from 1", _furthest(), 1, 1e-7),
        Measure("pnorm: derivative where its argument is zero, 1 / sqrt(eps)", steep.max().item(), 1e4, 1e-6),
    ]
    curves = [
        Curve("y, AdaGN", GAINS, y_single),
        Curve("dy/dt, AdaGN", GAINS, dy_single),
        Curve("y, ADN", GAINS, y_double),
        Curve("dy/dt, ADN", GAINS, dy_double),
    ]
    chart = Chart("growing weights of scale and shift", "gain", "root mean square", curves, log_x=True, log_y=True)
    note = (
        "The value is bounded by 2 whatever the embedding. Its derivative is not where s or b vanish: pnorm is as "
        "steep as 1 / sqrt(eps) = 10,000 there, so they should start at unit size."
    )
    return Finding(measures, chart, note, in_part=True)


def _layer(double_norm: bool, gain: float) -> ScaleShift:
    with forked_seed(1):
        layer = ScaleShift(32, 64, double_norm).double()
    layer.weight.data *= gain
    return layer


def _sizes(double_norm: bool, gain: float) -> tuple[float, float]:
    """Return the root mean squares of y and of dy/dt for norm(x) of ones and minus ones."""
    layer, time = _layer(double_norm, gain), Positional(32).double()
    t = torch.linspace(0, torch.pi / 2, 101, dtype=torch.float64)
    normed = torch.ones(64, dtype=torch.float64)
    normed[::2] = -1

    def y(t: Tensor) -> Tensor:
        s, b = layer.pair(time(t))
        return normed * s + b

    value_and_derivative = jvp(y, (t,), (torch.ones_like(t),))[:2]
    first, second = (part.square().mean().sqrt().item() for part in value_and_derivative)
    return first, second


def _furthest() -> float:
    """Return the root mean square of s or b that is furthest from one, over gains."""
    t = torch.linspace(0, torch.pi / 2, 101, dtype=torch.float64)
    pairs = [part for gain in GAINS for part in _layer(True, gain).pair(Positional(32).double()(t))]
    sizes = torch.cat([part.square().mean(dim=1).sqrt() for part in pairs])
    return sizes[(sizes - 1).abs().argmax()].item()
