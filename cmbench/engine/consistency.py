"""A consistency function in time bins: its distance to the truth, and its change on a teacher's trajectories."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cmbench.evaluation.consistency_error import TrueConsistencyError
from cmbench.evaluation.self_consistency import SelfConsistencyError
from cmbench.networks._model import Model
from cmbench.randomness import StepRandom

Denoise = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Starts(NamedTuple):
    """Where trajectories start: data (n, ...), their labels (n,) where the network takes them, and what noises them."""

    x_0: Tensor
    labels: Tensor | None
    noise: torch.Generator


def draw_starts(data: Any, n: int, device: torch.device, seed: int, conditional: bool) -> Starts:
    """Draw n training samples, and the noise on the CPU, as a function of the seed alone."""
    x_0, labels = data.batch(n, StepRandom(device, seed, 0))
    noise = StepRandom(torch.device("cpu"), seed, 0).generator("trajectories")
    return Starts(x_0, labels if conditional else None, noise)


class Truth:
    """The distance to the true consistency function at the middle of each bin and at sigma_max.

    Args:
        model: any with the path, range and boundary of those to be measured.
        denoise: the oracle's D of the EDM path, (x, sigma, labels).
        edges: (bins + 1,), times of the model's path.
        starts: of the exact trajectories.
    """

    def __init__(self, model: Model, denoise: Denoise, edges: Tensor, starts: Starts) -> None:
        levels, self._labels = _levels(model, edges), starts.labels
        middles = (levels[1:] * levels[:-1]).sqrt().clamp(model.sigma_min, model.sigma_max).tolist()
        self._errors = TrueConsistencyError(
            lambda x, sigma: denoise(x, sigma, starts.labels),
            starts.x_0,
            [model.sigma_max, *reversed(middles)],
            model.parameterisation.epsilon,
            starts.noise,
        )

    def each(self, model: Model) -> Tensor:
        """Return the error on each trajectory in each bin, ascending, and at sigma_max as the last, (bins + 1, n)."""
        with _evaluating(model):
            f = model.on_edm_path()
            return self._errors.each(lambda x, sigma: f(x, sigma, self._labels)).flip(0)


class Constancy:
    """How far f moves within each bin, between its edges, on trajectories of the teacher. Arguments as of `Truth`."""

    def __init__(self, model: Model, denoise: Denoise, edges: Tensor, starts: Starts) -> None:
        levels, self._labels = _levels(model, edges).clamp(model.sigma_min, model.sigma_max), starts.labels
        self._errors = SelfConsistencyError(
            lambda x, sigma: denoise(x, sigma, starts.labels), starts.x_0, levels.flip(0).tolist(), starts.noise
        )

    def each(self, model: Model) -> Tensor:
        """Return the change on each trajectory in each bin, ascending, (bins, n)."""
        with _evaluating(model):
            f = model.on_edm_path()
            return self._errors.each(lambda x, sigma: f(x, sigma, self._labels)).flip(0)


def _levels(model: Model, edges: Tensor) -> Tensor:
    return model.path.noise_level(edges.double())


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Switch dropout off within the block."""
    was_training = model.training
    model.eval()
    yield
    model.train(was_training)
