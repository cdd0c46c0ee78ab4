"""The checks of `make gpu`: three steps, dropout masks, a resumed run, and gradients beside those of the CPU.

Each is one `Check` of one recipe. The device is a parameter, so that tests run every check on the CPU.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.engine import checkpoint, passes, runner, trainer
from cmbench.engine.doctor import network, probe
from cmbench.engine.doctor.check import Check, first_line
from cmbench.engine.runner import Runner
from cmbench.engine.trainer import Trainer
from cmbench.errors import STOPPED
from cmbench.randomness import Draw, StepRandom
from cmbench.rundir.layout import RunDir
from on_gpu import chosen
from on_gpu.budget import Budget

PRECISIONS = ("float32", "bfloat16")
STEPS, STOP, BATCH = 3, 2, 16
ALLOWED = 1e-4  # relative difference of a parameter's gradient in float32
_SMALLEST = 1e-3  # of the whole gradient: what is smaller is compared with this
_PATIENCE = 20.0  # seconds that must be left for a check: most take about one
_SHORT = (
    *(f"train.steps={STEPS}", f"train.batch_size={BATCH}", "optimizer.warmup=0", "log.every=1"),
    *("profile.every=1", "profile.anatomy_every=1", "evaluate.every=0", "snapshot.every=0", "checkpoint.every=0"),
)
_DROPOUT = "network.dropout=0.3"
# Keys of [objective] that make the first step as good to compare as any: without the first, the derivative would not
# count yet; a pair of times that lie further apart loses fewer digits.
_COMPARABLE = {"tangent_warmup": "0", "ratio": "0.9"}


def checks(device: str, folder: Path, budget: Budget, names: Sequence[str] = ()) -> Iterator[Check]:
    """Yield all checks; those that no longer fit into the budget have the level "-".

    Args:
        device: of train.device.
        folder: for runs; empty.
        budget: the time for all of them.
        names: of recipes; if empty, those of `chosen.small`.
    """
    trials = Trials(device, folder)
    for name in names or chosen.small():
        for kind, precisions in (("steps", PRECISIONS), ("masks", PRECISIONS), ("resume", PRECISIONS)):
            for precision in precisions:
                check = getattr(trials, kind)
                yield looked(f"{kind} {name} {precision}", lambda: check(name, precision), budget)  # noqa: B023
        yield looked(f"gradients {name} float32", lambda: trials.gradients(name), budget)  # noqa: B023


def looked(name: str, check: Callable[[], Check], budget: Budget) -> Check:
    """Return the finding of a check, under a name; an error of any kind is one that fails."""
    if not budget.has(_PATIENCE):
        return Check(name, "-", "no time left")
    try:
        found = check()
    except Exception as error:
        return Check(name, "fail", f"{type(error).__name__}: {first_line(error)}")
    return Check(name, found.level, found.found, values=found.values)


@dataclass(frozen=True)
class Unbroken:
    """A run that was trained to its end at once.

    Attributes:
        run: its folder.
        losses: one for each step.
        device: where its weights are.
        deterministic: whether torch refused nondeterministic operations.
    """

    run: RunDir
    losses: Sequence[float]
    device: str
    deterministic: bool

    def same_as(self, other: "Unbroken") -> Check:
        """Compare all tensors at the end with those of another run."""
        return same(checkpoint.load(self.run, STEPS), checkpoint.load(other.run, STEPS))


@dataclass(frozen=True)
class Replayed(StepRandom):
    """Random numbers that are drawn once and then repeated on any device, whose own generator would draw others.

    Attributes:
        drawn: the numbers of each stream.
    """

    drawn: dict[str, Tensor] = field(default_factory=dict, kw_only=True)

    def draw(self, stream: str, n: int, draw: Draw) -> Tensor:
        """Return the numbers of a stream. (n, ...)."""
        if stream not in self.drawn:
            self.drawn[stream] = super().draw(stream, n, draw)
        return self.drawn[stream].to(self.device)


class Trials:
    """Runs on one device, in one folder."""

    def __init__(self, device: str, folder: Path) -> None:
        self._device, self._folder = device, folder
        self._made: dict[tuple[str, str], Unbroken] = {}

    def steps(self, name: str, precision: str) -> Check:
        """Train three steps with deterministic operations, and look at the losses."""
        found = self._unbroken(name, precision)
        losses = ", ".join(f"{loss:.4g}" for loss in found.losses)
        values = {"losses": found.losses, "device": found.device, "deterministic": found.deterministic}
        if len(found.losses) != STEPS or not all(map(math.isfinite, found.losses)):
            return Check("", "fail", f"found losses {losses or 'none'}, wanted {STEPS} finite ones", values=values)
        if found.device != torch.device(self._device).type:
            return Check("", "fail", f"the weights are on {found.device}", values=values)
        if not found.deterministic:
            return Check("", "fail", "torch did not refuse nondeterministic operations", values=values)
        if precision != "float32" and found.same_as(self._unbroken(name, "float32")).level == "ok":
            return Check("", "fail", "the weights are those of float32, bit for bit", values=values)
        return Check("", "ok", f"deterministic, losses {losses}", values=values)

    def masks(self, name: str, precision: str) -> Check:
        """Let `doctor` compare the dropout masks of passes of one step, and of a value and its derivative."""
        built = self._built(name, self._device, f"train.precision={precision}", *_SHORT, _DROPOUT)
        checked = network.checks(built, probe.copied(built.state.model), probe.points(built))
        found = [check for check in checked if check.name.startswith("dropout")]
        text = "; ".join(check.found for check in found)
        values = {key: value for check in found for key, value in check.values.items()}
        # With dropout, every pass draws a mask, and `doctor` compares two kinds of passes.
        is_fine = len(found) == 2 and all(check.level == "ok" for check in found)
        return Check("", "ok" if is_fine else "fail", text, values=values)

    def resume(self, name: str, precision: str) -> Check:
        """Stop a run, resume it, and compare every tensor of the last checkpoint with the unbroken run's."""
        unbroken = self._unbroken(name, precision)
        made = self._created(name, precision)
        for _ in made.records():
            if made.trainer.state.step == STOP:
                made.request_stop("make gpu")
        if (made.exit_code, made.trainer.state.step) != (STOPPED, STOP):
            return Check("", "fail", f"the run did not stop after step {STOP}")
        deque(runner.resume(made.run, self._folder).records(), maxlen=0)
        return same(checkpoint.load(made.run, STEPS), checkpoint.load(unbroken.run, STEPS))

    def gradients(self, name: str) -> Check:
        """Compare the gradients of one loss in float32, without TF32, with those of the CPU.

        Weights and random numbers are equal. Weights that begin as zeros are replaced: they would hide all others.
        """
        path = chosen.RECIPES / f"{name}.toml"
        kept = recipes.load(path).objective
        eased = [f"objective.{key}={value}" for key, value in _COMPARABLE.items() if key in kept]
        exact = ["train.precision=float32", "train.matmul_precision=highest"]
        settings = [*exact, f"train.batch_size={BATCH}", *eased]
        here, there = (self._built(name, device, *settings) for device in ("cpu", self._device))
        here.state.model.load_state_dict(probe.copied(here.state.model).state_dict())
        there.state.load(0, here.state.groups())
        x_0, labels = here.data.batch(BATCH, StepRandom(here.device, 0, 0))
        batch, drawn = (x_0, labels if here.conditional else None), dict[str, Tensor]()
        wanted, found = (gradients(built, *batch, drawn) for built in (here, there))
        return near(found, wanted)

    def _unbroken(self, name: str, precision: str) -> Unbroken:
        """Return a run of a recipe, which is trained once."""
        if (name, precision) not in self._made:
            made = self._created(name, precision)
            losses = [record.row["loss"] for record in made.records() if record.stream == "metrics"]
            device = next(made.trainer.state.model.parameters()).device.type
            deterministic = torch.are_deterministic_algorithms_enabled()
            self._made[name, precision] = Unbroken(made.run, losses, device, deterministic)
        return self._made[name, precision]

    def _created(self, name: str, precision: str) -> Runner:
        """Make a run of a recipe, and first the run that it needs."""
        path = chosen.RECIPES / f"{name}.toml"
        self._provide(path)
        changes = [f"train.device={self._device}", f"train.precision={precision}", *_SHORT, _DROPOUT]
        return runner.create(consent.named(path, changes), self._folder, ["make", "gpu"])

    def _built(self, name: str, device: str, *changes: str) -> Trainer:
        path = chosen.RECIPES / f"{name}.toml"
        self._provide(path)
        return trainer.from_given(consent.named(path, [f"train.device={device}", *changes]), self._folder)

    def _provide(self, path: Path) -> None:
        if other := chosen.needed(recipes.load(path)):
            self._unbroken(other, "float32")


def gradients(built: Trainer, x_0: Tensor, labels: Tensor | None, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients of a loss in the parameters of network and objective, on the CPU, by their names.

    Args:
        built: the recipe, at its first step.
        x_0: (B, ...), on any device.
        labels: (B,) or None.
        drawn: random numbers of `Replayed`; those that are missing are added.
    """
    state, device = built.state, built.device
    random = Replayed(device, built.recipe.seed, state.step, drawn=drawn)
    state.model.train()
    x_0, labels = x_0.to(device), None if labels is None else labels.to(device)
    passes.backward(state, x_0, labels, random, len(x_0))
    named = [*state.model.named_parameters(), *state.objective.named_parameters(prefix="objective")]
    return {name: parameter.grad.cpu() for name, parameter in named if parameter.grad is not None}


def near(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> Check:
    """Compare gradients, parameter by parameter, relative to their own norm."""
    if found.keys() != wanted.keys() or not wanted:
        return Check("", "fail", f"other parameters have gradients: {sorted(found.keys() ^ wanted.keys())}")
    whole = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    each = [(found[name] - own).norm() / own.norm().clamp(min=_SMALLEST * whole) for name, own in wanted.items()]
    worst, place = torch.stack(each).max(dim=0)  # not a number if any of them is not
    error, name = float(worst), list(wanted)[int(place)]
    text = f"differ by {error:.1e} at most ({ALLOWED:g} allowed), at {name}"
    return Check("", "ok" if error <= ALLOWED else "fail", text, values={"error": error, "allowed": ALLOWED})


def same(found: checkpoint.Groups, wanted: checkpoint.Groups) -> Check:
    """Compare the tensors of two checkpoints bit for bit."""
    mine, theirs = (
        {f"{group}.{name}": x for group, tensors in groups.items() for name, x in tensors.items()}
        for groups in (found, wanted)
    )
    differ = [name for name in {**theirs, **mine} if name not in mine or not equal(mine[name], theirs.get(name))]
    values = {"tensors": len(theirs), "differ": differ}
    if differ or not theirs:
        return Check("", "fail", f"{len(differ)} of {len(theirs)} tensors differ, such as {differ[:1]}", values=values)
    return Check("", "ok", f"{len(theirs)} tensors are equal bit for bit", values=values)


def equal(mine: Tensor, theirs: Tensor | None) -> bool:
    """Return whether two tensors are equal in type, shape and value."""
    return theirs is not None and mine.dtype == theirs.dtype and torch.equal(mine, theirs)
