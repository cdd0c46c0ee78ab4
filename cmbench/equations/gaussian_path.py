"""Gaussian probability paths x_t = s(t) x_0 + sigma(t) eps, eps ~ N(0, I) (Karras et al. 2022, appendix B).

Every path is the EDM path up to scale and clock: x_t / s(t) = x_0 + n(t) eps with the noise level
n(t) = sigma(t) / s(t). So one denoiser, one oracle and one set of tests serve all paths.
Times are tensors (B,), data are (B, ...).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


def like(t: Tensor, x: Tensor) -> Tensor:
    """View t (B,) as (B, 1, ..., 1) in the dtype of x, to multiply x (B, ...). A boolean mask becomes a float."""
    return t.reshape(-1, *([1] * (x.ndim - 1))).to(x.dtype)


@dataclass(frozen=True)
class GaussianPath(ABC):
    """A path, defined by its scale s(t), noise sigma(t), their derivatives, and the time of a noise level."""

    @property
    def largest_noise_level(self) -> float:
        """The noise level at which the path ends."""
        return math.inf

    @abstractmethod
    def s(self, t: Tensor) -> Tensor:
        """Return the scale s(t) of the data."""

    @abstractmethod
    def ds(self, t: Tensor) -> Tensor:
        """Return s'(t)."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Return the standard deviation sigma(t) of the noise."""

    @abstractmethod
    def dsigma(self, t: Tensor) -> Tensor:
        """Return sigma'(t)."""

    @abstractmethod
    def t_of_noise_level(self, n: Tensor) -> Tensor:
        """Return the time at which sigma(t) / s(t) = n, for n >= 0."""

    def noise_level(self, t: Tensor) -> Tensor:
        """Return n(t) = sigma(t) / s(t): the EDM sigma of this time."""
        return self.sigma(t) / self.s(t)

    def x_t(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return x_t = s(t) x_0 + sigma(t) eps."""
        return like(self.s(t), x_0) * x_0 + like(self.sigma(t), x_0) * eps

    def conditional_velocity(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return dx_t/dt = s'(t) x_0 + sigma'(t) eps for given x_0 and eps."""
        return like(self.ds(t), x_0) * x_0 + like(self.dsigma(t), x_0) * eps


@dataclass(frozen=True)
class EDM(GaussianPath):
    """Variance exploding: s = 1, sigma = t (Karras et al. 2022, table 1)."""

    def s(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def ds(self, t: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def dsigma(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def t_of_noise_level(self, n: Tensor) -> Tensor:
        """Return n."""
        return n


@dataclass(frozen=True)
class VP(GaussianPath):
    """Variance preserving with a linear beta: beta(t) = beta_min + t (beta_max - beta_min), t in [0, 1].

    s = exp(-B(t) / 2) with B(t) = beta_min t + (beta_max - beta_min) t^2 / 2, and sigma^2 = 1 - s^2
    (Song et al. 2021, "Score-based generative modeling through SDEs", eq. 33; beta from .1 to 20).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    @property
    def largest_noise_level(self) -> float:
        """The noise level at t = 1: 152.2 for the published beta."""
        return math.sqrt(math.expm1((self.beta_min + self.beta_max) / 2))

    def _B(self, t: Tensor) -> Tensor:  # noqa: N802 (the integral of beta)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t.square()

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def s(self, t: Tensor) -> Tensor:
        """Return exp(-B(t) / 2)."""
        return torch.exp(-0.5 * self._B(t))

    def ds(self, t: Tensor) -> Tensor:
        """Return -beta(t) s(t) / 2."""
        return -0.5 * self._beta(t) * self.s(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sqrt(1 - exp(-B(t)))."""
        return torch.sqrt(-torch.expm1(-self._B(t)))

    def dsigma(self, t: Tensor) -> Tensor:
        """Return beta(t) s(t)^2 / (2 sigma(t))."""
        return 0.5 * self._beta(t) * torch.exp(-self._B(t)) / self.sigma(t)

    def noise_level(self, t: Tensor) -> Tensor:
        """Return sqrt(exp(B(t)) - 1), accurate at small t."""
        return torch.sqrt(torch.expm1(self._B(t)))

    def t_of_noise_level(self, n: Tensor) -> Tensor:
        """Solve B(t) = log(1 + n^2) for t."""
        B = torch.log1p(n.square())
        return 2 * B / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * B))


@dataclass(frozen=True)
class TrigFlow(GaussianPath):
    """s = cos t, sigma = sigma_data sin t, t in [0, pi/2] (Lu & Song 2024, section 3)."""

    sigma_data: float = 0.5

    def s(self, t: Tensor) -> Tensor:
        """Return cos t."""
        return torch.cos(t)

    def ds(self, t: Tensor) -> Tensor:
        """Return -sin t."""
        return -torch.sin(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return sigma_data sin t."""
        return self.sigma_data * torch.sin(t)

    def dsigma(self, t: Tensor) -> Tensor:
        """Return sigma_data cos t."""
        return self.sigma_data * torch.cos(t)

    def t_of_noise_level(self, n: Tensor) -> Tensor:
        """Return arctan(n / sigma_data)."""
        return torch.atan(n / self.sigma_data)


@dataclass(frozen=True)
class Linear(GaussianPath):
    """Flow matching's straight path: s = 1 - t, sigma = t, t in [0, 1) (Lipman et al. 2023)."""

    def s(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def ds(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def dsigma(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def t_of_noise_level(self, n: Tensor) -> Tensor:
        """Return n / (1 + n)."""
        return n / (1 + n)


def named(kind: str, sigma_data: float) -> GaussianPath:
    """Return the path that a recipe calls `kind`: edm, vp, trigflow or linear."""
    return {"edm": EDM(), "vp": VP(), "trigflow": TrigFlow(sigma_data), "linear": Linear()}[kind]
