"""The measures of samples beside real data."""

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from torch import Tensor

from cmbench.measures import OF_SAMPLES

_TRAIN = 60_000  # at most so many training samples are looked through for neighbours
Features = Callable[[Tensor], Tensor]


def as_they_are(x: Tensor) -> Tensor:
    """Return the samples themselves: measures of pixels, or of points."""
    return x


class Judge:
    """Measures samples against the real data that each measure wants.

    The floor of a measure is what a perfect sampler would show: the training sample in the place of samples against
    held-out data, or, where a measure looks at the training set, held-out data in their place.

    Args:
        data: the data set.
        n: so many held-out samples, and so many training samples for the floor, or all there are.
        features: of samples (n, ...), which are compared in their place.
    """

    def __init__(self, data: Any, n: int, features: Features = as_they_are) -> None:
        self._data, self._n, self._features = data, n, features

    def figures(self, names: Iterable[str], x: Tensor) -> Iterator[tuple[str, float]]:
        """Yield measures of samples x (n, ...), each with its name; nan where the samples are not finite."""
        finite = bool(x.isfinite().all())
        features = self._features(x) if finite else x
        for name in names:
            yield name, self._measured(name, features) if finite else math.nan

    def floor(self, name: str) -> float:
        """Return what a perfect sampler would show."""
        return self._measured(name, self._perfect(name))

    def floor_size(self, name: str) -> int:
        """Return of how many samples the floor is: fewer than n where there are no more."""
        return len(self._perfect(name))

    def _perfect(self, name: str) -> Tensor:
        return self._held_out if OF_SAMPLES[name].against == "train" else self._some_train

    def _measured(self, name: str, x: Tensor) -> float:
        real = self._train if OF_SAMPLES[name].against == "train" else self._held_out
        return getattr(importlib.import_module(f"cmbench.evaluation.{name}"), name)(x, real)

    @cached_property
    def _held_out(self) -> Tensor:
        return self._features(self._data.held_out(self._n))

    @cached_property
    def _some_train(self) -> Tensor:
        return self._features(self._data.train_sample(self._n))

    @cached_property
    def _train(self) -> Tensor:
        return self._features(self._data.train_sample(_TRAIN))
