"""What an objective returns."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """One batch's loss, and per sample what the time profile shows.

    Attributes:
        total: the scalar to minimise, mean over the batch of weight * loss, with gradient.
        t: the times, (B,).
        loss: the unweighted loss, (B,), detached.
        weight: the weight, (B,), detached.
        tangent_norm: the norm of the tangent, (B,), detached; None where the objective has no tangent.
        scalars: what else the objective knows of this step, e.g. the curriculum's N and mu.
    """

    total: Tensor
    t: Tensor
    loss: Tensor
    weight: Tensor
    tangent_norm: Tensor | None = None
    scalars: dict[str, float] = field(default_factory=dict)


def weighted(
    loss: Tensor,
    weight: Tensor,
    t: Tensor,
    tangent_norm: Tensor | None = None,
    scalars: dict[str, float] | None = None,
) -> Terms:
    """Return the terms of mean(weight * loss). loss (B,) carries the gradient, the others none."""
    norm = None if tangent_norm is None else tangent_norm.detach()
    return Terms((weight * loss).mean(), t, loss.detach(), weight.detach(), norm, scalars or {})
