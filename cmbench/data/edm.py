"""Pictures or latents in EDM's form: a folder or a zip with dataset.json, all of one size.

A kind of its own: what is set for folders of pictures (size, alpha, reader) has no meaning here, since EDM's tool has
already cropped and resized every picture.
"""

import io
import os
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.lib import format as npy
from pydantic import Field

from cmbench.arrays import labels
from cmbench.arrays.stored import Stored
from cmbench.augmentation import Augmented
from cmbench.errors import UsageError
from cmbench.finite import Finite, split
from cmbench.pictures import decode, packed
from cmbench.pictures.packed import Packed
from cmbench.text import shown

_LONGEST = 12  # most classes that a summary lists with their counts


class Config(Augmented):
    """[data] kind = "edm"."""

    root: str = Field(description="a folder or a zip of EDM's dataset_tool.py, with its dataset.json")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of pictures that are held out")
    horizontal_flip: bool = Field(False, description="mirror each picture with probability one half")

    def located(self, base: Path) -> "Config":
        """Return the settings with a root that does not depend on the working directory."""
        return self.model_copy(update={"root": os.path.normpath(base / Path(self.root).expanduser())})


class Data(Finite):
    """Pictures (1 or 3, H, W), or arrays (C, H, W) as .npy, with the labels of dataset.json.

    Attributes:
        summary: what was found, in one line.
        content: a digest of the files.

    Raises:
        UsageError: the files are missing or cannot be read, are of several sizes, or do not fit into memory.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        root = Path(config.root).expanduser()
        with packed.opened(root) as found:
            samples = _read(found, root)
        self.content = found.content
        numbers = np.zeros(len(samples), np.int64)
        if found.labels is not None:
            own = Stored(np.array(found.labels, np.int64), "dataset.json")
            (numbers,), _ = labels.numbered([(own, Stored(samples, root.name))], "data.root")
        train, test = split(numbers, config.held_out)
        x, y = torch.from_numpy(samples), torch.from_numpy(numbers)
        super().__init__(x[train], y[train], x[test], y[test], device, config.horizontal_flip)
        self.summary = _summary(self, found.labels is not None)


def _read(found: Packed, root: Path) -> np.ndarray:
    """Decode every picture into one array: uint8 (M, 1 or 3, H, W), or float32 (M, C, H, W)."""
    first, is_grey = _decoded(found, found.names[0], root)
    M, free = len(found.names), psutil.virtual_memory().available
    if (wanted := M * first.nbytes) > free:
        raise UsageError(f"data.root: {M:,} pictures need {wanted:,} bytes of memory, {free:,} are free")
    samples = np.empty((M, *first.shape), first.dtype)
    for i, name in enumerate(found.names):
        x, own = (first, is_grey) if i == 0 else _decoded(found, name, root)
        if x.shape != first.shape or x.dtype != first.dtype:
            beside = f"{list(first.shape)} {first.dtype.name} as {shown(found.names[0])}"
            raise UsageError(f"data.root: {root}: {shown(name)} is {list(x.shape)} {x.dtype.name}, allowed: {beside}")
        samples[i], is_grey = x, is_grey and own
    return np.ascontiguousarray(samples[:, :1]) if is_grey else samples


def _decoded(found: Packed, name: str, root: Path) -> tuple[np.ndarray, bool]:
    """Return a file's array (C, H, W), uint8 or float32, and whether it is a grey picture, with C = 3 all the same."""
    try:
        content = found.read(name)
        if name.lower().endswith(packed.ARRAY):
            return _array(content), False
        picture, marks = decode.read(content)
        return np.asarray(picture).transpose(2, 0, 1), "grey" in marks
    except Exception as error:  # decoders raise all kinds of errors at damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"data.root: {root}: {shown(name)} cannot be read: {reason}") from None


def _array(content: bytes) -> np.ndarray:
    x = npy.read_array(io.BytesIO(content), allow_pickle=False)
    if x.ndim not in (3, 4) or (x.ndim == 4 and len(x) != 1):
        raise ValueError(f"an array of shape {list(x.shape)}, allowed: (C, H, W)")
    if x.dtype.kind != "f" and x.dtype != np.uint8:
        raise ValueError(f"an array of {x.dtype.name}, allowed: uint8 or floats")
    if not np.isfinite(x).all():
        raise ValueError("it holds numbers that are not finite")
    return x.reshape(x.shape[-3:]).astype(np.uint8 if x.dtype == np.uint8 else np.float32)


def _summary(data: Data, is_labelled: bool) -> str:
    n, out = data.count_and_held_out
    counts = torch.bincount(data.train_labels.cpu(), minlength=data.classes).tolist()
    each = ", ".join(f"{i}: {count:,}" for i, count in enumerate(counts))
    each = each if len(counts) <= _LONGEST else f"{min(counts):,} to {max(counts):,} each"
    classes = f", {len(counts)} class{'es' * (len(counts) > 1)} ({each})" if is_labelled else ", no labels"
    return f"{n:,} pictures {list(data.shape)}, and {out:,} held out{classes}"
