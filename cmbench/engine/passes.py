"""The passes of a step: with the whole batch at once, or in parts whose gradients add up to those of the batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from cmbench.contracts import Anatomy, Data, DrawsAhead, DrawsParts, HasAnatomy, Objective, Terms, has
from cmbench.engine.messages import told_of_loss
from cmbench.engine.ranks import Ranks
from cmbench.engine.state import State
from cmbench.model import Model, products
from cmbench.randomness import Part, StepRandom

Gradient = Callable[[], Tensor | None]  # norms of the samples' gradients at F_theta's output, (B,), where known
# x_0 (B, ...), labels (B,) if the network takes them, and labels of augmentation (B, size) if there are any.
Batch = tuple[Tensor, Tensor | None, Tensor | None]


def split(n: int, size: int, of: Part | None = None) -> list[Part]:
    """Return the parts of a batch of n samples, or of a part of it: `size` samples each, in the last what is left."""
    of = of or Part(0, n, n)
    return [Part(start, min(start + size, of.stop), of.whole) for start in range(of.start, of.stop, size)]


def drawn(data: Data, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
    """Return x_0 and the labels of a batch of n samples, or the rows of `random.part`."""
    if random.part is None or (has(data, DrawsParts) and data.draws_parts):
        return data.batch(n, random)
    x_0, labels = data.batch(n, random.batch)
    return random.rows(x_0), random.rows(labels)


def models(state: State) -> list[Model]:
    """Return those of a step: the model, the teacher if it is trained, and the targets."""
    targets = state.objective.modules()  # type: ignore[attr-defined]
    return list(dict.fromkeys(m for m in (state.model, state.teacher, *targets) if isinstance(m, Model)))


@contextmanager
def compiled(state: State) -> Iterator[None]:
    """Compile the passes in the block, if the recipe says so."""
    if state.compiled is None:
        yield
        return
    with state.compiled.within([model.F_theta for model in models(state)]):
        yield


@contextmanager
def uncompiled(state: State) -> Iterator[None]:
    """Compile no pass in the block, whatever the recipe says."""
    compiled, state.compiled = state.compiled, None
    try:
        yield
    finally:
        state.compiled = compiled


def draws_ahead(data: Data, part: Part | None) -> DrawsAhead | None:
    """Return data that can prepare the batches of whole steps, or of a part, ahead; None if that brings nothing."""
    in_parts = part is None or (has(data, DrawsParts) and data.draws_parts)
    return data if in_parts and has(data, DrawsAhead) and data.draws_ahead else None


@contextmanager
def told(state: State, augment_labels: Tensor | None) -> Iterator[None]:
    """Give labels of augmentation, (B, size), to every pass in the block: the model's, the targets', the teacher's."""
    of_step = models(state)
    for model in of_step:
        model.augment_labels = augment_labels
    try:
        yield
    finally:
        for model in of_step:
            model.augment_labels = None


def backward(
    state: State,
    x_0: Tensor,
    labels: Tensor | None,
    random: StepRandom,
    size: int,
    ranks: Ranks | None = None,
    augment_labels: Tensor | None = None,
) -> tuple[Terms, Gradient]:
    """Compute the gradients of a batch's loss in the parameters, and return the terms at hand.

    Args:
        state: model, objective and step.
        x_0: the batch, (B, ...), or this rank's part of it.
        labels: (B,) or None.
        random: of the step, and of the part.
        size: the samples that go through the network at once.
        ranks: of the run, which share the batch. The total is that of this rank's part, weighted by its share.
        augment_labels: (B, size) or None.
    """
    with products(state.model.matmul_precision, x_0.device):
        if random.part is not None or len(x_0) > size:
            parts = split(len(x_0), size, random.part)
            return _in_parts(state, x_0, labels, random, parts, ranks or Ranks(), augment_labels)
        state.phase("loss")
        with told(state, augment_labels):
            terms = state.objective.loss(state.model, x_0, labels, state.step, random)
        state.phase("backward")
        state.optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        return terms, lambda: _F_gradient(state.model)


def _in_parts(
    state: State,
    x_0: Tensor,
    labels: Tensor | None,
    random: StepRandom,
    parts: Sequence[Part],
    ranks: Ranks,
    augment_labels: Tensor | None,
) -> tuple[Terms, Gradient]:
    of_parts, gradients, first = [], [], parts[0].start
    state.optimizer.zero_grad(set_to_none=True)
    for part in parts:
        rows, of_part = slice(part.start - first, part.stop - first), replace(random, part=part)
        own = None if labels is None else labels[rows]
        with ranks.sends(part is parts[-1]), told(state, None if augment_labels is None else augment_labels[rows]):
            state.phase("loss")
            terms = state.objective.loss(state.model, x_0[rows], own, state.step, of_part)
            state.phase("backward")
            with told_of_loss():
                (part.share * terms.total).backward()
        gradients.append(_F_gradient(state.model, part))
        terms = replace(terms, total=terms.total.detach())  # frees the graph before the next part's passes
        of_parts.append(terms)
    gradient = _joined(gradients)
    return joined(of_parts, parts), lambda: gradient


def joined(of_parts: Sequence[Terms], parts: Sequence[Part]) -> Terms:
    """Return the terms of a batch, or of a rank's part, from those of its parts, in order, with detached totals."""
    first, shares = of_parts[0], [part.share for part in parts]
    of_own = [len(part) / sum(map(len, parts)) for part in parts]
    return Terms(
        total=torch.stack([share * terms.total for share, terms in zip(shares, of_parts, strict=True)]).sum(),
        t=torch.cat([terms.t for terms in of_parts]),
        loss=torch.cat([terms.loss for terms in of_parts]),
        weight=torch.cat([terms.weight for terms in of_parts]),
        tangent_norm=_joined([terms.tangent_norm for terms in of_parts]),
        scalars={name: _mean([terms.scalars[name] for terms in of_parts], of_own) for name in first.scalars},
        r=_joined([terms.r for terms in of_parts]),
        per_sample={name: torch.cat([terms.per_sample[name] for terms in of_parts]) for name in first.per_sample},
    )


def _joined(of_parts: Sequence[Tensor | None]) -> Tensor | None:
    found = [value for value in of_parts if value is not None]
    return torch.cat(found) if len(found) == len(of_parts) else None


def _mean(values: Sequence[float], shares: Sequence[float]) -> float:
    """Return the mean over the batch. Numbers of the step, such as N, are equal in all parts and stay exact."""
    if all(value == values[0] for value in values):
        return values[0]
    return sum(share * value for share, value in zip(shares, values, strict=True))


def of_first(
    n: int, draw: Callable[[StepRandom], Batch], at_hand: Batch, random: StepRandom, ranks: Ranks, objective: Objective
) -> tuple[Batch, StepRandom]:
    """Return this rank's share of the first n samples of a batch, drawn again, and their random numbers.

    Args:
        n: the number of samples. Without as many groups as ranks, those at hand are returned.
        draw: returns the batch, or the part that its random numbers are for.
        at_hand: the batch, or this rank's part of it.
        random: of the step, and of the part.
        ranks: of the run.
        objective: takes samples in groups, if it has any.
    """
    if random.part is None or n < ranks.least(objective):
        return at_hand, random
    whole = random.part.whole
    part = ranks.part(min(n, whole), objective)
    assert part is not None  # as there are several ranks
    of_share = replace(random, part=replace(part, whole=whole))
    return draw(of_share), of_share


def looks(
    objective: HasAnatomy,
    state: State,
    x_0: Tensor,
    labels: Tensor | None,
    random: StepRandom,
    n: int,
    size: int,
    augment_labels: Tensor | None = None,
) -> Iterator[Anatomy]:
    """Yield the parts of the tangent of the first n samples of a batch, as far as they are at hand.

    Args:
        objective: takes the tangent apart.
        state: model and step.
        x_0: the batch, (B, ...), or this rank's part of it.
        labels: (B,) or None.
        random: of the step, and of the part.
        n: the number of samples.
        size: the samples that go through the network at once.
        augment_labels: (B, size) or None.
    """
    n, first = min(n, random.whole(len(x_0))), random.part.start if random.part else 0
    if first >= n:
        return
    for part in split(n, size, Part(first, min(first + len(x_0), n), n)):
        rows = slice(part.start - first, part.stop - first)
        own = None if labels is None else labels[rows]
        of_part = random.batch if len(part) == n else replace(random, part=part)
        with of_part.dropout(), told(state, None if augment_labels is None else augment_labels[rows]):
            yield objective.anatomy(state.model, x_0[rows], own, state.step, of_part)


def _F_gradient(model: Model, part: Part | None = None) -> Tensor | None:  # noqa: N802
    """Return the norm of each sample's gradient of its own weighted loss at F_theta's output, (B,), and free it.

    The loss is a mean over the whole batch, also for a part, so the gradients are multiplied by the batch's size.
    """
    F, model.last_F = model.last_F, None
    if F is None or F.grad is None:
        return None
    count = len(F) if part is None else len(F) * part.whole / len(part)
    return F.grad.flatten(1).norm(dim=1).float() * count
