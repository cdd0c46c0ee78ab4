"""Euclidean distances between two sets of samples, a part at a time, and nearest neighbours."""

from collections.abc import Iterator

import torch
from torch import Tensor

_AT_ONCE = 2**24  # distances in memory: 128 MiB of float64


def distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Yield the distances of x (n, ...), b at a time, to all of y (m, ...), (b, m), in float64.

    They come from a matrix product, so a zero distance may become 1e-8 of the data's size.
    """
    x, y = x.flatten(1).double(), y.flatten(1).double()
    for part in x.split(max(1, _AT_ONCE // len(y))):
        yield torch.cdist(part, y)


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance of each x (n, ...) to the nearest of y (m, ...), (n,)."""
    return torch.cat([block.amin(dim=1) for block in distances(x, y)])


def radii(x: Tensor, k: int) -> Tensor:
    """Return the distance of each x (n, ...), n > k, to the k-th nearest of the others, (n,)."""
    return torch.cat([block.kthvalue(k + 1, dim=1).values for block in distances(x, x)])  # the first is x itself
