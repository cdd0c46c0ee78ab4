"""Work to compare a step with: a bare pass of the same network forward and back, and a product of matrices."""

from collections.abc import Callable

import torch
from torch import Tensor

from cmbench.model import AUTOCAST, Model, products
from cmbench.tables import Train

_SIDE = {"cpu": 1024, "cuda": 8192}  # of square matrices: large enough for the full rate


def bare(model: Model, x: Tensor, t: Tensor, labels: Tensor | None = None, size: int | None = None) -> None:
    """Compute the gradients of mean(F^2), with F of F_theta itself: neither loss nor target nor optimiser.

    Args:
        model: in training mode.
        x: (B, ...).
        t: (B,).
        labels: (B,) or None.
        size: the samples that go through the network at once; None: all.
    """
    model.zero_grad(set_to_none=True)
    size = size or len(x)
    with model.precision(x):
        c_noise = model.c_noise(t, t / 2 if model.times == 2 else None)
    for rows in (slice(start, start + size) for start in range(0, len(x), size)):
        with model.precision(x):
            F = model.F_theta(x[rows], c_noise[rows], None if labels is None else labels[rows])
        with products(model.matmul_precision, x.device):
            F.float().square().mean().backward()


def product(device: torch.device, train: Train) -> tuple[Callable[[], Tensor], int]:
    """Return a function that multiplies two square matrices in a recipe's precision, and its operations.

    An addition and a multiplication are two.
    """
    side, dtype = _SIDE[device.type], AUTOCAST[train.precision] or torch.float32
    a, b = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))

    def multiply() -> Tensor:
        with products(train.matmul_precision, device):
            return a @ b

    return multiply, 2 * side**3
