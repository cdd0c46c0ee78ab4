"""The Fréchet distance between Gaussians with the moments of two sets (Dowson & Landau 1982; Heusel et al. 2017)."""

import math

from torch import Tensor

from cmbench.equations.frechet import moments, squared_distance


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Return |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), the square, like FID. Lower is better.

    Args:
        x: (n, ...) samples or their features, flattened.
        y: (m, ...) of the same shape.
    """
    if min(len(x), len(y)) < 2:
        return math.nan
    return squared_distance(moments(x), moments(y))
