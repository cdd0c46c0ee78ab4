"""How sure a difference of two means is."""

import numpy as np

from cmbench.rundir.columns import Floats

_RESAMPLES = 9999
_SEED = 0  # the same report twice


def of_difference(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the ends of a 95% percentile bootstrap interval of mean(y) - mean(x), each (metrics,).

    Over a few seeds it is rather too short than too long.

    Args:
        x, y: (metrics, seeds) of two groups, finite.
    """
    from scipy.stats import bootstrap

    found = bootstrap(
        (x, y),
        lambda x, y, axis: np.mean(y, axis=axis) - np.mean(x, axis=axis),
        n_resamples=_RESAMPLES,
        axis=-1,
        method="percentile",
        random_state=np.random.default_rng(_SEED),
    )
    return found.confidence_interval.low, found.confidence_interval.high
