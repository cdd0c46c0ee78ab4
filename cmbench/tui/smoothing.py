"""The average that charts draw: exponential, with its bias towards the first value taken out."""

import numpy as np

from cmbench.tui.canvas import Floats


def ema(values: Floats, count: Floats, decay: float) -> Floats:
    """Return the average at each value: sum of decay^(age in rows) v over the same sum of ones.

    What Adam calls bias correction (Kingma & Ba 2015, section 3). Values that are not finite are passed over: the
    average stays as it was; it is nan before the first value.

    Args:
        values: (n,).
        count: rows behind each value, (n,): a mean of 8 rows weighs and ages as 8 rows.
        decay: of one row, in (0, 1).
    """
    there = np.isfinite(values) & (count > 0)
    keep = np.where(there, np.power(decay, count), 1.0)
    weight = 1.0 - keep
    known = np.where(there, values, 0.0)
    size = float(np.abs(known).max(initial=0.0)) or 1.0  # in units of it, nothing in a block is beyond all floats
    total, norm = _filtered(keep, weight * (known / size)), _filtered(keep, weight)
    return size * np.divide(total, norm, out=np.full(len(values), np.nan), where=norm > 0)


def _filtered(keep: Floats, gain: Floats) -> Floats:
    """Return y_k = keep_k y_{k-1} + gain_k from y = 0, block by block: products of a block stay within float64."""
    out, last, logs = np.empty(len(gain)), 0.0, np.log(np.maximum(keep, 1e-100))
    block = max(1, int(500 / max(1e-6, -float(logs.min(initial=0.0)))))
    for start in range(0, len(gain), block):
        part = slice(start, start + block)
        fade = np.exp(np.cumsum(logs[part]))
        out[part] = fade * (last + np.cumsum(gain[part] / fade))
        last = out[part][-1]
    return out
