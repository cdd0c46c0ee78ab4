"""What an objective returns, and what distillation is given."""

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


class Teacher(Protocol):
    """A denoiser of the EDM path: an oracle or a trained model."""

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x]. x (B, ...), sigma (B,), labels (B,) -> (B, ...)."""


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
    """

    total: Tensor
    t: Tensor
    loss: Tensor
    weight: Tensor
    tangent_norm: Tensor | None = None
    scalars: dict[str, float] = field(default_factory=dict)
    r: Tensor | None = None


@dataclass(frozen=True)
class Anatomy:
    """The parts of the tangent for some samples of a batch.

    Attributes:
        t: the times, (b,).
        values: by name, (b,) each; those of `cmbench.anatomy`.
    """

    t: Tensor
    values: dict[str, Tensor]


def weighted(
    loss: Tensor,
    weight: Tensor,
    t: Tensor,
    tangent_norm: Tensor | None = None,
    scalars: dict[str, float] | None = None,
    r: Tensor | None = None,
) -> Terms:
    """Return the terms of mean(weight * loss). loss (B,) carries the gradient, the others none."""
    norm = None if tangent_norm is None else tangent_norm.detach()
    weight = weight.to(loss.dtype)
    return Terms((weight * loss).mean(), t, loss.detach(), weight.detach(), norm, scalars or {}, r)
