"""Quantities derived from profiles.jsonl: each bin's share of batch and gradient, and what it adds to the error."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bins = NDArray[np.float64]
History = list[tuple[int, NDArray[np.float32]]]  # each step with its bins

GRADIENT, BATCH, DEBT = "gradient_share", "batch_share", "consistency_debt"
_MADE_OF = {
    GRADIENT: ("count", "F_gradient", "F_gradient_variance"),
    BATCH: ("count",),
    DEBT: ("true_error",),
}


class Shares(NamedTuple):
    """Shares of the time bins, (bins,) each. The known shares sum to one; unknown ones are nan.

    Attributes:
        batch: share of the samples: the proposal of t in use, integrated over each bin.
        gradient: share of the sum over samples of ||dL/dF||^2.
        evening: the proposal that would give every bin with samples the same share of that sum.
    """

    batch: Bins
    gradient: Bins
    evening: Bins


def shares(count: ArrayLike, norm: ArrayLike, variance: ArrayLike) -> Shares:
    """Return where the gradient comes from. With s_i = norm_i^2 + variance_i, the second moment of a bin's norms:

        batch      p_i = count_i / sum_j count_j
        gradient   q_i = p_i s_i / sum_j p_j s_j
        evening    e_i = s_i^-1 / sum_j s_j^-1, since then e_i s_i is the same in all bins

    s_i belongs to dL/dF at F's output, for one sample's weighted loss. It does not give the norm of the gradient in
    the weights, because dF/dtheta also depends on t. Nor does it give the signal-to-noise ratio: norms do not say how
    far the vectors of several samples point the same way. The evening proposal keeps the weights of the loss, so it
    changes what is minimised.

    Args:
        count: samples in each bin, (bins,).
        norm: mean of ||dL/dF|| over the samples, (bins,); nan in an empty bin.
        variance: of ||dL/dF||, (bins,).
    """
    n, mean, spread = (np.asarray(each, np.float64) for each in (count, norm, variance))
    with np.errstate(all="ignore"):
        second = mean**2 + spread
        known = (n > 0) & np.isfinite(second)
        batch = np.where(n > 0, n, np.nan)
        return Shares(
            _summing_to_one(batch),
            _summing_to_one(np.where(known, batch * second, np.nan)),
            _summing_to_one(np.where(known & (second > 0), 1 / second, np.nan)),
        )


def log_normal(share: ArrayLike, noise_levels: Sequence[float]) -> tuple[float, float] | None:
    """Return P_mean and P_std, the mean and standard deviation of log sigma, of a proposal uniform within each bin.

    Args:
        share: of each bin, (bins,).
        noise_levels: sigma at the edges of the bins, (bins + 1,), positive.
    """
    p, edges = np.asarray(share, np.float64), np.log(np.asarray(noise_levels, np.float64))
    known = np.isfinite(p)
    if len(edges) != len(p) + 1 or not known.any() or not np.isfinite(edges).all():
        return None
    p, middles, widths = p[known] / p[known].sum(), (edges[1:] + edges[:-1])[known] / 2, np.diff(edges)[known]
    mean = float(p @ middles)
    return mean, float(np.sqrt(p @ ((middles - mean) ** 2 + widths**2 / 12)))


def debt(error: ArrayLike) -> Bins:
    """Return how much each bin of t adds to the error of one step: e_i - e_(i-1), with e_(-1) = 0, (bins,).

    e_i is the mean of ||f(x_t, t) - Phi(x_t)|| on exact trajectories at the middle of bin i. It must be zero at the
    smallest time, where f is the identity. So the debts sum to e of the last known bin. From the middle of one bin to
    the next, f moves by at least |e_i - e_(i-1)| on average. A negative debt means that f comes closer to the truth.

    Args:
        error: e, (bins,), ascending in t; nan where unknown: the next known bin then carries the difference.
    """
    e = np.asarray(error, np.float64)
    known = np.isfinite(e)
    found = np.full(e.shape, np.nan)
    found[known] = np.diff(e[known], prepend=0.0)
    return found


def known(rows: Mapping[str, History]) -> list[str]:
    """Return the names that `history` can compute from these profiles."""
    return [name for name, parts in _MADE_OF.items() if all(rows.get(part) for part in parts)]


def history(rows: Mapping[str, History], name: str) -> History:
    """Return gradient_share, batch_share or consistency_debt at the steps whose rows allow it."""
    parts = [dict(rows.get(part, ())) for part in _MADE_OF[name]]
    steps = [step for step in parts[-1] if _are_alike(step, parts)]
    return [(step, _of(name, [part[step] for part in parts])) for step in steps]


def newest(rows: Mapping[str, History]) -> tuple[int, Shares] | None:
    """Return the step of the newest row, and its shares."""
    parts = [rows.get(part, [])[-1:] for part in _MADE_OF[GRADIENT]]
    if not all(parts) or len({part[0][0] for part in parts}) > 1 or len({len(part[0][1]) for part in parts}) > 1:
        return None
    return parts[0][0][0], shares(*(part[0][1] for part in parts))


def _are_alike(step: int, parts: Sequence[Mapping[int, NDArray[np.float32]]]) -> bool:
    return all(step in part for part in parts) and len({part[step].shape for part in parts}) == 1


def _of(name: str, bins: Sequence[ArrayLike]) -> NDArray[np.float32]:
    if name == DEBT:
        return debt(bins[0]).astype(np.float32)
    if name == BATCH:
        return shares(bins[0], bins[0], bins[0]).batch.astype(np.float32)
    return shares(*bins).gradient.astype(np.float32)


def _summing_to_one(sizes: Bins) -> Bins:
    total = float(np.nansum(sizes))
    return sizes / total if np.isfinite(total) and total > 0 else np.full(sizes.shape, np.nan)
