"""Improved recall: how much of the real data the samples reach (Kynkäänniemi et al. 2019)."""

from torch import Tensor

from cmbench.evaluation.precision import precision


def recall(x: Tensor, y: Tensor, k: int = 3) -> float:
    """Return the share of real data within the k-neighbour ball of a sample (equation 2). Higher is better.

    The balls shrink as n grows, so compare only figures of the same n.

    Args:
        x: (n, ...) samples or their features, flattened; n > k, or nan is returned.
        y: (m, ...) real ones.
        k: neighbours; the ball around a sample reaches to its k-th nearest sample.
    """
    return precision(y, x, k)
