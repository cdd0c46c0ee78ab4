"""The squared maximum mean discrepancy of a Gaussian kernel (Gretton et al. 2012, "A kernel two-sample test")."""

import math

import torch
from torch import Tensor

from cmbench.evaluation._distances import distances

_FOR_WIDTH = 1000  # real samples whose distances give the kernel's width


def kernel_mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of MMD^2 (equation 3). Lower is better; the best is about zero, on either side.

    k(a, b) = exp(-|a - b|^2 / (2 h^2)), where h is the median distance (section 8) between real samples alone, so that
    all models have one kernel.

    Args:
        x: (n, ...) samples, flattened.
        y: (m, ...) real samples of the same shape, not all equal.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return math.nan
    h = float(torch.pdist(y[:_FOR_WIDTH].flatten(1).double()).median())
    within = (_sum(x, x, h) - n) / (n * (n - 1)) + (_sum(y, y, h) - m) / (m * (m - 1))  # excludes k(a, a) = 1
    return within - 2 * _sum(x, y, h) / (n * m)


def _sum(x: Tensor, y: Tensor, h: float) -> float:
    return sum(float((block / h).square().div(-2).exp().sum()) for block in distances(x, y))
