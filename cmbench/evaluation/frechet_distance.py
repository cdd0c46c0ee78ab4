"""The Fréchet distance between Gaussians with the moments of two sets (Dowson & Landau 1982; Heusel et al. 2017)."""

import math

import torch
from torch import Tensor


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), the square, like FID. Lower is better.

    tr (C_x C_y)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C_x^(1/2) C_y C_x^(1/2). This needs
    no complex root, and works without full rank, as for fewer samples than dimensions.

    Args:
        x: (n, ...) samples or their features, flattened.
        y: (m, ...) of the same shape.
    """
    if min(len(x), len(y)) < 2:
        return math.nan
    x, y = x.flatten(1).double(), y.flatten(1).double()
    C_x, C_y = _covariance(x), _covariance(y)
    values, axes = torch.linalg.eigh(C_x)
    root = axes * values.clamp_min(0).sqrt() @ axes.T
    crossed = torch.linalg.eigvalsh(root @ C_y @ root).clamp_min(0).sqrt().sum()
    square = (x.mean(dim=0) - y.mean(dim=0)).square().sum() + C_x.trace() + C_y.trace() - 2 * crossed
    return max(float(square), 0.0)


def _covariance(x: Tensor) -> Tensor:
    """Return the unbiased covariance (d, d) of x (n, d)."""
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1)
