"""One step or several, with exact and imperfect consistency functions (Song et al. 2023, algorithm 1)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cmbench.equations import sampling
from cmbench.lab._finding import Chart, Curve, Finding, Measure

SOURCE = "Song et al. 2023, algorithm 1"
CLAIM = "one evaluation of a consistency function draws a sample, and a few steps draw a better one"
SETTING = (
    "data N(.3, .5^2), its exact f and two wrong ones, 1 to 16 levels of the Karras grid from 80 to .1, 200,000 samples"
)
MEAN, DEVIATION, SIGMA_MIN, SIGMA_MAX = 0.3, 0.5, 0.1, 80.0
STEPS = (1, 2, 4, 8, 16)
# (a, b): f stretches too much, by 1 + a sigma^2 / (sigma^2 + 16), and shifts by b
ERRORS = {"exact": (0.0, 0.0), "wrong at high noise": (0.2, 0.0), "wrong everywhere": (0.0, 0.03)}
TARGET = (MEAN, (DEVIATION**2 + SIGMA_MIN**2) ** 0.5)  # mean and deviation at sigma_min


def measure(samples: int = 200_000) -> Finding:
    """Measure the mean and deviation of `samples` samples, and their Wasserstein distance to the data."""
    scores: list[float] = []
    distances: dict[str, list[float]] = {}
    for name, (a, b) in ERRORS.items():
        distances[name] = []
        for steps in STEPS:
            sigmas = sampling.consistency_sigmas(steps, SIGMA_MIN, SIGMA_MAX)
            mean, deviation = _drawn(a, b, sigmas, samples)
            mean_expected, expected = _on_paper(a, b, _levels(steps))
            scores += [abs(mean - mean_expected) * samples**0.5 / expected]
            scores += [abs(deviation / expected - 1) * (2 * samples) ** 0.5]
            distances[name].append(((mean - TARGET[0]) ** 2 + (deviation - TARGET[1]) ** 2) ** 0.5)
    exact, high, everywhere = distances.values()
    noise = MEAN * _stretch(SIGMA_MAX) + 5 * TARGET[1] * (1.5 / samples) ** 0.5
    measures = [
        Measure("largest gap of the noise levels to the Karras grid on paper, relative", _off_grid(), 0, 1e-12),
        Measure(f"largest of {len(scores)} z-scores of mean and deviation", max(scores), 4.5, relation="<="),
        Measure("exact: largest distance, at most what start and noise allow", max(exact), noise, relation="<="),
        Measure("wrong at high noise: 16 steps over 1", high[-1] / high[0], 0.1, relation="<="),
        Measure("wrong everywhere: 16 steps over 1", everywhere[-1] / everywhere[0], 2, relation=">="),
    ]
    curves = [Curve(name, STEPS, values) for name, values in distances.items()]
    chart = Chart("more steps", "steps", "Wasserstein distance to the data", curves, log_x=True, log_y=True)
    note = (
        "One step is enough for an exact f. More steps help against errors at high noise levels, which the last "
        "level leaves behind. But an error at every level adds up, and more steps make it worse."
    )
    return Finding(measures, chart, note, in_part=True)


def _levels(steps: int) -> list[float]:
    """Return (80^(1/7) + i / steps (.1^(1/7) - 80^(1/7)))^7 for i from 0 to steps - 1: Karras et al. 2022, eq. 5."""
    high, low = SIGMA_MAX ** (1 / 7), SIGMA_MIN ** (1 / 7)
    return [(high + i / steps * (low - high)) ** 7 for i in range(steps)]


def _off_grid() -> float:
    """Return the largest relative gap of the package's noise levels, or infinity if their number is wrong."""
    pairs = [(sampling.consistency_sigmas(steps, SIGMA_MIN, SIGMA_MAX), _levels(steps)) for steps in STEPS]
    if any(len(found) != len(levels) for found, levels in pairs):
        return math.inf
    return max(abs(a / b - 1) for found, levels in pairs for a, b in zip(found, levels, strict=True))


def _stretch(sigma: float) -> float:
    """Return the slope of the exact f from noise level sigma to sigma_min."""
    return ((DEVIATION**2 + SIGMA_MIN**2) / (DEVIATION**2 + sigma**2)) ** 0.5


def _f(a: float, b: float) -> Callable[[Tensor, Tensor], Tensor]:
    def f(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[0].item()
        return MEAN + (x - MEAN) * _stretch(level) * (1 + a * level**2 / (level**2 + 16)) + b

    return f


def _drawn(a: float, b: float, sigmas: Sequence[float], samples: int) -> tuple[float, float]:
    """Return the mean and deviation of samples from the package's sampler."""
    generator = torch.Generator().manual_seed(12)
    noise = torch.randn(samples, 1, dtype=torch.float64, generator=generator)
    x = sampling.multistep_consistency(_f(a, b), noise, sigmas, SIGMA_MIN, generator)
    return x.mean().item(), x.std().item()


def _on_paper(a: float, b: float, sigmas: Sequence[float]) -> tuple[float, float]:
    """Return mean and deviation by recursion: f is linear, so all distributions on the way are Gaussian."""
    mean, variance = 0.0, sigmas[0] ** 2
    for i, sigma in enumerate(sigmas):
        if i:
            variance += sigma**2 - SIGMA_MIN**2
        slope = _stretch(sigma) * (1 + a * sigma**2 / (sigma**2 + 16))
        mean, variance = MEAN + slope * (mean - MEAN) + b, slope**2 * variance
    return mean, variance**0.5
