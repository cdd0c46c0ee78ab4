"""The schedules of a recipe's objective over the steps and over the noise levels, taken from the objective itself.

The objective computes its loss on noise, with a stand-in for the network and for the teacher: times, intervals and
weights do not depend on them. Two kinds of weight do, and a note says so. A weight made from the loss is shown for a
network that returns 0; a learned weight, w_phi, is shown with its initial value.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cmbench import consent
from cmbench.contracts import KnowsShape, Terms, has
from cmbench.engine import build
from cmbench.engine.optimizer import learning_rate
from cmbench.errors import prefixing
from cmbench.randomness import StepRandom
from cmbench.recipe import Recipe

BINS = 48
_SAMPLES = 2**16  # for each curve over the noise levels: a bin with 2% of them is known to 3%
_ENOUGH = 16  # samples in a bin for a mean
_NUMBERS = 2**22  # samples times dimensions, at most
_STEPS = 96  # evenly spaced steps at which the scalars are computed, besides the last
_CPU = torch.device("cpu")
_STAND_IN = {"kind": "cmbench.networks._stand_in:Network"}


@dataclass(frozen=True)
class OverNoise:
    """Curves over the noise level at one step; each list has BINS numbers.

    Attributes:
        step: the step.
        edges: BINS + 1 noise levels from sigma_min to sigma_max, evenly spaced in the logarithm.
        proposal: density p(log sigma) of the drawn times, natural logarithm.
        weight: density of the effective weight lambda(t) p(t): each bin's share divided by the bin's width.
        interval: mean of (t - r) / t in the path's own time, None in a bin with too few samples; empty for one time.
        outside: share of the samples, and of the weight, below sigma_min or above sigma_max; nan for a weight that is
            not finite.
    """

    step: int
    edges: list[float]
    proposal: list[float]
    weight: list[float]
    interval: list[float | None]
    outside: tuple[float, float]


@dataclass(frozen=True)
class Schedules:
    """The schedules of one recipe.

    Attributes:
        name: the recipe's name.
        total: number of training steps.
        steps: where the scalars were computed.
        scalars: by name, a number for each of `steps`; "lr" is the learning rate.
        noise: curves at the first, the middle and the last step.
        notes: what the reader should know about the weight.
    """

    name: str
    total: int
    steps: list[int]
    scalars: dict[str, list[float]]
    noise: list[OverNoise]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the schedules as plain data."""
        return asdict(self)


def of_recipe(recipe: Recipe, where: str) -> Schedules:
    """Return the schedules of a complete recipe. Fetches no data, and builds neither network nor teacher.

    Raises:
        UsageError: the objective refuses the recipe; the message names `where`.
    """
    with prefixing(where):
        looked = _Looked(recipe)
    last = recipe.train.steps - 1
    steps = sorted({round(i * last / _STEPS) for i in range(_STEPS + 1)})
    few = [looked.terms(step, 4).scalars for step in steps]
    scalars = {name: [float(values[name]) for values in few] for name in few[0]}
    scalars["lr"] = [learning_rate(recipe.optimizer, step, recipe.train.steps) for step in steps]
    noise = [looked.over_noise(step) for step in sorted({0, last // 2, last})]
    infinite = [f"{look.step:,}" for look in noise if not math.isfinite(look.outside[1])]
    lost = [f"the weight is not finite at step {', '.join(infinite)}: such a run diverges"] if infinite else []
    return Schedules(recipe.name, recipe.train.steps, steps, scalars, noise, [*lost, *looked.notes()])


def that_follow_steps(before: Recipe, after: Recipe) -> list[str]:
    """Return the names of the scalars that change with train.steps, such as ["N", "mu", "lr"].

    The recipes are complete, and differ in train.steps. An objective that cannot be looked at names none.
    """
    steps = sorted({round(i * (before.train.steps - 1) / _STEPS) for i in range(_STEPS + 1)})
    courses = [_course(recipe, steps) for recipe in (before, after)]
    return [name for name, course in courses[0].items() if course != courses[1].get(name)]


def _course(recipe: Recipe, steps: Sequence[int]) -> dict[str, list[float]]:
    try:
        looked = _Looked(recipe)
        few = [looked.terms(step, 4).scalars for step in steps]
        scalars = {name: [float(values[name]) for values in few] for name in few[0]}
    except Exception:  # a custom objective may raise anything with a stand-in for its network
        scalars = {}
    return scalars | {"lr": [learning_rate(recipe.optimizer, step, recipe.train.steps) for step in steps]}


class _Looked:
    """An objective with stand-ins for network and teacher."""

    def __init__(self, recipe: Recipe) -> None:
        self.seed = recipe.seed
        cls, settings = build.settings("objective", recipe)
        if getattr(settings, "distance", "") == "lpips":  # no weight depends on it, and it needs large pictures
            settings = settings.model_copy(update={"distance": "l2"})
        shape = _shape(recipe)
        self.shape = shape if ":" in recipe.objective["kind"] else tuple(min(n, 3) for n in shape)
        plain = recipe.train.model_copy(update={"precision": "float32", "channels_last": False})
        bare = recipe.model_copy(update={"network": _STAND_IN, "train": plain})
        consent.ours(_STAND_IN["kind"])
        self.model = build.model(bare, self.shape, 0, _CPU)
        teacher = None if recipe.teacher is None else _Teacher(recipe.path.sigma_data)
        self.objective = cls(settings, self.model, teacher, recipe.train.steps)

    def terms(self, step: int, n: int) -> Terms:
        """Return the objective's terms for n samples at a step. The random numbers are the same at every step."""
        random = StepRandom(_CPU, self.seed, 0)
        generator = random.generator("data")
        x_0 = self.model.sigma_data * torch.randn(n, *self.shape, generator=generator)
        with torch.no_grad():
            return self.objective.loss(self.model, x_0, None, step, random)

    def over_noise(self, step: int) -> OverNoise:
        """Return the densities at a step."""
        model = self.model
        n = min(_SAMPLES, max(1, _NUMBERS // torch.Size(self.shape).numel()))
        terms = self.terms(step, n)
        edges = torch.linspace(_log(model.sigma_min), _log(model.sigma_max), BINS + 1, dtype=torch.float64)
        # Grids end at sigma_min and sigma_max, and float32 may put their ends on either side of the edge.
        log_sigma = model.path.noise_level(terms.t.double()).log()
        slack = 1e-5 * (edges[-1] - edges[0])
        inside = (log_sigma >= edges[0] - slack) & (log_sigma <= edges[-1] + slack)
        index = torch.bucketize(log_sigma, edges[1:-1], right=True)[inside]
        width = float(edges[1] - edges[0])

        def density(weight: Tensor) -> tuple[list[float], float]:
            total, within = weight.sum(), weight[inside]
            share = torch.zeros(BINS, dtype=torch.float64).index_add_(0, index, within) / total
            outside = float(1 - within.sum() / total) if total.isfinite() else math.nan
            return (share / width).tolist(), outside

        proposal, outside = density(torch.ones_like(log_sigma))
        weight, weight_outside = density(terms.weight.double())
        interval = [] if terms.r is None else _means(((terms.t - terms.r) / terms.t).double()[inside], index)
        return OverNoise(step, edges.exp().tolist(), proposal, weight, interval, (outside, weight_outside))

    def notes(self) -> list[str]:
        """Return notes on what the weight depends on besides the time."""
        notes = []
        if any(p.requires_grad for p in self.objective.parameters()):
            notes.append("the weight is learned: shown with its initial value")
        before = self.terms(0, 256).weight
        with torch.no_grad():
            self.model.F_theta.a.fill_(0.5)  # type: ignore[operator]
            after = self.terms(0, 256).weight
            self.model.F_theta.a.zero_()  # type: ignore[operator]
        if not torch.equal(before, after):
            notes.append("the weight depends on the loss: shown for a network that returns 0, with noise as data")
        return notes


class _Teacher:
    """The closed-form denoiser for data N(0, sigma_data^2); as a consistency model, the identity."""

    def __init__(self, sigma_data: float) -> None:
        self.sigma_data = sigma_data

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x] = sigma_data^2 / (sigma_data^2 + sigma^2) x. (B, ...)."""
        factor = self.sigma_data**2 / (self.sigma_data**2 + sigma.square())
        return factor.view(-1, *[1] * (x.ndim - 1)).to(x.dtype) * x

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return x. (B, ...)."""
        return x


def _shape(recipe: Recipe) -> tuple[int, ...]:
    """Return the shape of the recipe's data without fetching them."""
    cls, own = build.data_settings(recipe)
    if has(cls, KnowsShape):
        return cls.shape_and_classes(own)[0]
    return tuple(cls(own, _CPU).shape)


def _log(sigma: float) -> float:
    return float(torch.tensor(sigma, dtype=torch.float64).log())


def _means(values: Tensor, index: Tensor) -> list[float | None]:
    """Return the mean of the values in each bin, None where there are too few."""
    counts = torch.zeros(BINS, dtype=torch.float64).index_add_(0, index, torch.ones_like(values))
    sums = torch.zeros(BINS, dtype=torch.float64).index_add_(0, index, values)
    pairs: Sequence[tuple[float, float]] = list(zip(sums.tolist(), counts.tolist(), strict=True))
    return [total / count if count >= _ENOUGH else None for total, count in pairs]
