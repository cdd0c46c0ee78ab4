"""Labels as the numbers 0 to classes - 1: whole numbers of any type, or names."""

from collections.abc import Sequence

import numpy as np

from cmbench.arrays.stored import Stored
from cmbench.errors import UsageError
from cmbench.pictures.listing import natural

_NAMED = 6  # missing numbers that a message lists


def numbered(parts: Sequence[tuple[Stored, Stored]], key: str) -> tuple[list[np.ndarray], list[str]]:
    """Return the labels of each part as int64 (M,), and the names of the classes; without names, an empty list.

    Args:
        parts: the labels and samples of each part.
        key: of the recipe, for messages.

    Raises:
        UsageError: labels are no whole numbers or names, as many as samples, or a number is missing among them.
    """
    found = [_flat(labels, len(samples), key) for labels, samples in parts]
    where = parts[0][0].where
    if all(each.dtype.kind in "US" for each in found):
        texts = [each.astype(str) for each in found]
        names = sorted({str(name) for each in texts for name in np.unique(each)}, key=natural)
        place = {name: i for i, name in enumerate(names)}
        return [np.array([place[str(name)] for name in each], np.int64) for each in texts], names
    whole = [_whole(each, labels.where, key) for each, (labels, _) in zip(found, parts, strict=True)]
    there = np.unique(np.concatenate([np.unique(each) for each in whole]))
    if there[0] < 0 or there[-1] != len(there) - 1:
        raise UsageError(f"{key}: {where}: {_gap(there)}; allowed: 0 to classes - 1, each of them there")
    return whole, []


def _flat(labels: Stored, samples: int, key: str) -> np.ndarray:
    """Return labels as (M,), from (M,) or (M, 1)."""
    values = labels.values
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise UsageError(
            f"{key}: {labels.where} has shape {list(values.shape)}, allowed: ({samples},), a label a sample"
        )
    if len(values) != samples:
        raise UsageError(f"{key}: {labels.where} has {len(values):,} labels for {samples:,} samples")
    return values


def _whole(values: np.ndarray, where: str, key: str) -> np.ndarray:
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    if values.dtype.kind == "f":  # as the columns of a .csv are
        if np.isfinite(values).all() and (values == np.round(values)).all() and (np.abs(values) < 2**53).all():
            return values.astype(np.int64)
        raise UsageError(f"{key}: {where} holds numbers that are not whole; allowed: whole numbers from 0, or names")
    raise UsageError(f"{key}: {where} is of type {values.dtype.name}; allowed: whole numbers from 0, or names")


def _gap(there: np.ndarray) -> str:
    """Return what is wrong with label numbers that are not 0 to n - 1."""
    if there[0] < 0:
        return f"label {int(there[0])} is below 0"
    wanted = np.arange(min(int(there[-1]), len(there) + _NAMED) + 1)
    missing = np.setdiff1d(wanted, there)[:_NAMED].tolist()
    return f"labels are {int(there[0])} to {int(there[-1])}, and none is {', '.join(map(str, missing))}"
