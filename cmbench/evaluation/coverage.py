"""Coverage: how many real neighbourhoods contain a sample (Naeem et al. 2020)."""

import math

from torch import Tensor

from cmbench.evaluation._distances import nearest, radii


def coverage(x: Tensor, y: Tensor, k: int = 5) -> float:
    """Return the share of real k-neighbour balls with a sample in them (equation 5). Higher is better.

    For samples of the real distribution and n = m it is about 1 - 2^-k = .97; it grows with n (equation 9).

    Args:
        x: (n, ...) samples or their features, flattened.
        y: (m, ...) real ones; m > k, or nan is returned.
        k: neighbours.
    """
    if len(y) <= k:
        return math.nan
    return float((nearest(y, x) <= radii(y, k)).double().mean())
