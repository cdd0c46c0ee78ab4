"""Averages of other lengths, out of those that training has kept, without training (Karras et al. 2024, section 3)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from cmbench import recipe as recipes
from cmbench.engine import checkpoint
from cmbench.equations import ema
from cmbench.equations.ema import Profiles
from cmbench.errors import NotFoundError, UsageError, refusing_write_errors
from cmbench.progress import Progress
from cmbench.rundir import checkpoints, reconstructed
from cmbench.rundir.checkpoints import AVERAGE
from cmbench.rundir.files import make_folder
from cmbench.rundir.layout import RunDir, steps_of_checkpoints

WIDEST = 0.28  # sigma_rel of a power function
WITHIN = 0.1  # the largest error of a reconstructed profile, as a share of its norm

Tensors = dict[str, Tensor]


class Kept(NamedTuple):
    """One average on the disk: in `place`, which is a run or its kept averages, at a step, in a group of tensors."""

    place: RunDir
    step: int
    group: str

    @property
    def sigma_rel(self) -> float:
        """Its length."""
        return float(self.group.removeprefix(AVERAGE))


@dataclass(frozen=True)
class Outcome:
    """One length.

    Attributes:
        length: sigma_rel, as a recipe writes it.
        error: of the reconstructed profile, as a share of its norm: 0 is exact.
        weights: the sum of the absolute weights; rounding errors of the kept averages grow by as much.
        difference: distance from the average that training itself took, if it took one of this length, as a share of
            that average's distance from the raw weights.
        path: the file; empty where training took that average, which is used then.
    """

    length: str
    error: float
    weights: float
    difference: float | None
    path: str


class Source:
    """What a run has kept up to one of its checkpoints, whose own averages count too.

    Args:
        run: the run.
        step: of the checkpoint.
        only: use only kept averages of these lengths; all if empty.

    Raises:
        UsageError: the run's averages have no power profile, or it keeps none of these lengths.
        NotFoundError: nothing is kept, or the checkpoint is damaged.
    """

    def __init__(self, run: RunDir, step: int, only: Sequence[float] = ()) -> None:
        self.run, self.step = run, step
        profile = recipes.load(run.recipe).ema.profile
        how = "training keeps averages with ema.profile=power and ema.keep_every=STEPS"
        if profile != "power":
            raise UsageError(f"{run.name}: ema.profile: found '{profile}', allowed: 'power' ({how})")
        self._sums = checkpoints.checksums(run, step)
        if self._sums is None:
            raise NotFoundError(f"{run.checkpoint(step) / 'state.json'}: missing or broken")
        self.steps = [s for s in steps_of_checkpoints(run.kept) if 0 < s < step]
        if not self.steps:
            raise NotFoundError(f"{run.name}: no averages kept before checkpoint {step} ({how})")
        lengths_there = checkpoints.averages(self._sums)
        self.own = [length for length in lengths_there if 0 < (checkpoints.number(length) or 0.0) < WIDEST]
        if not self.own:
            raise NotFoundError(f"{run.checkpoint(step)}: damaged: it has no average of a width below {WIDEST}")
        if other := [length for length in only if repr(length) not in self.own]:
            raise UsageError(f"--kept: found {other[0]!r}, allowed: {', '.join(self.own)}, which {run.name} keeps")
        lengths = [repr(length) for length in only] or self.own
        places = [*((run.kept, s) for s in self.steps), (run, step)]
        self.kept = [Kept(place, s, f"{AVERAGE}{length}") for place, s in places for length in lengths]

    @property
    def profiles(self) -> Profiles:
        """The profiles of the kept averages."""
        return Profiles.of_widths([kept.step for kept in self.kept], [kept.sigma_rel for kept in self.kept])

    def size(self) -> int:
        """Return the bytes that the copies take."""
        files = (path for s in self.steps for path in self.run.kept.checkpoint(s).glob("*.safetensors"))
        return sum(path.stat().st_size for path in files)

    def reachable(self) -> tuple[float, float] | None:
        """Return the shortest and the longest length that can be reconstructed; None if none can."""
        found = ema.reachable(self.profiles, self.step, WITHIN)
        return None if found is None else (_rounded(found[0], math.ceil), _rounded(found[1], math.floor))

    def reconstruct(self, lengths: Sequence[float], progress: Progress | None = None) -> list[Outcome]:
        """Write averages of these lengths for the checkpoint, each in (0, .28), unless training took them itself.

        Raises:
            UsageError: the kept averages do not reach a length, or it cannot be written.
            DamagedError: a kept average is damaged.
        """
        wanted = Profiles.of_widths([self.step] * len(lengths), lengths)
        x, errors = ema.combination(self.profiles, wanted)
        self._refuse_far(lengths, errors)
        sums = self._summed(x, progress or Progress())
        about = zip(lengths, errors.tolist(), x.abs().sum(dim=0).tolist(), sums, strict=True)
        return [self._outcome(repr(length), error, weights, tensors) for length, error, weights, tensors in about]

    def _refuse_far(self, lengths: Sequence[float], errors: Tensor) -> None:
        far = [length for length, error in zip(lengths, errors.tolist(), strict=True) if not error <= WITHIN]
        if far:
            reach = self.reachable()
            allowed = f"{reach[0]:g} to {reach[1]:g}" if reach else "none"
            raise UsageError(
                f"--lengths: found {far[0]:g}, allowed: {allowed}, to which the averages of {len(self.steps)} steps "
                f"reach that {self.run.name} has kept before checkpoint {self.step}"
            )

    def _summed(self, x: Tensor, progress: Progress) -> list[Tensors]:
        """Return sum_i x_ij theta_i for each wanted average j; whole numbers are those of the checkpoint."""
        progress.expect(len(self.kept))
        sums: list[Tensors] = [{} for _ in range(x.shape[1])]
        for i, kept in enumerate(self.kept):
            progress.begin(f"averages of step {kept.step}")
            tensors = checkpoint.load_group(*kept)
            for own, weight in zip(sums, x[i].tolist(), strict=True):
                for name, tensor in tensors.items():
                    own[name] = own.get(name, 0) + weight * tensor.double() if tensor.is_floating_point() else tensor
        return [{name: sum_.to(tensors[name].dtype) for name, sum_ in own.items()} for own in sums]

    def _outcome(self, length: str, error: float, weights: float, tensors: Tensors) -> Outcome:
        group = f"{AVERAGE}{length}"
        if length in self.own:
            taken, raw = (checkpoint.load_group(self.run, self.step, name) for name in (group, "model"))
            return Outcome(length, error, weights, _distance(tensors, taken) / _distance(taken, raw), "")
        assert self._sums is not None
        place = reconstructed.place(self.run, length)
        told = {"model": self._sums["model"], "error": error}
        with refusing_write_errors(place.checkpoints):
            for parent in (self.run.averages, place.checkpoints.parent):
                make_folder(parent)
            folder = checkpoint.save(place, self.step, {group: tensors}, told)
        return Outcome(length, error, weights, None, str(folder / f"{group}.safetensors"))


def _distance(one: Tensors, other: Tensors) -> float:
    """Return the Euclidean distance over all numbers."""
    return math.sqrt(sum(float((one[name].double() - own.double()).square().sum()) for name, own in other.items()))


def _rounded(value: float, how: Callable[[float], int]) -> float:
    """Return three digits of a number, as `how` rounds."""
    unit = 10 ** (2 - math.floor(math.log10(value)))
    return how(value * unit) / unit
