"""Samples as an .npy or .npz file, in the units of the file that the run was trained on."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

KINDS = (".npy", ".npz")


def is_wanted(out: Path | None) -> bool:
    """Return whether the name of a file asks for numbers instead of a picture."""
    return out is not None and out.suffix.lower() in KINDS


def content(out: Path, x: "Tensor", labels: "Tensor | None", fingerprint: Mapping[str, Any]) -> bytes:
    """Return the file's content: samples (n, *shape) float32, and in an .npz also the labels (n,) int64, if any.

    Args:
        out: its name, which says the kind.
        x: (n, *shape), as the model draws them.
        labels: (n,), of a conditional model.
        fingerprint: of the training data; the shift and scale in it are undone.
    """
    samples, buffer = in_units_of_data(x.numpy(), fingerprint), io.BytesIO()
    if out.suffix.lower() == ".npy":
        np.save(buffer, samples, allow_pickle=False)
    else:
        own: dict[str, Any] = {} if labels is None else {"labels": labels.numpy()}
        np.savez(buffer, samples=samples, **own)
    return buffer.getvalue()


def in_units_of_data(x: np.ndarray, fingerprint: Mapping[str, Any]) -> np.ndarray:
    """Return x / scale + shift, the inverse of what was done to the numbers of the data's file. (n, *shape)."""
    shift, scale = fingerprint.get("shift") or [], fingerprint.get("scale") or 1.0
    if scale == 1 and not any(shift):
        return x
    added = np.array(shift).reshape(-1, *[1] * (x.ndim - 2)) if len(shift) == x.shape[1] else 0.0
    return (x.astype(np.float64) / scale + added).astype(np.float32)
