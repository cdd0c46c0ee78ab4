"""What the measurements of one recipe come to: a step's seconds, its phases, and its share of the device's rate."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from cmbench.engine.bench import timing
from cmbench.engine.bench.phases import BOTH
from cmbench.engine.bench.subject import Subject
from cmbench.recipe import Recipe

_ORDER = ("data", "student", BOTH, "target", "tangent", "teacher", "loss", "backward", "optimiser", "averages")
_PART_OF = {"anatomy": "diagnostics", "log": "diagnostics", "rows": "recording", "profiles": "recording"}
RECORDING = "recording"  # between two steps: no part of them


@dataclass(frozen=True)
class Phase:
    """A phase of a step.

    Attributes:
        name: of the phase.
        seconds: a step; what is not done at each step is shared out over those between.
        bytes: the most that it takes beyond what is kept; None if unknown.
    """

    name: str
    seconds: float
    bytes: int | None


@dataclass(frozen=True)
class Amounts:
    """What is counted in single steps.

    Attributes:
        flop: operations of a step of this rank.
        kept: bytes that stay from step to step.
        peaks: the most bytes beyond those, by phase; empty if unknown.
        status: seconds of a status, which is written once a second.
    """

    flop: float
    kept: int
    peaks: Mapping[str, int]
    status: float


@dataclass(frozen=True)
class Cost:
    """The cost of a recipe's step.

    Attributes:
        name: of the recipe.
        device: where it trains.
        precision: of its network.
        parameters: of its network.
        batch_size: samples of a step, of all ranks.
        seconds: of a step, the median of the rounds.
        middle: the quartiles of the seconds.
        images_per_s: of all ranks.
        bare: seconds of a bare forward and backward of the same samples.
        ratio: of a step to that.
        passes: the same ratio by the objective's passes alone, where a backward is two forwards.
        flop: operations of a step of this rank.
        product: operations a second of a product of square matrices.
        phases: those of a step, in order, and the recording between two steps.
        kept: bytes that stay from step to step.
        compiling: seconds of compiling at the first step, which are no part of the others.
        alone: images per second of one rank that takes the whole batch; None for one rank, or if it cannot.
        differs: what is not as in a run.
    """

    name: str
    device: str
    precision: str
    parameters: int
    batch_size: int
    seconds: float
    middle: tuple[float, float]
    images_per_s: float
    bare: float
    ratio: float
    passes: float
    flop: float
    product: float
    phases: Sequence[Phase]
    kept: int
    compiling: float
    alone: float | None
    differs: Sequence[str]

    @property
    def share(self) -> float:
        """The share of the device's rate that a step has."""
        return self.flop / self.seconds / self.product

    @property
    def peak(self) -> int | None:
        """The most bytes that a step needs, with those that are kept; None if unknown."""
        known = [phase.bytes for phase in self.phases if phase.bytes is not None]
        return self.kept + max(known) if known else None

    def told(self) -> dict[str, Any]:
        """Return it as data."""
        return {**asdict(self), "steps_per_s": 1 / self.seconds, "share_of_product": self.share, "peak": self.peak}


def of_rounds(subject: Subject, seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """Return the seconds of a step in each round, with the step's share of looks and means that are not at each."""
    every = _every(subject.built.recipe)
    rare = sum(_median(subject.phases, name) / every[name] for name in ("anatomy", "log") if every[name])
    return [own / subject.at_once + rare for own in seconds["step"]]


def of(
    subject: Subject,
    seconds: Mapping[str, Sequence[float]],
    amounts: Amounts,
    alone: float | None = None,
    differs: Sequence[str] = (),
) -> Cost:
    """Return what the measurements come to.

    Args:
        subject: the recipe, whose phases have been listened to.
        seconds: of its works in each round.
        amounts: counted in single steps.
        alone: as in `Cost`.
        differs: as in `Cost`.
    """
    built, recipe = subject.built, subject.built.recipe
    steps, bare = of_rounds(subject, seconds), [own / subject.at_once for own in seconds["bare"]]
    step, size = median(steps), recipe.train.batch_size
    low, _, high = quantiles(steps, n=4, method="inclusive") if len(steps) > 1 else (step,) * 3
    return Cost(
        name=recipe.name,
        device=str(built.device),
        precision=built.state.model.arithmetic(built.device),
        parameters=sum(p.numel() for p in built.state.model.parameters()),
        batch_size=size,
        seconds=step,
        middle=(low, high),
        images_per_s=size / step,
        bare=median(bare),
        ratio=timing.ratio(steps, bare),
        passes=built.compute.per_image / 3,
        flop=amounts.flop,
        product=subject.of_product * subject.at_once / median(seconds["product"]),
        phases=_phases(recipe, subject.phases, amounts, step),
        kept=amounts.kept,
        compiling=subject.compiling,
        alone=alone,
        differs=differs,
    )


def _phases(recipe: Recipe, phases: Sequence[Mapping[str, float]], amounts: Amounts, step: float) -> list[Phase]:
    every, found, peaks = _every(recipe), dict[str, float](), dict[str, int]()
    for name in dict.fromkeys(name for each in phases for name in each):
        whole = _PART_OF.get(name, name)
        found[whole] = found.get(whole, 0.0) + _median(phases, name) / every.get(name, 1)
        if whole != RECORDING and amounts.peaks:
            peaks[whole] = max(peaks.get(whole, 0), amounts.peaks.get(name, 0))
    if RECORDING in found:
        found[RECORDING] += amounts.status * step  # a status a second
    order = [*(name for name in _ORDER if name in found), *(name for name in found if name not in _ORDER)]
    return [Phase(name, found[name], peaks.get(name)) for name in order]


def _every(recipe: Recipe) -> dict[str, int]:
    """Return the steps between what is not done at each."""
    log, profile = recipe.log.every, recipe.profile
    return {"anatomy": profile.anatomy_every, "log": log, "rows": log, "profiles": profile.every}


def _median(phases: Sequence[Mapping[str, float]], name: str) -> float:
    return median([each[name] for each in phases if name in each] or [0.0])
