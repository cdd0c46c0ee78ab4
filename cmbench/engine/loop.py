"""The training loop, as a generator of events. It uses neither disk nor screen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from cmbench.contracts import HasAnatomy, PreparesWeights, has
from cmbench.engine import build, guard, memory, passes
from cmbench.engine.clock import Clock
from cmbench.engine.film import Film
from cmbench.engine.guard import Passed, Verdict
from cmbench.engine.optimizer import learning_rate
from cmbench.engine.ranks import Ranks
from cmbench.engine.state import State
from cmbench.engine.trainer import Trainer
from cmbench.measures import PARTIAL
from cmbench.randomness import StepRandom
from cmbench.recipe import Recipe


@dataclass(frozen=True)
class Event:
    """Something that happened after `step` optimiser steps."""

    step: int


@dataclass(frozen=True)
class Stepped(Event):
    """An optimiser step is complete and the state is consistent: the moment to stop or to save."""


@dataclass(frozen=True)
class Compiled(Event):
    """Passes of the network were compiled in this step, in so many seconds."""

    passes: list[str]
    seconds: float


@dataclass(frozen=True)
class Metrics(Event):
    """Means since the last log step: loss, tangent_norm, grad_norm, lr, images_per_s and the objective's own."""

    values: dict[str, float]


@dataclass(frozen=True)
class Profiled(Event):
    """Per time bin: count, loss, weighted_loss, weight, tangent_norm, F_gradient, its variance, the tangent's parts."""

    values: dict[str, list[float | None]]


@dataclass(frozen=True)
class Evaluated(Event):
    """Quality of the samples; per time bin, the distance to the true consistency function if it is known."""

    values: dict[str, float]
    profile: dict[str, list[float]]


@dataclass(frozen=True)
class Snapshotted(Event):
    """Samples from fixed latents, (n, *shape) for each number of sampler steps, and the film of f on a few of them."""

    samples: dict[int, Tensor]
    film: Film | None = None


@dataclass(frozen=True)
class AveragesDue(Event):
    """The recipe asks for a copy of the present averages."""


@dataclass(frozen=True)
class CheckpointDue(Event):
    """The recipe asks for a checkpoint of the present state."""


@dataclass(frozen=True)
class Diverged(Event):
    """Loss or gradient of the next step is not finite; the state is still the last good one.

    Attributes:
        what: "loss" or "gradient".
        times: times of the samples whose weighted loss, or gradient at F_theta's output, is not finite; empty if the
            cause is in the network itself.
        tangent_norm: the largest in the batch; None if the objective has no tangent.
    """

    what: str
    times: list[float]
    tangent_norm: float | None = None


def train(trainer: Trainer) -> Iterator[Event]:
    """Train from the state's step to the end of the recipe. To stop, ask for no further event."""
    state, data = trainer.state, trainer.data
    settings, clip = trainer.recipe.train, trainer.recipe.optimizer.clip
    batch_size, at_once = settings.batch_size, settings.at_once
    ranks, part = trainer.ranks, trainer.ranks.part(batch_size, trainer.objective)
    augmentation, ahead = build.augmentation(trainer.recipe), passes.draws_ahead(data, part)
    clock = Clock(state)
    state.model.train()

    def draw(random: StepRandom) -> passes.Batch:
        x_0, labels = passes.drawn(data, batch_size, random)
        x_0, changes = augmentation(x_0, random) if augmentation else (x_0, None)
        return x_0, labels if trainer.conditional else None, changes

    def parameters() -> list[Parameter]:
        """Return what the optimiser trains: steering may have replaced it."""
        return [p for group in state.optimizer.param_groups for p in group["params"]]

    def passed() -> Passed:
        """Compute the gradients of the state's step."""
        phase, recipe = state.phase, trainer.recipe
        phase("data")
        random = StepRandom(trainer.device, recipe.seed, state.step, part=part)
        with memory.wanted_by("train.batch_size", batch_size):
            x_0, own, changes = draw(random)
        phase("optimiser")
        if has(state.model.F_theta, PreparesWeights):
            state.model.F_theta.before_step()
        with memory.wanted_by_passes(settings):
            with passes.compiled(state):
                terms, F_gradient = passes.backward(state, x_0, own, random, at_once, ranks, changes)
            phase("diagnostics")
            of_output = F_gradient()  # at once: looks may record passes of their own, and it keeps this one's graph
            phase("optimiser")
            terms = replace(terms, total=ranks.added_up(trainer.objective, terms.total.detach()))
            gradients = [p.grad for p in parameters()]
            grad_norm = get_total_norm([g for g in gradients if g is not None])
        if ahead is not None and state.step + 1 < recipe.train.steps:  # the device still computes gradients
            phase("data")
            with memory.wanted_by("train.batch_size", batch_size):
                ahead.ahead(batch_size, replace(random, step=state.step + 1))
            phase("optimiser")
        kept = gradients if runs_on else []  # into the next passes, which make gradients of their own
        origin, batch, is_finite = guard.origin(trainer), (x_0, own, changes), torch.isfinite(terms.total + grad_norm)
        return Passed(origin, batch, random, terms, of_output, kept, grad_norm, is_finite)

    runs_on, of_next = guard.need_not_wait(trainer), None
    while state.step < trainer.recipe.train.steps:
        clock.start()
        phase = state.phase  # that of whoever listens, if anybody does
        recipe = trainer.recipe  # a new one if settings have changed since the last step, as the next two then are
        steps, analysed = recipe.train.steps, trainer.objective if has(trainer.objective, HasAnatomy) else None
        now = of_next if of_next is not None and of_next.origin == guard.origin(trainer) else passed()
        terms, optimizer, of_next = now.terms, state.optimizer, None
        looks_every = recipe.profile.anatomy_every if recipe.profile.every and analysed else 0
        has_looks = looks_every > 0 and state.step % looks_every == 0

        # One number per step comes to the host: non-finite values must not reach the weights.
        verdict = Verdict(now.is_finite) if runs_on else None
        if (verdict is None or has_looks) and not ranks.agree(now.is_finite):
            yield _diverged(now, state, ranks)
            return

        lr = learning_rate(recipe.optimizer, state.step, steps)
        for group in optimizer.param_groups:
            group["lr"] = lr
        if verdict is not None:
            guard.take_up(now, parameters())
        if clip:
            clip_grads_with_norm_(parameters(), clip, now.grad_norm)
        looks = []
        if analysed and has_looks:
            phase("anatomy")
            n = recipe.profile.anatomy_n
            with memory.wanted_by("profile.anatomy_n", n, whole=False):
                (x, of_x, told), share = passes.of_first(n, draw, now.batch, now.random, ranks, trainer.objective)
                looks = list(passes.looks(analysed, state, x, of_x, share, n, at_once, told))
            phase("optimiser")
        is_first = not optimizer.state
        with memory.wanted_by_network(recipe, trainer.device, whole=False):  # the first step makes the moments
            guard.update(optimizer, verdict)
        if verdict is not None:
            of_next = guard.passed_ahead(state, passed) if state.step + 1 < steps else None
            phase("optimiser")
            if not verdict.read():
                if is_first:
                    optimizer.state.clear()
                yield _diverged(now, state, ranks)
                return
        phase("averages")
        with memory.wanted_by_passes(settings, whole=False):
            trainer.objective.after_step(state.model, state.step)
        state.step += 1
        for average in state.averages:
            average.update(state.step)

        phase("diagnostics")
        if recipe.profile.every:
            state.profile.add(terms, now.F_gradient)
            for look in looks:
                state.profile.add_anatomy(look)
        scalars = {"loss": terms.total, "unweighted_loss": terms.loss.mean(), "weight": terms.weight.mean()}
        if terms.tangent_norm is not None:
            scalars["tangent_norm"] = terms.tangent_norm.mean()
        state.means.add({**scalars, "grad_norm": now.grad_norm}, part.share if part else 1.0)
        means = None
        if _due(recipe.log.every, state.step, steps):
            phase("log")
            state.means.sums = ranks.summed(state.means.sums)
            means = {**state.means.flush(), **ranks.scalars(terms.scalars, part)}
        compiling, compiled = state.compiled.taken() if state.compiled else (0.0, [])
        clock.stop(batch_size, compiling)
        phase("")
        if compiled:
            yield Compiled(state.step, compiled, compiling)

        if means is not None:
            phase("rows")
            spent = trainer.compute.so_far(state.step * batch_size)
            yield Metrics(state.step, {**means, "lr": lr, **spent, "images_per_s": clock.read()})
        yield from _due_after(trainer, recipe)
        yield Stepped(state.step)


def _due_after(trainer: Trainer, recipe: Recipe) -> Iterator[Event]:
    """Yield what is due after a step, besides its means, by the recipe of that step."""
    state, steps = trainer.state, recipe.train.steps
    if _due(recipe.profile.every, state.step, steps):
        state.phase("profiles")
        state.profile.sums = trainer.ranks.summed(state.profile.sums)
        yield Profiled(state.step, state.profile.flush())
    if _due(recipe.evaluate.every, state.step, steps):
        with memory.wanted_by("evaluate.n", recipe.evaluate.n):
            evaluated = _evaluated(trainer)
        yield evaluated
    if _due(recipe.snapshot.every, state.step, steps):
        with memory.wanted_by("snapshot.n", recipe.snapshot.n):
            samples, film = trainer.snapshot(), trainer.film()
        yield Snapshotted(state.step, samples, film)
    if recipe.ema.keep_every and state.step % recipe.ema.keep_every == 0:
        yield AveragesDue(state.step)
    if _due(recipe.checkpoint.every, state.step, steps) or state.step == steps:
        yield CheckpointDue(state.step)


def _diverged(passed: Passed, state: State, ranks: Ranks) -> Diverged:
    """Describe what is not finite in a step that was not taken, and at which times."""
    terms = passed.terms
    what, per_sample = "loss", terms.weight * terms.loss
    if torch.isfinite(terms.total):
        what, per_sample = "gradient", terms.loss if passed.F_gradient is None else passed.F_gradient
    largest = None if terms.tangent_norm is None else float(terms.tangent_norm.max())
    told = ranks.all_told([terms.t[~torch.isfinite(per_sample)].tolist(), largest])
    if largest is not None:
        largest = float(torch.tensor([own for _, own in told]).max())  # nan if any is
    return Diverged(state.step, what, [t for times, _ in told for t in times], largest)


def _evaluated(trainer: Trainer) -> Evaluated:
    spent = trainer.compute.so_far(trainer.state.step * trainer.recipe.train.batch_size)
    values = {**trainer.evaluate(), **spent}
    profile = {}
    if (found := trainer.self_error()) is not None:
        values["self_error" + PARTIAL * found[1]] = found[0]
    if (errors := trainer.true_error()) is not None:
        values |= {"true_error" + PARTIAL * errors.is_partial: errors.mean, "true_error_1step": errors.at_sigma_max}
        profile["true_error"] = errors.bins
    return Evaluated(trainer.state.step, values, profile)


def _due(every: int, step: int, steps: int) -> bool:
    return every > 0 and (step % every == 0 or step == steps)
