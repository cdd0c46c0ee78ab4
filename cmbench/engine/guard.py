"""The guard against steps that are not finite: whether the host must wait for the device before each update.

A fused update takes the verdict on the device (`found_inf`): of a bad step it changes nothing. So where weights are all
that moves before the next passes, the host need not wait. It launches the update and the passes of the next step, and
reads the verdict meanwhile. Means, averages and rows follow once the verdict is known. So whoever looks at the state
between two steps sees the same as with the wait.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cmbench.contracts import MovesNothing, PreparesWeights, Terms, has
from cmbench.engine.passes import Batch
from cmbench.engine.state import State
from cmbench.engine.trainer import Trainer
from cmbench.randomness import StepRandom


class Verdict:
    """Whether a step is finite. It is copied to the host while the device goes on."""

    def __init__(self, is_finite: Tensor) -> None:
        self.found_inf = (~is_finite).float()  # what torch's fused kernels read
        self._there, self._arrived = is_finite, None
        if is_finite.device.type == "cuda":
            self._there = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._there.copy_(is_finite, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record(torch.cuda.current_stream(is_finite.device))

    def read(self) -> bool:
        """Return it, once it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._there)


@dataclass(frozen=True)
class Passed:
    """The passes of one step, before its update.

    Attributes:
        origin: what they depend on; see `origin`.
        batch: the samples.
        random: of the step.
        terms: of the loss; their total has no graph any more.
        F_gradient: norms of the samples' gradients at F_theta's output, (B,); None if unknown.
        gradients: of the optimiser's parameters, in their order; empty if the host waits for the device.
        grad_norm: over all of them, ().
        is_finite: whether the step may be taken, ().
    """

    origin: tuple[object, ...]
    batch: Batch
    random: StepRandom
    terms: Terms
    F_gradient: Tensor | None
    gradients: list[Tensor | None]
    grad_norm: Tensor
    is_finite: Tensor


def origin(trainer: Trainer) -> tuple[object, ...]:
    """Return what the passes of the next step depend on, besides weights: equal ones make equal passes."""
    recipe, state = trainer.recipe, trainer.state
    return (state.step, recipe.objective, recipe.train, recipe.seed, id(trainer.objective), id(state.optimizer))


def need_not_wait(trainer: Trainer) -> bool:
    """Return whether the update takes the verdict on the device, and nothing else moves before the host knows it.

    Targets move with each step, forced weight normalisation sets weights before the passes, and a class of somebody
    else may keep anything. Several ranks agree on the verdict first.
    """
    fused = all(group.get("fused") for group in trainer.state.optimizer.param_groups)
    moves_nothing = has(trainer.objective, MovesNothing) and trainer.objective.moves_nothing
    is_ours = ":" not in trainer.recipe.network["kind"] and not has(trainer.state.model.F_theta, PreparesWeights)
    return fused and moves_nothing and is_ours and trainer.ranks.size == 1 and _runs_ahead(trainer.device)


def _runs_ahead(device: torch.device) -> bool:
    """Return whether the host launches work that a device does later."""
    return device.type == "cuda"


def passed_ahead(state: State, compute: Callable[[], Passed]) -> Passed | None:
    """Return the passes of the step after the state's; None if they fail: they will again, when that step is due."""
    state.step += 1
    try:
        return compute()
    except Exception:
        state.model.last_F = None  # it would keep the graph of these passes
        return None
    finally:
        state.step -= 1


def take_up(passed: Passed, parameters: Sequence[Tensor]) -> None:
    """Put the gradients of passes back, since others may have been computed after them."""
    for parameter, gradient in zip(parameters, passed.gradients, strict=True):
        parameter.grad = gradient
    passed.gradients.clear()  # the parameters keep them until the next ones replace them


def update(optimizer: torch.optim.Optimizer, verdict: Verdict | None) -> None:
    """Take the optimiser's step. With a verdict, its fused kernel changes nothing if that is bad."""
    if verdict is not None:
        optimizer.found_inf = verdict.found_inf  # type: ignore[attr-defined]
    optimizer.step()
