"""Everything that changes during training, in one object, as named groups of tensors."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from cmbench.contracts import Objective
from cmbench.engine import optimizer as optimizers
from cmbench.engine.compiled import Compiled
from cmbench.engine.meters import Means, Profile, of_rank
from cmbench.engine.phases import Listener, unheard
from cmbench.engine.ranks import Ranks
from cmbench.equations import ema
from cmbench.model import Model
from cmbench.rundir.checkpoints import AVERAGE
from cmbench.tables import Ema

Groups = dict[str, dict[str, Tensor]]


class Average:
    """One average of the weights for sampling, as [ema] says, over steps of so many samples."""

    def __init__(self, config: Ema, length: float, model: Model, batch_size: int) -> None:
        self.model, self._batch_size = copy.deepcopy(model).requires_grad_(False).eval(), batch_size
        self._follower = ema.Follower(self.model, model)
        self.take_length(config, length)

    def take_length(self, config: Ema, length: float) -> None:
        """Average over this length from the next step on, and take its name. The weights stay."""
        self.name = f"{AVERAGE}{length!r}"
        self._decay = _decay(config, length, self._batch_size)

    def update(self, step: int) -> None:
        """Take in the model's weights after `step` steps, counted from 1."""
        self._follower.update(self._decay(step))


def _decay(config: Ema, length: float, batch_size: int) -> Callable[[int], float]:
    """Return the decay of an average as a function of the step, counted from 1."""
    if config.profile == "power":
        gamma = ema.power_gamma(length)
        return lambda step: ema.power_mu(step, gamma)
    if config.profile == "half_life":
        return lambda step: ema.half_life_mu(batch_size, length, batch_size * (step - 1), config.ramp_up)
    return lambda step: length


class State:
    """Step, weights, the objective's target, averages, optimiser and unfinished means.

    `step` is the number of optimiser steps done, `train_s` the seconds that they took (see `clock`). `load` restores
    what `groups` returns; a checkpoint has one file for each group. A trained `teacher` is at hand, but no part of it.
    Nor is `phase`, which hears of the phases of each step, nor `compiled`, which compiles their passes if it is set.
    """

    def __init__(
        self,
        model: Model,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        averages: list[Average],
        profile: Profile,
        teacher: Model | None = None,
        compiled: Compiled | None = None,
    ) -> None:
        self.step, self.train_s, self.teacher, self.compiled = 0, 0.0, teacher, compiled
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.averages, self.profile, self.means = averages, profile, Means()
        self.phase: Listener = unheard

    def groups(self, ranks: Ranks | None = None) -> Groups:
        """Return all tensors by group, without copying them.

        Of several ranks, all of which must ask, unfinished means have a row for each: they resume bit for bit.
        """
        rows = ranks.rows if ranks else lambda sums: sums
        groups: Groups = {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": optimizers.state_tensors(self.optimizer),
            "means": rows(self.means.sums),
            "profile": rows(self.profile.sums),
        }
        groups |= self.averaged()
        return {name: tensors for name, tensors in groups.items() if tensors}

    def averaged(self) -> Groups:
        """Return the averages of the weights by group, without copying them."""
        return {average.name: average.model.state_dict() for average in self.averages}

    def share(self, ranks: Ranks) -> None:
        """Keep this rank's share of the unfinished means of a checkpoint."""
        place = ranks.member.rank, ranks.size
        self.means.sums = of_rank(self.means.sums, 0, *place)
        self.profile.sums = of_rank(self.profile.sums, 1, *place)

    def misfit(self, step: int, groups: Groups) -> str:
        """Describe what is missing in the groups of a step, or has the wrong shape, for `load`; empty if they fit."""
        saved = [groups[name] for name in groups if name.startswith(AVERAGE)]
        if len(saved) != len(self.averages):
            return f"{len(saved)} averages of the weights, not {len(self.averages)}"
        modules: list[tuple[str, Model | Objective, dict[str, Tensor]]]
        modules = [("model", self.model, groups.get("model", {}))]
        modules += [("objective", self.objective, groups.get("objective", {}))]
        modules += [(average.name, average.model, own) for average, own in zip(self.averages, saved, strict=True)]
        for name, module, own in modules:
            if _shapes(own) != _shapes(module.state_dict()):
                return f"'{name}' is of another network than the recipe's" if own else f"no '{name}'"
        if step and not groups.get("optimizer"):
            return "no 'optimizer'"
        return optimizers.misfit(self.optimizer, groups.get("optimizer", {}))

    def load(self, step: int, groups: Groups) -> None:
        """Restore what `groups` returned at `step`."""
        device = next(self.model.parameters()).device
        self.step = step
        self.model.load_state_dict(groups["model"])
        self.objective.load_state_dict(groups.get("objective", {}))
        optimizers.load_state_tensors(self.optimizer, groups.get("optimizer", {}))
        self.means.sums = {name: value.to(device) for name, value in groups.get("means", {}).items()}
        self.profile.sums = {name: value.to(device) for name, value in groups.get("profile", {}).items()}
        saved = [name for name in groups if name.startswith(AVERAGE)]
        for average, name in zip(self.averages, saved, strict=True):  # by position: lengths may have changed since
            average.model.load_state_dict(groups[name])


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
