"""The sliced Wasserstein distance between two sets of samples (Bonneel et al. 2015)."""

import torch
from torch import Tensor


def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = 512, seed: int = 0) -> float:
    """Return the root mean square over random directions of the 2-Wasserstein distance of the projections.

    Each direction is exact, also for sets of unequal size: both quantile functions are step functions, and their
    squared difference is integrated over the union of the steps.

    Args:
        x: (n, ...) samples, flattened.
        y: (m, ...) samples of the same shape.
        projections: number of directions, uniform on the sphere, drawn from `seed`.
    """
    x, y = x.flatten(1).double(), y.flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], projections, dtype=torch.float64, generator=generator).to(x.device)
    directions = directions / directions.norm(dim=0)
    p, q = (x @ directions).sort(dim=0).values, (y @ directions).sort(dim=0).values
    i, j, widths = _union_of_steps(len(x), len(y))
    squares = (p[i.to(x.device)] - q[j.to(x.device)]).square() * widths.to(x.device)[:, None]
    return float(squares.sum(dim=0).mean().sqrt())


def _union_of_steps(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each step of the union, the index into n, the index into m, and the step's width."""
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()  # in units of 1 / (n m)
    widths = torch.diff(ends, prepend=ends.new_zeros(1))
    return (ends - 1) // m, (ends - 1) // n, widths.double() / (n * m)
