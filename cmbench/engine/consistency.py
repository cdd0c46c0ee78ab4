"""A consistency function in time bins: its distance to the truth, and its change on a teacher's trajectories."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cmbench.contracts import Data
from cmbench.engine.ranks import Ranks
from cmbench.evaluation.consistency_error import TrueConsistencyError
from cmbench.evaluation.self_consistency import SelfConsistencyError
from cmbench.model import Model
from cmbench.randomness import StepRandom

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]

COMPARED = (0.04, 10.0)  # noise levels over sigma_data: .02 to 5 for pictures, within every recipe's range
_LEVELS = 33  # number of levels, evenly spaced in their logarithm


class Starts(NamedTuple):
    """Starts of trajectories: data (n, ...), labels (n,) if the network takes them, and the generator of the noise."""

    x_0: Tensor
    labels: Tensor | None
    noise: torch.Generator


def draw_starts(data: Data, n: int, device: torch.device, seed: int, conditional: bool) -> Starts:
    """Draw n training samples, with a noise generator on the CPU; both depend only on the seed."""
    x_0, labels = data.batch(n, StepRandom(device, seed, 0))
    noise = StepRandom(torch.device("cpu"), seed, 0).generator("trajectories")
    return Starts(x_0, labels if conditional else None, noise)


class Levels(NamedTuple):
    """The noise levels over which errors of the whole function are averaged: ascending, evenly spaced in their log.

    They depend only on the data, so that runs with different bins and ranges can be compared. If a model is not
    trained at all of them, `is_partial` is set: its figure cannot be compared with the others.
    """

    values: Tensor
    is_partial: bool

    @property
    def over(self) -> tuple[float, float]:
        """The lowest and the highest level."""
        return float(self.values[0]), float(self.values[-1])


def compared_levels(sigma_data: float, lowest: float = 0.0, highest: float = math.inf) -> Levels:
    """Return the levels to compare, restricted to the range `lowest` to `highest` in which the model is trained."""
    low, high = (end * sigma_data for end in COMPARED)
    if lowest <= low and high <= highest:
        return Levels(torch.tensor(np.geomspace(*COMPARED, _LEVELS) * sigma_data), False)
    ends = (max(low, lowest), min(high, highest))
    ends = ends if ends[0] < ends[1] else (lowest, highest)  # none of them is trained
    return Levels(torch.tensor(np.geomspace(*ends, _LEVELS)), True)


class TrueErrors(NamedTuple):
    """The mean over `compared_levels`, at sigma_max, and in each bin of the profile; whether the mean is partial."""

    mean: float
    at_sigma_max: float
    bins: list[float]
    is_partial: bool = False


class Truth:
    """The distance to the true consistency function at the middle of each bin and at sigma_max.

    Args:
        model: any model with the path, range and boundary of those to be measured.
        denoise: the oracle's D on the EDM path, (x, sigma, labels).
        edges: (bins + 1,), times of the model's path.
        starts: of the exact trajectories.
        lowest: the lowest noise level that is trained; None for the model's sigma_min.
        ranks: which share the trajectories out, and all get them; all must ask.
    """

    def __init__(
        self,
        model: Model,
        denoise: Denoise,
        edges: Tensor,
        starts: Starts,
        lowest: float | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        levels, self._labels = model.path.noise_level(edges.double()), starts.labels
        middles = (levels[1:] * levels[:-1]).sqrt().clamp(model.sigma_min, model.sigma_max).tolist()
        lowest = model.sigma_min if lowest is None else lowest
        self.compared = compared_levels(model.sigma_data, lowest, model.sigma_max)
        self._weights = _interpolating(middles, self.compared.values)
        of_all = self._ranks.by_rows(denoise)
        self._errors = TrueConsistencyError(
            lambda x, sigma: of_all(x, sigma, starts.labels),
            starts.x_0,
            [model.sigma_max, *reversed(middles)],
            model.parameterisation.epsilon,
            starts.noise,
        )

    def each(self, model: Model) -> Tensor:
        """Return the error on each trajectory, (bins + 1, n): in each bin, ascending, then at sigma_max."""
        with evaluating(model):
            f = self._ranks.by_rows(model.on_edm_path())
            return self._errors.each(lambda x, sigma: f(x, sigma, self._labels)).flip(0)

    def mean(self, each: Tensor) -> Tensor:
        """Return the mean over `compared_levels` of the errors of `each`, interpolated in log level, (n,)."""
        return self._weights.to(each) @ each[:-1]

    def figures(self, model: Model) -> TrueErrors:
        """Return the means over the trajectories."""
        each = self.each(model)
        *bins, at_sigma_max = each.mean(dim=1).tolist()
        return TrueErrors(float(self.mean(each).mean()), at_sigma_max, bins, self.compared.is_partial)


class Constancy:
    """How far f moves between neighbours of `compared_levels`, on trajectories of the teacher.

    Arguments as for `Truth`.
    """

    def __init__(
        self,
        model: Model,
        denoise: Denoise,
        starts: Starts,
        lowest: float | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._ranks = ranks or Ranks()
        of_all = self._ranks.by_rows(denoise)
        lowest = model.sigma_min if lowest is None else lowest
        self.compared = compared_levels(model.sigma_data, lowest, model.sigma_max)
        self._labels, asked = starts.labels, self.compared.values.flip(0).tolist()
        self._errors = SelfConsistencyError(
            lambda x, sigma: of_all(x, sigma, starts.labels), starts.x_0, asked, starts.noise
        )

    def each(self, model: Model) -> Tensor:
        """Return the change on each trajectory between neighbouring levels, ascending, (levels - 1, n)."""
        with evaluating(model):
            f = self._ranks.by_rows(model.on_edm_path())
            return self._errors.each(lambda x, sigma: f(x, sigma, self._labels)).flip(0)


def _interpolating(at: list[float], levels: Tensor) -> Tensor:
    """Return weights (m,) that turn values at m ascending levels `at` into their interpolated mean over `levels`."""
    known, wanted = np.log(at), levels.log().numpy()
    return torch.tensor([np.interp(wanted, known, one).mean() for one in np.eye(len(at))])


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Switch off dropout within the block."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)
