"""The distance of samples to the training set, which shows whether they copy it."""

from torch import Tensor

from cmbench.evaluation._distances import nearest


def nearest_neighbour(x: Tensor, y: Tensor) -> float:
    """Return the mean distance of a sample to the nearest training sample.

    Neither lower nor higher is better. New draws of the distribution are as far from the training set as held-out data
    are; that is the floor. Samples far below the floor are copies, samples far above it are off. (The idea is that of
    Meehan et al. 2020, "A non-parametric test to detect data-copying", without its cells.)

    Args:
        x: (n, ...) samples or their features, flattened.
        y: (m, ...) training samples.
    """
    return float(nearest(x, y).mean())
