"""How the ranks of a run begin together, and how all but rank 0 follow it to its end.

After each step the others wait for a word of rank 0: to take the next step, to end, to change settings, to draw their
share of a snapshot, or to hand over their unfinished means for a checkpoint. Rank 0 alone measures and writes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmbench import steering
from cmbench.engine import build, checkpoint, environment, loop, memory, passes, trainer
from cmbench.engine.messages import LostRankError, described
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.errors import CmbenchError, ConflictError
from cmbench.randomness import Part, StepRandom
from cmbench.rundir.layout import RunDir

_SAMPLES = 4  # of each rank in the check, in groups of the objective
_ALLOWED = {"float32": 1e-4, "tf32": 2e-2, "bfloat16": 5e-2}  # relative difference of a parameter's gradient
_OF_ALL = 1e-6  # further difference, relative to the gradient of all parameters: of a part that nearly cancels


def lead(built: Trainer, run: RunDir, places: Mapping[str, str]) -> None:
    """As rank 0, let the others build the same trainer from the run directory, and begin together.

    Raises:
        CmbenchError: another rank cannot, or gradients do not add up.
    """
    if built.ranks.size == 1:
        return
    told: dict[str, Any] = {
        "do": "begin",
        "run": str(run.path.resolve()),
        "folder": str(Path.cwd()),
        "step": built.state.step,
    }
    told |= {"settings": built.settings, "places": dict(places), "threads": torch.get_num_threads()}
    built.ranks.tell({**told, "labels_in_turn": built.labels_in_turn})
    begin(built)


def follow(ranks: Ranks) -> int:
    """As any other rank, train as rank 0 says, and return the exit code.

    Raises:
        CmbenchError: as `lead`, which has said so, or another rank has ended.
    """
    invitation = ranks.hear()
    if invitation["do"] == "end":
        return invitation["code"]
    try:
        built = _as_rank_0(invitation)
    except Exception as error:  # a custom class may raise anything; rank 0 says it
        return _agree(ranks, described(error))
    try:
        return _train(built)
    except LostRankError:
        raise
    except Exception as error:  # the others may be in the midst of a step, and learn no more than that this one is gone
        ranks.leave_word(described(error))
        raise


def _train(built: Trainer) -> int:
    begin(built)
    if (code := _obey(built)) is not None:
        return code
    for event in loop.train(built):
        if isinstance(event, loop.Stepped | loop.Diverged) and (code := _obey(built)) is not None:
            return code
    raise LostRankError("rank 0 has not said how it ends")


def _as_rank_0(invitation: Mapping[str, Any]) -> Trainer:
    """Return the trainer of the run directory, in the state that rank 0 is in."""
    os.chdir(invitation["folder"])
    run, step = RunDir(Path(invitation["run"])), invitation["step"]
    recipe = build.of_run(run, invitation["places"])
    environment.make_reproducible(recipe.train, invitation["threads"])
    built = trainer.from_recipe(recipe, str(run.recipe), kept=run)
    built.labels_in_turn = invitation["labels_in_turn"]
    if invitation["settings"]:
        built.steer(invitation["settings"], run.name, steering.LENGTH)
    if step:
        with memory.wanted_by_network(built.recipe, built.device):
            built.state.load(step, checkpoint.load_fitting(run, step, built.state.misfit))
    built.state.share(built.ranks)
    return built


def begin(built: Trainer) -> None:
    """Make sure that all ranks can train, with equal weights and data, and that gradients add up."""
    ranks, state = built.ranks, built.state
    of_data = hashlib.sha256(json.dumps(built.fingerprint, sort_keys=True, default=str).encode()).hexdigest()
    _agree(ranks, "", of_data)
    ranks.wrap(state.model)
    ranks.send_weights(state.model.state_dict(), built.objective.state_dict())
    ranks.send_weights(*(average.model.state_dict() for average in state.averages))
    with memory.wanted_by_network(built.recipe, built.device):  # of the few samples, not much
        own = _not_added_up(built)
    wrong = next(filter(None, ranks.all_told(own)), "")
    if wrong:
        raise CmbenchError(f"gradients of {wrong} are not averaged over the ranks: nothing is trained")


def _agree(ranks: Ranks, trouble: str, of_data: str = "") -> int:
    """Tell the others what is in the way of this rank, and hear of theirs.

    Raises:
        CmbenchError: something is in the way of some rank.
    """
    told = ranks.all_told([trouble, of_data])
    for rank, (why, _) in enumerate(told):
        if why:
            raise CmbenchError(f"{ranks.called(rank)}: {why}")
    others = [rank for rank, (_, found) in enumerate(told) if found != told[0][1]]
    if others:
        raise ConflictError(f"{ranks.called(others[0])}: its data differ from those of rank 0")
    return 1


def _not_added_up(built: Trainer) -> str:
    """Return the first parameter whose gradient of a small batch differs from that without ranks; empty if none does.

    Dropout is off: its masks depend on how a batch is split.
    """
    ranks, state = built.ranks, built.state
    group = getattr(built.objective, "group", 1)
    n = max(ranks.size * group, min(built.recipe.train.batch_size, ranks.size * group * _SAMPLES))
    modules = [m for m in state.model.modules() if m.training]
    state.model.train()
    state.model.F_theta.eval()
    together = _gradients(built, n, ranks.part(n, built.objective))
    recorded_by, state.model.recorded_by = state.model.recorded_by, None
    alone = _gradients(built, n, None)
    state.model.recorded_by = recorded_by
    for module in modules:
        module.training = True
    state.optimizer.zero_grad(set_to_none=True)
    scale = torch.stack([g.norm() for g in alone.values()]).norm()
    allowed = _ALLOWED[state.model.arithmetic(built.device)]
    wrong = (
        name
        for name, g in alone.items()
        if name not in together or (together[name] - g).norm() > allowed * g.norm() + _OF_ALL * scale
    )
    return next(wrong, "")


def _gradients(built: Trainer, n: int, part: Part | None) -> dict[str, Tensor]:
    """Return the gradients of a batch of n samples by parameter: this rank's alone, or those of all ranks' parts."""
    state, ranks = built.state, built.ranks if part else Ranks()
    random = StepRandom(built.device, built.recipe.seed, state.step)
    x_0, labels = passes.drawn(built.data, n, replace(random, part=part))
    own = labels if built.conditional else None
    terms, _ = passes.backward(state, x_0, own, replace(random, part=part), n, ranks)
    ranks.added_up(built.objective, terms.total)
    state.model.last_F = None
    modules = {"F_theta": state.model.F_theta, "objective": built.objective}
    named = [(f"{module}.{name}", p) for module, own in modules.items() for name, p in own.named_parameters()]  # type: ignore[attr-defined]
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def _obey(built: Trainer) -> int | None:
    """Do what rank 0 says until it lets the others take a step, or end with the exit code that is returned."""
    while (order := built.ranks.hear()) is not None:
        match order["do"]:
            case "end":
                return order["code"]
            case "answer":
                built.ranks.all_told(None)
            case "gather":
                built.state.groups(built.ranks)
            case "snapshot":
                built.snapshot()
                built.film()
            case "set":
                built.steer(order["settings"], "settings", steering.LENGTH)
    return None
