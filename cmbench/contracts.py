"""The contracts of plug-ins: what the engine expects of objectives, networks, data sets, evaluations and teachers.

A recipe names a class by its file (`kind = "ct"`) or by its module (`kind = "mine:Objective"`). Each class is defined
next to its `Config`, a `cmbench.config.Config`, against which the recipe's table is checked. Do not inherit from these
protocols: a class that has their members satisfies them. Optional members are protocols of their own, such as
`HasOracle`; the engine looks for them with `has`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from cmbench.config import Config
from cmbench.model import Model as Model
from cmbench.randomness import StepRandom

P = TypeVar("P")


def has(thing: object, protocol: type[P]) -> TypeGuard[P]:
    """Return whether an object, or a class, has the members of a protocol, including those from __getattr__.

    Up to Python 3.11 `isinstance` did the same; since then it ignores __getattr__.
    """
    members = {*vars(protocol), *getattr(protocol, "__annotations__", {})}
    return all(hasattr(thing, name) for name in members if not name.startswith("_"))


class Teacher(Protocol):
    """A denoiser of the EDM path: an oracle, a trained model, or a user-defined class, built as `Teacher(data)`."""

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x]. x (B, ...), sigma (B,), labels (B,) -> (B, ...)."""


class Network(Protocol):
    """The raw network F_theta, an nn.Module, built as `Network(config, shape, classes, times)`.

    `shape` is the shape of one sample; `classes` is 0 without labels. `times` is passed only if it is 2: the network
    then gets t and t - r. Preferably name the embedding of the first time `time` and those of the others `more_times`.
    The embeddings of `cmbench.layers.embedding` know their derivative, which the anatomy of the tangent shows.
    """

    def __call__(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, *shape), c_noise (B,) or (B, 2), labels (B,) or None -> (B, *shape)."""


class TakesAugmentLabels(Protocol):
    """A network that may be told how training has changed its pictures; its Config has a key of this name.

    `data.augment` is refused for other networks. A model hands the labels to every pass of a training step; objectives
    know nothing of them. Elsewhere, as in sampling, there are none, which means the same as zeros: no change.

    Attributes:
        augment_labels: how many labels it takes.
    """

    augment_labels: int

    def __call__(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        """Return F_theta. augment_labels (B, augment_labels) or None, the rest as for other networks."""


class PreparesWeights(Protocol):
    """A network that sets its own weights right before each optimiser step, such as forced weight normalisation.

    The loop calls it before the batch's first pass, also of the first step, so it holds for weights from elsewhere. It
    follows from the weights alone: all ranks come to the same ones, and a resumed run to those of one that never
    stopped. A pass itself changes no weight. So all passes of a step, those of a target, of micro batches and of a
    derivative, see the same network, and averages of the weights need nothing.
    """

    def before_step(self) -> None:
        """Set the weights. The network must stay the same function."""


class BringsWeights(Protocol):
    """A network whose settings name weights to start from: a run without a checkpoint begins with them."""

    def bring_weights(self) -> None:
        """Load the weights, if the settings name any.

        Raises:
            UsageError: they cannot be read, or belong to another network.
        """


class HasLogVariance(Protocol):
    """A network with a head for the log of the size of its own loss, which `denoise` may train.

    The head's parameters have no gradient until `train_log_variance`, which an objective calls when it is built.
    """

    def train_log_variance(self) -> None:
        """Let the head learn."""

    def log_variance(self, c_noise: Tensor) -> Tensor:
        """Return u. (B,) -> (B,)."""


@dataclass(frozen=True)
class Terms:
    """The loss of one batch, and the values per sample that the time profile shows.

    `contracts.weighted(...)` builds it and detaches loss, weight, tangent_norm and per_sample.

    Attributes:
        total: the scalar to minimise, with gradient; by default the mean over the batch of weight * loss.
        t: the times, (B,).
        loss: the unweighted loss, (B,), detached.
        weight: the weight, (B,), detached.
        tangent_norm: the norm of the tangent, (B,), detached; None if the objective has no tangent.
        scalars: other numbers of this step, e.g. the curriculum's N and mu.
        r: the other ends of the intervals, (B,), for objectives of two times.
        per_sample: other values to show over time, by name, (B,) each, detached. The time profile shows each under its
            name; `OF_SAMPLES` of `cmbench.quantities` may give it a title and mark it as signed.
    """

    total: Tensor
    t: Tensor
    loss: Tensor
    weight: Tensor
    tangent_norm: Tensor | None = None
    scalars: dict[str, float] = field(default_factory=dict)
    r: Tensor | None = None
    per_sample: dict[str, Tensor] = field(default_factory=dict)


def weighted(
    loss: Tensor,
    weight: Tensor,
    t: Tensor,
    tangent_norm: Tensor | None = None,
    scalars: dict[str, float] | None = None,
    r: Tensor | None = None,
    per_sample: dict[str, Tensor] | None = None,
) -> Terms:
    """Return the terms of mean(weight * loss). Only loss (B,) carries a gradient."""
    norm = None if tangent_norm is None else tangent_norm.detach()
    weight = weight.to(loss.dtype)
    told = {name: value.detach() for name, value in (per_sample or {}).items()}
    return Terms((weight * loss).mean(), t, loss.detach(), weight.detach(), norm, scalars or {}, r, told)


@dataclass(frozen=True)
class Anatomy:
    """The parts of the tangent for some samples of a batch.

    Attributes:
        t: the times, (b,).
        values: by name, (b,) each; those of `cmbench.anatomy`.
    """

    t: Tensor
    values: dict[str, Tensor]


class Objective(Protocol):
    """A loss of consistency models, an nn.Module, built as `Objective(config, model, teacher, steps)`.

    Its parameters, if it has any, are trained together with the network's. It composes equations and never inherits
    from another objective. Everything random comes from `random`; everything it needs at a step is in its state.

    `model.time(noise_level)` gives the path's time in the right precision, `model.time_type(x_0)` the dtype of times.
    Draw times with `random.draw("any name", len(x_0), draw)`, where draw(n, generator) returns (n, ...). Draw noise
    with `random.noise(x_0)`. The batch may be a part of a larger one (`random.part`): each sample then gets the numbers
    that it has in the whole batch. `random.whole` and `random.rows` help where a loss depends on a sample's place.
    Each pass of the model or of a target takes the whole batch at hand.

    Attributes:
        paths: the kinds of path that it supports, of "edm", "vp", "trigflow" and "linear".
        teacher: what [teacher] must be: "none"; "denoiser"; "optional", a denoiser or none; or "consistency", a
            trained consistency model.
        sampler: "consistency", few steps of f; "ode", Heun steps of D; or "average_velocity", steps of u from t to r,
            where u is model.F(x_t, t, labels, r). Every sampler starts at t(sigma_max), not at t = 1. For n steps
            "consistency" takes the noise levels of `equations.sampling.consistency_sigmas`, "average_velocity" those
            of `even_sigmas` there, "ode" those of `equations.timesteps.karras_grid`. path.sigma_mid, if set, is the
            second of two consistency steps.
        forwards: the forward passes that `loss` makes per image, each over the whole batch, by name. The names are
            free, only the sum counts: 3 for a pass with its backward, 1 for a pass without gradient. Two names have a
            meaning: "teacher" passes count at the teacher's own cost; "tangent" says that `loss` differentiates F.
        config: its settings; they are replaced when a setting is changed during training.
    """

    paths: Sequence[str]
    teacher: Literal["none", "denoiser", "optional", "consistency"] | str
    sampler: Literal["consistency", "ode", "average_velocity"] | str
    forwards: Mapping[str, float]
    config: Any

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) with labels (B,) or None; `step` counts from 0.

        The total of a whole batch is the mean of the totals of its parts, weighted by their sizes.
        Each pass runs in its own `with random.dropout():`, so that all passes share one mask.
        """

    def after_step(self, model: Model, step: int) -> None:
        """Move the target, if there is one, after the optimiser's step."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 ascending times on the model's path, evenly spaced in the variable that t is drawn in."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As in nn.Module, which it is."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """As in nn.Module."""

    def state_dict(self) -> dict[str, Any]:
        """As in nn.Module."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """As in nn.Module."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As in nn.Module."""


class HasAnatomy(Protocol):
    """An objective that can take its tangent apart.

    For an objective without `anatomy`, `profile.anatomy_every` does nothing.
    """

    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of the tangent for some samples x_0 (b, ...) of a batch."""


class HasSwitches(Protocol):
    """An objective class with parts that `cmbench ablate` can switch off: name -> overrides `table.key=value`."""

    switches: Mapping[str, Sequence[str]]


class HasTimes(Protocol):
    """An objective class that states the number of times its network takes: 2, or 1, the default.

    A network of two times gets (c_noise(t), t - r). r = t asks for the velocity at t itself; r = None means r = 0.
    """

    times: int


class HasGroups(Protocol):
    """An objective class that couples neighbouring samples: each part of a batch starts at a multiple of `group`."""

    group: int


class HasLowest(Protocol):
    """An objective class that does not train down to path.sigma_min."""

    @staticmethod
    def sigma_lowest(config: Any) -> float:
        """The lowest noise level that it trains."""


class Data(Protocol):
    """A data set, built as `Data(config, device)`.

    Attributes:
        shape: the shape of one sample.
        classes: the number of labels.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample, e.g. (1, 28, 28) or (2,)."""

    @property
    def classes(self) -> int:
        """The number of labels, which are 0 to classes - 1."""

    def batch(self, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return x_0 (n, *shape) float32 and labels (n,) int64, which depend only on random's seed and step.

        n is the size of the whole batch. A data set may ignore `random.part` and return all n rows: the caller then
        takes the rows of the part. Only a data set that `DrawsParts` ever gets a part.
        """

    def held_out(self, n: int) -> Tensor:
        """Return up to n samples that training never sees; for a distribution, a fixed draw."""

    def train_sample(self, n: int) -> Tensor:
        """Return up to n training samples; for a distribution, another fixed draw."""


class DrawsParts(Protocol):
    """Data whose `batch` returns only the rows of `random.part`, where that is set, if `draws_parts` is true.

    They draw with `random.draw`, or draw the whole batch with `random.batch` and keep `random.rows` of it.
    """

    draws_parts: bool


class MovesNothing(Protocol):
    """An objective whose `after_step` changes nothing, if `moves_nothing` is true: see `engine.guard`."""

    moves_nothing: bool


class DrawsAhead(Protocol):
    """Data that can begin to draw the batch of the next step while the present one runs, if `draws_ahead` is true."""

    draws_ahead: bool

    def ahead(self, n: int, random: StepRandom) -> None:
        """Prepare what `batch` will be asked for with equal arguments. Other batches may be asked for before."""


class HasOracle(Protocol):
    """Data whose denoiser has a closed form."""

    def oracle(self) -> Teacher:
        """Return the exact denoiser of the training data."""


class Drawn(Protocol):
    """Data that can draw independent samples; for other data `batch` draws them."""

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return n draws from the training distribution with labels, by a CPU generator: those of a perfect sampler."""


class HasHeldOutLabels(Protocol):
    """Data whose held-out samples have labels, for figures per class."""

    def held_out_labels(self, n: int) -> Tensor:
        """Return the labels of held_out(n), (n,)."""


class HasNames(Protocol):
    """Data whose classes have names, in the order of their labels."""

    names: Sequence[str]


class HasCounts(Protocol):
    """Data that know the number of training samples of each class, in the order of the labels."""

    counts: Sequence[int]


class HasSizes(Protocol):
    """A finite set that knows how many samples it has for training and how many are held out."""

    count_and_held_out: tuple[int, int]


class HasSummary(Protocol):
    """Data that sum up in one line what was found, for the journal."""

    summary: str


class HasScale(Protocol):
    """Data whose samples are (x - shift) scale of the numbers x that the user gave."""

    shift: Sequence[float]  # a number for each channel, or none
    scale: float


class HasContent(Protocol):
    """Data with a text that changes with the samples or labels; other data are told apart by some samples."""

    content: str


class KnowsShape(Protocol):
    """A data set class that knows shape and classes without reading or fetching a file."""

    def __call__(self, config: Any, device: torch.device) -> Data:
        """Build the data set."""

    @staticmethod
    def shape_and_classes(config: Any) -> tuple[tuple[int, ...], int]:
        """The shape of one sample and the number of labels."""


class Located(Protocol):
    """Settings of a data set whose paths can be made independent of the working directory."""

    def located(self, base: Path) -> Config:
        """Return the settings with relative paths taken from base."""


class Evaluation(Protocol):
    """A measure of samples: a function named like its file."""

    def __call__(self, x: Tensor, y: Tensor) -> float:
        """Return the figure of samples x (n, ...) against real samples y (m, ...), or of the features of both."""
