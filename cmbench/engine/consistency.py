"""A consistency function in time bins: its distance to the truth, and its change on a teacher's trajectories."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cmbench.contracts import Data
from cmbench.evaluation.consistency_error import TrueConsistencyError
from cmbench.evaluation.self_consistency import SelfConsistencyError
from cmbench.model import Model
from cmbench.randomness import StepRandom

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]

COMPARED = (0.04, 10.0)  # noise levels over sigma_data: .02 to 5 for pictures, which every recipe's range holds
_LEVELS = 33  # of them, evenly in their log


class Starts(NamedTuple):
    """Where trajectories start: data (n, ...), their labels (n,) where the network takes them, and what noises them."""

    x_0: Tensor
    labels: Tensor | None
    noise: torch.Generator


def draw_starts(data: Data, n: int, device: torch.device, seed: int, conditional: bool) -> Starts:
    """Draw n training samples, and the noise on the CPU, as a function of the seed alone."""
    x_0, labels = data.batch(n, StepRandom(device, seed, 0))
    noise = StepRandom(torch.device("cpu"), seed, 0).generator("trajectories")
    return Starts(x_0, labels if conditional else None, noise)


class Levels(NamedTuple):
    """The noise levels over which a figure of the whole function is a mean, ascending, evenly in their log.

    They depend on the data alone, so that runs whose objectives have bins and ranges of their own can be compared;
    unless a model is not trained at all of them: `is_partial` says so, and its figure is one of another thing.
    """

    values: Tensor
    is_partial: bool

    @property
    def over(self) -> tuple[float, float]:
        """The lowest and the highest."""
        return float(self.values[0]), float(self.values[-1])


def compared_levels(sigma_data: float, lowest: float = 0.0, highest: float = math.inf) -> Levels:
    """Return the levels that are compared, as far as they lie where the model is trained, from lowest to highest."""
    low, high = (end * sigma_data for end in COMPARED)
    if lowest <= low and high <= highest:
        return Levels(torch.tensor(np.geomspace(*COMPARED, _LEVELS) * sigma_data), False)
    ends = (max(low, lowest), min(high, highest))
    ends = ends if ends[0] < ends[1] else (lowest, highest)  # none of them is trained
    return Levels(torch.tensor(np.geomspace(*ends, _LEVELS)), True)


class TrueErrors(NamedTuple):
    """The mean over `compared_levels`, at sigma_max, and in each bin of the profile; whether that mean is partial."""

    mean: float
    at_sigma_max: float
    bins: list[float]
    is_partial: bool = False


class Truth:
    """The distance to the true consistency function at the middle of each bin and at sigma_max.

    Args:
        model: any with the path, range and boundary of those to be measured.
        denoise: the oracle's D of the EDM path, (x, sigma, labels).
        edges: (bins + 1,), times of the model's path.
        starts: of the exact trajectories.
        lowest: the lowest noise level that is trained; None for the model's sigma_min.
    """

    def __init__(
        self, model: Model, denoise: Denoise, edges: Tensor, starts: Starts, lowest: float | None = None
    ) -> None:
        levels, self._labels = model.path.noise_level(edges.double()), starts.labels
        middles = (levels[1:] * levels[:-1]).sqrt().clamp(model.sigma_min, model.sigma_max).tolist()
        lowest = model.sigma_min if lowest is None else lowest
        self.compared = compared_levels(model.sigma_data, lowest, model.sigma_max)
        self._weights = _interpolating(middles, self.compared.values)
        self._errors = TrueConsistencyError(
            lambda x, sigma: denoise(x, sigma, starts.labels),
            starts.x_0,
            [model.sigma_max, *reversed(middles)],
            model.parameterisation.epsilon,
            starts.noise,
        )

    def each(self, model: Model) -> Tensor:
        """Return the error on each trajectory in each bin, ascending, and at sigma_max as the last, (bins + 1, n)."""
        with evaluating(model):
            f = model.on_edm_path()
            return self._errors.each(lambda x, sigma: f(x, sigma, self._labels)).flip(0)

    def mean(self, each: Tensor) -> Tensor:
        """Return the mean over `compared_levels` of what `each` returns, interpolated in the log of the level. (n,)."""
        return self._weights.to(each) @ each[:-1]

    def figures(self, model: Model) -> TrueErrors:
        """Return the means over the trajectories."""
        each = self.each(model)
        *bins, at_sigma_max = each.mean(dim=1).tolist()
        return TrueErrors(float(self.mean(each).mean()), at_sigma_max, bins, self.compared.is_partial)


class Constancy:
    """How far f moves between neighbours of `compared_levels`, on trajectories of the teacher.

    Arguments as of `Truth`.
    """

    def __init__(self, model: Model, denoise: Denoise, starts: Starts, lowest: float | None = None) -> None:
        lowest = model.sigma_min if lowest is None else lowest
        self.compared = compared_levels(model.sigma_data, lowest, model.sigma_max)
        self._labels, asked = starts.labels, self.compared.values.flip(0).tolist()
        self._errors = SelfConsistencyError(
            lambda x, sigma: denoise(x, sigma, starts.labels), starts.x_0, asked, starts.noise
        )

    def each(self, model: Model) -> Tensor:
        """Return the change on each trajectory between two levels, ascending, (levels - 1, n)."""
        with evaluating(model):
            f = model.on_edm_path()
            return self._errors.each(lambda x, sigma: f(x, sigma, self._labels)).flip(0)


def _interpolating(at: list[float], levels: Tensor) -> Tensor:
    """Return the weights (m,) with which values known `at` m ascending levels make the mean over other levels."""
    known, wanted = np.log(at), levels.log().numpy()
    return torch.tensor([np.interp(wanted, known, one).mean() for one in np.eye(len(at))])


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Switch dropout off within the block."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)
