"""Evaluates the network of a recipe at points of its path, without training it."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmbench.engine import build
from cmbench.engine.trainer import Trainer
from cmbench.equations import tangent
from cmbench.equations.gaussian_path import GaussianPath, like
from cmbench.equations.tangent import Method
from cmbench.finite import Finite
from cmbench.model import Model
from cmbench.randomness import StepRandom

BINS = 8
_STAND_INS = 256  # samples that replace the data, in training and held out
_SAMPLES = 32  # in all bins together, for a network up to ...
_NEARLY_ZERO = 1e-3  # of the size of drawn weights
_SMALL = 5_000_000  # parameters; beyond that one per bin, since float64 on the CPU would take minutes


@dataclass(frozen=True)
class Points:
    """Samples at times in all bins of the objective's own variable.

    Attributes:
        x_0, eps: (B, ...).
        t: (B,), ascending.
        labels: (B,), or None for an unconditional network.
        edges: (BINS + 1,) noise levels; of `points`, B / BINS samples lie in each bin.
    """

    x_0: Tensor
    eps: Tensor
    t: Tensor
    labels: Tensor | None
    edges: Tensor

    def few(self) -> "Points":
        """Return two of the points, for checks that need no more."""
        labels = None if self.labels is None else self.labels[:2]
        return Points(self.x_0[:2], self.eps[:2], self.t[:2], labels, self.edges)

    def double(self) -> "Points":
        """Return the same points in float64."""
        return Points(self.x_0.double(), self.eps.double(), self.t.double(), self.labels, self.edges)


def points(built: Trainer) -> Points:
    """Return the points at which a recipe's network is checked; they follow from the recipe's seed."""
    random, model = StepRandom(built.device, built.recipe.seed, 0), built.state.model
    times = built.objective.profile_edges(BINS).double().cpu()
    per_bin = _SAMPLES // BINS if sum(p.numel() for p in model.parameters()) < _SMALL else 1
    inside = (torch.arange(per_bin, dtype=torch.float64) + 0.5) / per_bin
    t = (times[:-1, None] + inside * times.diff()[:, None]).flatten().to(built.device, model.time_dtype)
    x_0, labels = built.data.batch(len(t), random)
    edges = model.path.noise_level(times)
    return Points(x_0, random.noise(x_0), t, labels if built.conditional else None, edges)


def copied(model: Model) -> Model:
    """Return a copy in evaluation mode whose weights of nearly zero are drawn from N(0, 1 / fan_in), from a fixed seed.

    Gains of zero become one.

    Networks begin with zeros, or nearly so, in their last layer and in that of each block. F is then 0 at all times,
    and there is nothing to check. Trained weights stay as they are.
    """
    model = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            of_one = 1 / math.sqrt(weight[0].numel()) if weight.ndim > 1 else 0.0  # size of drawn weights
            if weight.abs().max() < _NEARLY_ZERO * of_one:
                noise = of_one * torch.randn(weight.shape, generator=generator)
                weight.copy_(noise)
            elif weight.ndim == 0 and not weight:  # a learned gain
                weight.fill_(1.0)
    return model


def in_float64(model: Model) -> Model:
    """Return a copy whose network computes in float64."""
    model = copy.deepcopy(model).double()
    model.autocast, model.time_dtype = None, torch.float64
    return model


def log_unit(path: GaussianPath, t: Tensor) -> Tensor:
    """Return dt / d ln n, n the noise level: cos t sin t on TrigFlow, t on the EDM path. (B,)."""
    s, sigma = path.s(t), path.sigma(t)
    return s * sigma / (path.dsigma(t) * s - sigma * path.ds(t))


def method_of(built: Trainer) -> Method:
    """Return the recipe's method for derivatives; "dual" for objectives without one."""
    return getattr(_config(built), "tangent_method", "dual")


def _config(built: Trainer) -> Any:
    """Return the objective's settings."""
    return build.settings("objective", built.recipe)[1]


def needs_tangent(built: Trainer) -> bool:
    """Return whether the objective trains on a derivative of the network."""
    return "tangent" in built.objective.forwards


def value_and_derivative(
    built: Trainer, model: Model, at: Points, method: Method | None = None
) -> tuple[Tensor, Tensor]:
    """Return F and its derivative along the conditional velocity, per unit of ln(noise level), (B, ...) each.

    Args:
        built: the recipe.
        model: its model or a copy.
        at: the points, in the precision of the copy.
        method: of the derivative; None takes the recipe's own, with the units and the step of its objective.
    """
    config, path, unit = _config(built), model.path, log_unit(model.path, at.t)
    # The step of the central difference means the same as in training: only `rearranged` has it in this unit.
    own = unit if method or getattr(config, "tangent", "") == "rearranged" else torch.ones_like(unit)
    h = 1e-5 if method else getattr(config, "tangent_step", tangent.STEP)
    x_t, v = path.x_t(at.x_0, at.eps, at.t), path.conditional_velocity(at.x_0, at.eps, at.t)
    r = at.t / 2 if model.times == 2 else None
    F, dF = model.F_and_derivative(
        x_t, at.t, like(own, v) * v, own, at.labels, r, method=method or method_of(built), h=h
    )
    return F.detach(), dF.detach() * like(unit / own, dF)


def noise(shape: tuple[int, ...], classes: int, sigma_data: float, device: torch.device) -> Finite:
    """Return a replacement for missing data: samples N(0, sigma_data^2) of `shape`, with labels in turn."""
    generator = torch.Generator().manual_seed(0)
    train, test = sigma_data * torch.randn(2, _STAND_INS, *shape, generator=generator)
    labels = torch.arange(_STAND_INS) % classes
    labels[-1] = classes - 1  # Finite counts the classes by the highest label
    return Finite(train, labels, test, labels, device)
