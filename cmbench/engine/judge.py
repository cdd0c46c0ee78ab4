"""The measures of samples beside real data."""

import importlib
import math
import statistics
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from cmbench.contracts import Data, Drawn, HasHeldOutLabels, has
from cmbench.measures import OF_SAMPLES, Floor, too_few
from cmbench.randomness import StepRandom

_TRAIN = 60_000  # at most so many training samples are looked through for neighbours
_DRAWS, _DEAR_DRAWS = 20, 5  # of a floor; the second where figures are dear
_DEAR = 2048, 1024  # figures are, of more samples than the first or of more numbers in each than the second
Features = Callable[[Tensor], Tensor]


def as_they_are(x: Tensor) -> Tensor:
    """Return the samples themselves: measures of pixels, or of points."""
    return x


def real_draw(data: Data, n: int, seed: int, i: int = 0) -> tuple[Tensor, Tensor]:
    """Return n independent draws of what is trained on, and their labels, as a function of seed and i alone."""
    if has(data, Drawn):
        return data.draw(n, StepRandom(torch.device("cpu"), seed, i).generator("perfect"))
    return data.batch(n, StepRandom(data.held_out(1).device, seed, i))


def labels_as_data(data: Data, n: int, seed: int) -> Tensor:
    """Return labels (n,) whose shares are those of the data: of n draws, as a perfect sampler's are."""
    return real_draw(data, n, seed)[1]


class OfClass(NamedTuple):
    """One class of labelled samples beside the held-out samples of that class.

    Attributes:
        label: of the class.
        samples: how many were measured.
        real: held-out samples of the class.
        value: the figure; nan where the samples are not finite.
        why_not: why there is none; empty where there is one.
    """

    label: int
    samples: int
    real: int
    value: float | None
    why_not: str


class Judge:
    """Measures samples against the real data that each measure wants.

    The floor of a measure is what a perfect sampler would show: n training samples drawn anew in the place of samples
    against held-out data, or, where a measure looks at the training set, held-out data drawn anew in their place.
    Of a finite set a sample may be drawn twice, as a perfect sampler of the training set would.

    Args:
        data: the data set.
        n: so many samples, and so many held-out ones, or all there are.
        features: of samples (n, ...), which are compared in their place.
    """

    def __init__(self, data: Data, n: int, features: Features = as_they_are) -> None:
        self._data, self._n, self._features = data, n, features
        self._last: tuple[Tensor, Tensor | None] | None = None

    def why_not(self, name: str) -> str:
        """Return why there are too few samples or real data for a measure; empty where there are not."""
        return too_few(name, self._n, len(self._real(name)))

    def figures(self, names: Iterable[str], x: Tensor) -> Iterator[tuple[str, float]]:
        """Yield measures of samples x (n, ...), each with its name; nan where the samples are not finite.

        A measure that wants more samples than there are is left out: see `why_not`.
        """
        features = self._of(x)
        for name in names:
            if not self.why_not(name):
                yield name, math.nan if features is None else self._measured(name, features, self._real(name))

    def floors(self, names: Iterable[str]) -> dict[str, Floor]:
        """Return what a perfect sampler would show, of several draws, for each measure that has a number here."""
        names = [name for name in dict.fromkeys(names) if not self.why_not(name) and len(self._held_out)]
        of_draws: dict[str, list[float]] = {name: [] for name in names}
        for i in range(self.draws if names else 0):
            drawn = self._features(real_draw(self._data, self._n, 0, i)[0])
            for name in names:
                of_draws[name].append(self._measured(name, self._in_place(name, drawn, i), self._real(name)))
        return {name: floor_of(values) for name, values in of_draws.items()}

    def floor_from(self, name: str) -> int:
        """Return from how many different real samples a floor is drawn: fewer than n repeat in it. At most n."""
        real = self._held_out if OF_SAMPLES[name].against == "train" else self._data.train_sample(self._n)
        return len(real)

    @property
    def draws(self) -> int:
        """Of how many draws a floor is the mean: fewer where figures are dear."""
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

    def floors_of_classes(self, names: Iterable[str]) -> dict[str, list[Floor | None]]:
        """Return the floor of each class by measure; None where a draw has too few samples of it."""
        rows: dict[str, list[list[float | None]]] = {name: [] for name in names}
        for i in range(self.draws if rows else 0):
            x, labels = real_draw(self._data, self._n, 0, i)
            for name, own in rows.items():
                if OF_SAMPLES[name].against == "train":
                    own.append(self._of_held_out(name, self._anew(i)))
                else:
                    own.append([each.value for each in self.of_classes(name, x, labels)])
        return {name: [_floor_or_none(values) for values in zip(*own, strict=True)] for name, own in rows.items()}

    def _of(self, x: Tensor) -> Tensor | None:
        """Return the features of samples, None where these are not finite; those of the last samples are kept."""
        if self._last is None or self._last[0] is not x:
            self._last = x, self._features(x) if bool(x.isfinite().all()) else None
        return self._last[1]

    def _of_held_out(self, name: str, index: Tensor) -> list[float | None]:
        """Return a measure of held-out samples against the training set, class by class; None of an empty class."""
        drawn, labels = self._held_out[index], self._held_out_labels[index]
        parts = [drawn[labels == label] for label in range(self._data.classes)]
        return [self._measured(name, part, self._train) if len(part) else None for part in parts]

    def _in_place(self, name: str, drawn: Tensor, i: int) -> Tensor:
        """Return what a perfect sampler would have in the place of samples, at its i-th draw."""
        return self._held_out[self._anew(i)] if OF_SAMPLES[name].against == "train" else drawn

    def _anew(self, i: int) -> Tensor:
        """Return which held-out samples the i-th draw takes, (n,)."""
        generator = StepRandom(torch.device("cpu"), 0, i).generator("held out")
        return torch.randint(len(self._held_out), (self._n,), generator=generator).to(self._held_out.device)

    def _real(self, name: str) -> Tensor:
        return self._train if OF_SAMPLES[name].against == "train" else self._held_out

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
    """Return the floor of several draws' figures."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Floor(statistics.fmean(values), spread, len(values))


def _floor_or_none(values: Iterable[float | None]) -> Floor | None:
    known = list(values)
    measured = [value for value in known if value is not None]
    return floor_of(measured) if len(measured) == len(known) else None
