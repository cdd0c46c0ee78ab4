"""A network of three numbers in float64, objectives with given noise, and their gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmbench.contracts import Terms
from cmbench.equations.boundary import NoiseName, ScalingsName
from cmbench.equations.gaussian_path import GaussianPath
from cmbench.model import Model
from cmbench.randomness import StepRandom

WEIGHTS = (0.7, 1.3, 0.4)


class Tanh(nn.Module):
    """F_theta(x, c_noise) = a tanh(b x + c c_noise), smooth and without special form."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(WEIGHTS, dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, 1), c_noise (B,) -> (B, 1)."""
        a, b, c = self.weights
        return a * torch.tanh(b * x + c * c_noise[:, None])


def model(
    F_theta: nn.Module,
    path: GaussianPath,
    sigma_data: float,
    scalings: ScalingsName = "edm",
    noise: NoiseName = "log",
    D: int = 1,
) -> Model:
    """Return a model of points of D coordinates in float64; f is the identity at zero noise."""
    return Model(
        F_theta, (D,), path, sigma_data, 0.002, 80.0, "float32", scalings, noise, "zero", time_dtype=torch.float64
    )


@dataclass(frozen=True)
class GivenNoise(StepRandom):
    """The randomness of a step with a given eps, (B, ...)."""

    eps: Tensor

    def noise(self, like: Tensor, stream: str = "noise") -> Tensor:
        """Return the given eps."""
        return self.eps


def given(eps: Tensor) -> GivenNoise:
    """Return the randomness of one step with this noise."""
    return GivenNoise(torch.device("cpu"), 0, 0, eps)


def gradient(terms: Terms, *modules: nn.Module) -> Tensor:
    """Return the gradient of a loss in all parameters, in one vector; zero for those it does not depend on."""
    parameters = [p for module in modules for p in module.parameters()]
    grads = torch.autograd.grad(terms.total, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([grad.flatten() for grad in grads])
