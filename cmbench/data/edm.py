"""Pictures or latents in EDM's form: a folder or a zip with dataset.json, all of one size.

A kind of its own: what is set for folders of pictures (size, alpha, reader) has no meaning here, since EDM's tool has
already cropped and resized every picture.
"""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from cmbench.arrays import labels
from cmbench.arrays.stored import Stored
from cmbench.augmentation import Augmented
from cmbench.errors import UsageError
from cmbench.finite import Finite, Gathered, split
from cmbench.pictures import packed
from cmbench.pictures.decode import RefusedError
from cmbench.pictures.packed import Packed
from cmbench.pictures.prepare import prepared, printable
from cmbench.pictures.shape import ARRAY, Alike

_LONGEST = 12  # most classes that a summary lists with their counts


class Config(Augmented):
    """[data] kind = "edm"."""

    root: str = Field(description="a folder or a zip of EDM's dataset_tool.py, with its dataset.json")
    channels: Literal[0, 1, 3] = Field(
        0, description="1: grey, a byte a pixel; 3: colours; 0: 1 if all pictures are grey, else 3"
    )
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
        UsageError: the files are missing or cannot be read, are of several sizes, or are arrays where channels are set.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        root = Path(config.root).expanduser()
        with packed.opened(root) as found:
            samples = _decoded(found, config.channels)
        self.content = found.content
        numbers = np.zeros(len(samples), np.int64)
        if found.labels is not None:
            own = Stored(np.array(found.labels, np.int64), "dataset.json")
            (numbers,), _ = labels.numbered([(own, Stored(samples, root.name))], "data.root")
        train, test = (torch.from_numpy(index) for index in split(numbers, config.held_out))
        x, out, y = Gathered(samples, train), Gathered(samples, test), torch.from_numpy(numbers)
        super().__init__(x, y[train], out.to(out.device), y[test], device, config.horizontal_flip)
        self.summary = _summary(self, found.labels is not None)


def _decoded(found: Packed, channels: int) -> np.ndarray:
    """Return the pictures, mapped from a file: uint8 (M, 1 or 3, H, W), or float32 (M, C, H, W).

    With channels = 0 it is not known before the last picture that all are grey, so three are kept of each.
    """
    where, first = f"data.root: {found.root}", found.names[0]
    if channels and first.lower().endswith(ARRAY):
        raise UsageError(f"data.channels: found {channels}, allowed for arrays such as {printable(first)}: 0")
    try:
        ((_, source),) = found.sources([first])
        maker = Alike.to(first, source, channels or 3)
    except RefusedError as error:
        raise UsageError(f"{where}: {printable(first)} cannot be read: {error}") from None
    made = prepared(found.sources, len(found.names), found.known_by, maker, where)
    is_grey = made.marks["grey"] == len(found.names)  # each in three channels alike
    return made.pictures[:, :1] if is_grey and not channels else made.pictures


def _summary(data: Data, is_labelled: bool) -> str:
    n, out = data.count_and_held_out
    counts = torch.bincount(data.train_labels.cpu(), minlength=data.classes).tolist()
    each = ", ".join(f"{i}: {count:,}" for i, count in enumerate(counts))
    each = each if len(counts) <= _LONGEST else f"{min(counts):,} to {max(counts):,} each"
    classes = f", {len(counts)} class{'es' * (len(counts) > 1)} ({each})" if is_labelled else ", no labels"
    return f"{n:,} pictures {list(data.shape)}, and {out:,} held out{classes}"
