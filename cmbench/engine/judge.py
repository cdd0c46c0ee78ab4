"""The measures that compare samples with real data."""

import importlib
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from cmbench.contracts import Data, Drawn, HasHeldOutLabels, has
from cmbench.measures import OF_SAMPLES, Floor, too_few
from cmbench.randomness import StepRandom

if TYPE_CHECKING:
    from cmbench.engine.reference import Reference

_TRAIN = 60_000  # at most so many training samples are searched for neighbours
_DRAWS, _DEAR_DRAWS = 20, 5  # draws for a floor; the second if figures are expensive
_DEAR = 2048, 1024  # figures are expensive above this number of samples, or of numbers in each
Features = Callable[[Tensor], Tensor]


def as_they_are(x: Tensor) -> Tensor:
    """Return the samples themselves, for measures of pixels or of points."""
    return x


def real_draw(data: Data, n: int, seed: int, i: int = 0) -> tuple[Tensor, Tensor]:
    """Return n independent draws of the training data, and their labels; they depend only on seed and i."""
    if has(data, Drawn):
        return data.draw(n, StepRandom(torch.device("cpu"), seed, i).generator("perfect"))
    return data.batch(n, StepRandom(data.held_out(1).device, seed, i))


def labels_as_data(data: Data, n: int, seed: int) -> Tensor:
    """Return labels (n,) in the data's shares: those of n draws, as a perfect sampler would have them."""
    return real_draw(data, n, seed)[1]


class OfClass(NamedTuple):
    """One class of labelled samples, compared with the held-out samples of that class.

    Attributes:
        label: of the class.
        samples: number of measured samples.
        real: number of held-out samples of the class.
        value: the figure; nan if the samples are not finite.
        why_not: why there is no figure; empty if there is one.
    """

    label: int
    samples: int
    real: int
    value: float | None
    why_not: str


class Judge:
    """Compares samples with the real data that each measure needs.

    The floor of a measure is the value of a perfect sampler: n freshly drawn training samples take the place of the
    model's samples. If a measure looks at the training set, freshly drawn held-out data take their place. A sample of
    a finite set may be drawn twice, as a perfect sampler of the training set would.

    Args:
        data: the data set.
        n: number of samples, and of held-out ones (or all, if there are fewer).
        features: maps samples (n, ...) to the features that are compared.
        reference: statistics with which the Fréchet distance compares, in place of held-out data; it has no floor then.
    """

    def __init__(
        self, data: Data, n: int, features: Features = as_they_are, reference: "Reference | None" = None
    ) -> None:
        self._data, self._n, self._features, self._reference = data, n, features, reference
        self._last: tuple[Tensor, Tensor | None] | None = None

    def why_not(self, name: str) -> str:
        """Return why there are too few samples or real data for a measure; empty if there are enough."""
        if self.by_reference(name):
            return too_few(name, self._n, self._n)
        return too_few(name, self._n, len(self._real(name)))

    def by_reference(self, name: str) -> bool:
        """Return whether a measure compares with the reference."""
        return self._reference is not None and name == "frechet_distance"

    def features_of(self, x: Tensor) -> Tensor | None:
        """Return the features of samples x (n, ...), (n, ...), or None if the samples are not finite."""
        return self._of(x)

    def figures(self, names: Iterable[str], x: Tensor) -> Iterator[tuple[str, float]]:
        """Yield measures of samples x (n, ...), each with its name; nan if the samples are not finite.

        A measure that needs more samples than there are is left out: see `why_not`.
        """
        features = self._of(x)
        for name in names:
            if not self.why_not(name):
                yield name, math.nan if features is None else self._figure(name, features)

    def with_floors(self, names: Iterable[str]) -> list[str]:
        """Return those measures, each once, that have a floor here."""
        own = [name for name in dict.fromkeys(names) if not self.by_reference(name)]
        return [name for name in own if not self.why_not(name) and len(self._held_out)]

    def floors(self, names: Iterable[str], begin: Callable[[str], object] = lambda name: None) -> dict[str, Floor]:
        """Return a perfect sampler's value over several draws, for each measure that can be computed here.

        Args:
            names: of the measures.
            begin: called with the name before each of the `draws` figures of a measure.
        """
        names = self.with_floors(names)
        of_draws: dict[str, list[float]] = {name: [] for name in names}
        for i in range(self.draws if names else 0):
            drawn = self._features(real_draw(self._data, self._n, 0, i)[0])
            for name in names:
                begin(name)
                of_draws[name].append(self._measured(name, self._in_place(name, drawn, i), self._real(name)))
        return {name: floor_of(values) for name, values in of_draws.items()}

    def floor_from(self, name: str) -> int:
        """Return from how many different real samples a floor is drawn, at most n; if fewer, samples repeat."""
        real = self._held_out if OF_SAMPLES[name].against == "train" else self._data.train_sample(self._n)
        return len(real)

    @property
    def draws(self) -> int:
        """The number of draws over which a floor is averaged: fewer if figures are expensive."""
        is_dear = self._n > _DEAR[0] or self._held_out[:1].numel() > _DEAR[1]
        return _DEAR_DRAWS if is_dear else _DRAWS

    @property
    def has_classes(self) -> bool:
        """Whether the labels of held-out data are known, for `of_classes`."""
        return has(self._data, HasHeldOutLabels)

    def of_classes(self, name: str, x: Tensor, labels: Tensor) -> list[OfClass]:
        """Return a measure of samples x (n, ...) with labels (n,), class by class."""
        features, labels, found = self._of(x), labels.to(self._held_out.device), []
        for label in range(self._data.classes):
            mine, held_out = labels == label, self._held_out[self._held_out_labels == label]
            real = self._train if OF_SAMPLES[name].against == "train" else held_out
            reason = too_few(name, int(mine.sum()), len(real))
            value = None
            if not reason:
                value = math.nan if features is None else self._measured(name, features[mine], real)
            found.append(OfClass(label, int(mine.sum()), len(held_out), value, reason))
        return found

    def floors_of_classes(
        self, names: Iterable[str], begin: Callable[[str], object] = lambda name: None
    ) -> dict[str, list[Floor | None]]:
        """Return the floor of each class by measure; None if a draw has too few samples of the class.

        `begin` is called as `floors` does.
        """
        rows: dict[str, list[list[float | None]]] = {name: [] for name in names}
        for i in range(self.draws if rows else 0):
            x, labels = real_draw(self._data, self._n, 0, i)
            for name, own in rows.items():
                begin(name)
                if OF_SAMPLES[name].against == "train":
                    own.append(self._of_held_out(name, self._anew(i)))
                else:
                    own.append([each.value for each in self.of_classes(name, x, labels)])
        return {name: [_floor_or_none(values) for values in zip(*own, strict=True)] for name, own in rows.items()}

    def _of(self, x: Tensor) -> Tensor | None:
        """Return the features of samples, or None if the samples are not finite. The last features are cached."""
        if self._last is None or self._last[0] is not x:
            self._last = x, self._features(x) if bool(x.isfinite().all()) else None
        return self._last[1]

    def _of_held_out(self, name: str, index: Tensor) -> list[float | None]:
        """Return a measure of held-out samples against the training set, by class; None for an empty class."""
        drawn, labels = self._held_out[index], self._held_out_labels[index]
        parts = [drawn[labels == label] for label in range(self._data.classes)]
        return [self._measured(name, part, self._train) if len(part) else None for part in parts]

    def _in_place(self, name: str, drawn: Tensor, i: int) -> Tensor:
        """Return the samples of a perfect sampler at its i-th draw."""
        return self._held_out[self._anew(i)] if OF_SAMPLES[name].against == "train" else drawn

    def _anew(self, i: int) -> Tensor:
        """Return the indices of the held-out samples in the i-th draw, (n,)."""
        generator = StepRandom(torch.device("cpu"), 0, i).generator("held out")
        return torch.randint(len(self._held_out), (self._n,), generator=generator).to(self._held_out.device)

    def _real(self, name: str) -> Tensor:
        return self._train if OF_SAMPLES[name].against == "train" else self._held_out

    def _figure(self, name: str, features: Tensor) -> float:
        if self._reference is not None and self.by_reference(name):
            return self._reference.distance(features)
        return self._measured(name, features, self._real(name))

    def _measured(self, name: str, x: Tensor, real: Tensor) -> float:
        return getattr(importlib.import_module(f"cmbench.evaluation.{name}"), name)(x, real)

    @cached_property
    def _held_out(self) -> Tensor:
        return self._features(self._data.held_out(self._n))

    @cached_property
    def _held_out_labels(self) -> Tensor:
        assert has(self._data, HasHeldOutLabels)
        return self._data.held_out_labels(self._n).to(self._held_out.device)

    @cached_property
    def _train(self) -> Tensor:
        return self._features(self._data.train_sample(_TRAIN))


def floor_of(values: list[float]) -> Floor:
    """Return the floor from the figures of several draws."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Floor(statistics.fmean(values), spread, len(values))


def _floor_or_none(values: Iterable[float | None]) -> Floor | None:
    known = list(values)
    measured = [value for value in known if value is not None]
    return floor_of(measured) if len(measured) == len(known) else None
