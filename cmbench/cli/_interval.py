"""How sure a difference of two means is."""

import numpy as np

from cmbench.rundir.columns import Floats

_CONFIDENCE = 0.95
_RESAMPLES = 9999
_SEED = 0  # the same report twice


def of_difference(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the ends of a 95% percentile bootstrap interval of mean(y) - mean(x), each (metrics,).

    Over a few seeds it is rather too short than too long. It is that of `scipy.stats.bootstrap`, as a test makes sure;
    to import it would take as long as to read twenty runs.

    Args:
        x, y: (metrics, seeds) of two groups, finite.
    """
    random = np.random.default_rng(_SEED)
    means = [
        values[:, random.integers(0, values.shape[1], (_RESAMPLES, values.shape[1]))].mean(axis=-1) for values in (x, y)
    ]
    beyond = (1 - _CONFIDENCE) / 2  # on either side
    low, high = np.percentile(means[1] - means[0], [100 * beyond, 100 * (1 - beyond)], axis=-1)
    return low, high
