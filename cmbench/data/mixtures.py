"""Gaussian mixtures in the plane, with a closed-form oracle. Each coordinate has standard deviation .5."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cmbench.config import Config as BaseConfig
from cmbench.equations.oracle import GaussianMixture
from cmbench.randomness import StepRandom

STANDARD_DEVIATION = 0.5


class Config(BaseConfig):
    """[data] kind = "mixtures"."""

    name: Literal["ring", "grid", "unequal"] = Field(
        "ring",
        description="ring of eight; 5x5 grid; unequal: a broad mode, two thin slanted ones, two small ones",
    )


class Data:
    """Endless draws from a mixture; the label is the component."""

    shape = (2,)
    draws_parts = True

    def __init__(self, config: Config, device: torch.device) -> None:
        self.device = device
        self.mixture = standardised(*{"ring": _ring, "grid": _grid, "unequal": _unequal}[config.name]())
        self.classes = len(self.mixture.weights)

    def batch(self, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return n fresh points (n, 2) and their components (n,), or the rows of the part."""
        x_0, labels = self.mixture.sample(n, random.batch.generator("data"))
        return random.rows(x_0).float(), random.rows(labels)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return n fresh points (n, 2) and their components (n,), as a perfect sampler would draw them."""
        x_0, labels = self.mixture.sample(n, generator)
        return x_0.float().to(self.device), labels.to(self.device)

    def held_out(self, n: int) -> Tensor:
        """Return a fixed draw of n points, (n, 2)."""
        return self._fixed(n, seed=1)[0]

    def held_out_labels(self, n: int) -> Tensor:
        """Return the components of the points of `held_out`, (n,)."""
        return self._fixed(n, seed=1)[1]

    def train_sample(self, n: int) -> Tensor:
        """Return another fixed draw of n points, (n, 2)."""
        return self._fixed(n, seed=2)[0]

    def oracle(self) -> GaussianMixture:
        """Return the mixture's denoiser."""
        return self.mixture.to(self.device)

    def _fixed(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        return self.draw(n, torch.Generator().manual_seed(seed))


def standardised(weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
    """Centre and scale a mixture so that the variance of its coordinates is .25 on average."""
    weights = weights / weights.sum()
    means = means - weights @ means
    second = torch.einsum("k,kde->de", weights, covariances + means[:, :, None] * means[:, None, :])
    scale = STANDARD_DEVIATION / (second.trace() / len(second)).sqrt()
    return GaussianMixture(weights, scale * means, scale**2 * covariances)


def _isotropic(deviations: Tensor) -> Tensor:
    return deviations.square()[:, None, None] * torch.eye(2, dtype=torch.float64)


def _ring() -> tuple[Tensor, Tensor, Tensor]:
    """Eight modes of standard deviation .2 on a circle of radius 4."""
    angle = torch.arange(8, dtype=torch.float64) * (2 * torch.pi / 8)
    means = 4 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return torch.ones(8, dtype=torch.float64), means, _isotropic(torch.full((8,), 0.2, dtype=torch.float64))


def _grid() -> tuple[Tensor, Tensor, Tensor]:
    """Twenty-five modes of standard deviation .1 at distance 1."""
    axis = torch.arange(-2, 3, dtype=torch.float64)
    means = torch.cartesian_prod(axis, axis)
    return torch.ones(25, dtype=torch.float64), means, _isotropic(torch.full((25,), 0.1, dtype=torch.float64))


def _unequal() -> tuple[Tensor, Tensor, Tensor]:
    """Modes whose widths differ by a factor of twenty and whose weights by ten."""
    weights = torch.tensor([0.5, 0.2, 0.2, 0.05, 0.05], dtype=torch.float64)
    means = torch.tensor([[0, 0], [-3, 2], [3, 2], [-2, -3], [2, -3]], dtype=torch.float64)
    slanted = torch.tensor([[0.25, 0.2], [0.2, 0.1725]], dtype=torch.float64)
    mirrored = slanted * torch.tensor([[1, -1], [-1, 1]], dtype=torch.float64)
    broad, *small = _isotropic(torch.tensor([1.0, 0.05, 0.05], dtype=torch.float64))
    return weights, means, torch.stack([broad, slanted, mirrored, *small])
