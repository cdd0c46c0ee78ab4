"""What the engine asks of objectives, networks, data sets, evaluations and teachers: the contracts of plug-ins.

A recipe names a class by its file (`kind = "ct"`) or by its module (`kind = "mine:Objective"`). Each class stands next
to its `Config`, a `cmbench.config.Config`, which the recipe's table is checked against. Nobody inherits from these
protocols: a class that has their members is one. What a class may have beside them is a protocol of its own, such as
`HasOracle`, for which the engine asks by `has`.
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
    """Return whether an object, or a class, has the members of a protocol, through __getattr__ too.

    `isinstance` has looked at them so up to Python 3.11, and looks past __getattr__ since.
    """
    members = {*vars(protocol), *getattr(protocol, "__annotations__", {})}
    return all(hasattr(thing, name) for name in members if not name.startswith("_"))


class Teacher(Protocol):
    """A denoiser of the EDM path: an oracle, a trained model, or a user-defined class, built as `Teacher(data)`."""

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x]. x (B, ...), sigma (B,), labels (B,) -> (B, ...)."""


class Network(Protocol):
    """The raw network F_theta, an nn.Module, built as `Network(config, shape, classes, times)`.

    `shape` is that of one sample; `classes` is 0 without labels; `times` is given where it is 2, for a network that is
    told t and t - r. The embedding of the first time is best the attribute `time`, of the others `more_times`: those of
    `cmbench.layers.embedding` tell their derivative, which the anatomy of the tangent shows.
    """

    def __call__(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, *shape), c_noise (B,) or (B, 2), labels (B,) or None -> (B, *shape)."""


@dataclass(frozen=True)
class Terms:
    """One batch's loss, and per sample what the time profile shows.

    Attributes:
        total: the scalar to minimise, with gradient; mean over the batch of weight * loss where nothing else is said.
        t: the times, (B,).
        loss: the unweighted loss, (B,), detached.
        weight: the weight, (B,), detached.
        tangent_norm: the norm of the tangent, (B,), detached; None where the objective has no tangent.
        scalars: what else the objective knows of this step, e.g. the curriculum's N and mu.
        r: the other ends of the intervals, (B,), for objectives of two times.
        per_sample: what else is worth a look over time, by name, (B,) each, detached. The time profile shows it under
            that name; `OF_SAMPLES` of `cmbench.quantities` may give it a title, and say that it is signed.
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
    """Return the terms of mean(weight * loss). loss (B,) carries the gradient, the others none."""
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

    Its parameters, if it has any, are trained beside the network's. It composes equations and never inherits from
    another objective. All that it draws comes from `random`; all that it needs at a step is in its state.

    Attributes:
        paths: kinds of path that it is defined on, of "edm", "vp", "trigflow" and "linear".
        teacher: what [teacher] must be: "none"; "denoiser"; "optional", a denoiser or none; or "consistency", a
            trained consistency model.
        sampler: "consistency", few steps of f; "ode", Heun steps of D; or "average_velocity", steps of u from t to r,
            which is asked for as model.F(x_t, t, labels, r).
        forwards: forward passes that one image costs, by who makes them; a backward pass counts as two, and each pass
            takes the whole batch.
        config: its settings; others take their place when a setting is changed while the run trains.
    """

    paths: Sequence[str]
    teacher: Literal["none", "denoiser", "optional", "consistency"] | str
    sampler: Literal["consistency", "ode", "average_velocity"] | str
    forwards: Mapping[str, float]
    config: Any

    def loss(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Terms:
        """Return the loss of a batch x_0 (B, ...) with labels (B,) or None; `step` counts from 0.

        Each pass stands in a `with random.dropout():` of its own, so that all have one mask.
        """

    def after_step(self, model: Model, step: int) -> None:
        """Move the target, where there is one, after the optimiser's step."""

    def profile_edges(self, bins: int) -> Tensor:
        """Return bins + 1 ascending times on the model's path that split the sampler's own variable evenly."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """As of nn.Module, which it is."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """As of nn.Module."""

    def state_dict(self) -> dict[str, Any]:
        """As of nn.Module."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """As of nn.Module."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As of nn.Module."""


class HasAnatomy(Protocol):
    """An objective that can take its tangent apart."""

    def anatomy(self, model: Model, x_0: Tensor, labels: Tensor | None, step: int, random: StepRandom) -> Anatomy:
        """Return the parts of the tangent for some samples x_0 (b, ...) of a batch."""


class HasSwitches(Protocol):
    """An objective's class whose parts `cmbench ablate` can take away: name -> overrides `table.key=value`."""

    switches: Mapping[str, Sequence[str]]


class HasTimes(Protocol):
    """An objective's class whose network takes so many times: 2, or 1 as without it."""

    times: int


class HasLowest(Protocol):
    """An objective's class that does not train down to path.sigma_min."""

    @staticmethod
    def sigma_lowest(config: Any) -> float:
        """Return the lowest noise level that it trains."""


class Data(Protocol):
    """A data set, built as `Data(config, device)`.

    Attributes:
        shape: of one sample.
        classes: number of labels.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample, e.g. (1, 28, 28) or (2,)."""

    @property
    def classes(self) -> int:
        """How many labels there are: 0 to classes - 1."""

    def batch(self, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return x_0 (n, *shape) float32 and labels (n,) int64, a function of random's seed and step."""

    def held_out(self, n: int) -> Tensor:
        """Return up to n samples that training never sees; of a distribution, a fixed draw."""

    def train_sample(self, n: int) -> Tensor:
        """Return up to n training samples; of a distribution, another fixed draw."""


class HasOracle(Protocol):
    """Data whose denoiser has a closed form."""

    def oracle(self) -> Teacher:
        """Return the denoiser of what is trained on."""


class Drawn(Protocol):
    """Data of which independent samples can be drawn; of others `batch` draws them."""

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return n draws of what is trained on, and labels, by a generator of the CPU, as a perfect sampler would."""


class HasHeldOutLabels(Protocol):
    """Data whose held-out samples have labels, for figures of each class."""

    def held_out_labels(self, n: int) -> Tensor:
        """Return the labels of held_out(n), (n,)."""


class HasNames(Protocol):
    """Data whose classes have names, in the order of their labels."""

    names: Sequence[str]


class HasCounts(Protocol):
    """Data that know how many training samples each class has, in the order of the labels."""

    counts: Sequence[int]


class HasSizes(Protocol):
    """A finite set that tells how many samples it has for training, and how many held out."""

    count_and_held_out: tuple[int, int]


class HasSummary(Protocol):
    """Data that say in a line what was found, for the journal."""

    summary: str


class HasContent(Protocol):
    """Data with a text that is another where the samples or labels are others; of others some samples tell."""

    content: str


class KnowsShape(Protocol):
    """A data set's class that knows shape and classes without reading or fetching a file."""

    def __call__(self, config: Any, device: torch.device) -> Data:
        """Build the data set."""

    @staticmethod
    def shape_and_classes(config: Any) -> tuple[tuple[int, ...], int]:
        """Return both."""


class Located(Protocol):
    """Settings of a data set whose paths can be made independent of the working directory."""

    def located(self, base: Path) -> Config:
        """Return the settings with relative paths taken from base."""


class Evaluation(Protocol):
    """A measure of samples: a function of the name of its file."""

    def __call__(self, x: Tensor, y: Tensor) -> float:
        """Return the figure of samples x (n, ...) beside real ones y (m, ...), or of features of both."""
