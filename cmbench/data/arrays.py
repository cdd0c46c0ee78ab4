"""Arrays of a file: points, pictures or latents in .npy, .npz, .safetensors or .csv, read where they lie."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from pydantic import Field
from torch import Tensor

from cmbench import finite
from cmbench.arrays import choice, layout, moments
from cmbench.arrays.choice import Chosen, Part
from cmbench.arrays.layout import Layout
from cmbench.arrays.stored import Stored
from cmbench.augmentation import Augmented
from cmbench.config import NonNegative, Positive
from cmbench.errors import UsageError
from cmbench.finite import Finite

_SMALL = 1 << 28  # bytes that are read into memory: whatever becomes of the file, a run goes on
_PART = 1 << 24  # bytes of samples that are made at once: float64 on the way there take several times as much
_LONGEST = 12  # most classes that a summary lists with their counts


class Config(Augmented):
    """[data] kind = "arrays"."""

    root: str = Field(description="the file of the samples: .npy, .npz, .safetensors or .csv")
    samples: str = Field(
        "", description="which array of the file, or columns of a .csv (x,y); empty: the only one, all"
    )
    labels: str = Field("", description="an array of the file, a column, or a file beside it; empty: no labels")
    held_out: float = Field(0.1, gt=0, lt=1, description="share that is held out, if held_out_samples names none")
    held_out_samples: str = Field("", description="held-out samples: an array of the file, or a file beside it")
    held_out_labels: str = Field("", description="their labels; empty: called as the others, in a file of their own")
    layout: Literal["auto", "chw", "hwc"] = Field(
        "auto", description="pictures (M, C, H, W) or (M, H, W, C); auto: as it seems"
    )
    scale: Positive = Field(1.0, description="what floats are multiplied by")
    deviation: NonNegative = Field(
        0.0, description="if not 0: centre each channel and scale all to this standard deviation, path.sigma_data"
    )
    horizontal_flip: bool = Field(False, description="mirror each picture with probability one half")

    def located(self, base: Path) -> "Config":
        """Return the settings with a root that does not depend on the working directory."""
        return self.model_copy(update={"root": os.path.normpath(base / Path(self.root).expanduser())})


class Mapped:
    """Rows of a stored array as points (n, D) or pictures (n, C, H, W), read when they are wanted.

    Args:
        stored: the array.
        kind: its layout.
        shift, scale: floats become (x - shift) scale; the shift has a number a channel, or none.
        index: the rows that belong to it, (M,) int64; None for all.
    """

    device = torch.device("cpu")

    def __init__(
        self, stored: Stored, kind: Layout, shift: Sequence[float], scale: float, index: np.ndarray | None
    ) -> None:
        self._stored, self._kind, self._scale, self._index = stored, kind, scale, index
        self._shift = torch.tensor(shift, dtype=torch.float64) if any(shift) else None
        n = len(stored) if index is None else len(index)
        self.shape = (n, *layout.sample_shape(stored.shape, kind))
        self.dtype = torch.uint8 if stored.is_bytes else torch.float32
        self.nbytes = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return some rows, uint8 or float32, (n, *shape)."""
        return self._read(index, self.device)

    def to(self, device: torch.device) -> "Tensor | Mapped":
        """Return the rows on a device; on the CPU they stay in the file."""
        return self if device.type == "cpu" else self._read(slice(None), device)

    def _read(self, index: Tensor | slice, device: torch.device) -> Tensor:
        """Return some rows on a device. Many are read in parts, so that nothing but the result takes memory."""
        rows = range(len(self))[index] if isinstance(index, slice) else index.numpy()
        size = max(1, _PART * len(self) // max(1, self.nbytes))
        if len(rows) <= size:
            return self._part(rows).to(device)
        x = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype, device=device)
        for start in range(0, len(rows), size):
            x[start : start + size] = self._part(rows[start : start + size])
        return x

    def _part(self, wanted: np.ndarray | range) -> Tensor:
        if isinstance(wanted, range):
            wanted = np.arange(wanted.start, wanted.stop, wanted.step)
        rows = self._stored.rows(wanted if self._index is None else self._index[wanted])
        x = torch.from_numpy(layout.channels_second(rows, self._kind)).contiguous()
        if self._stored.is_bytes:
            return x
        if self._shift is not None:
            x = x.double() - self._shift.view(-1, *[1] * (x.ndim - 2))
        return (x * self._scale).float() if self._scale != 1 else x.float()


class Data(Finite):
    """Points (D,) or pictures (C, H, W) with labels, if the recipe names any.

    Attributes:
        names: the names of the classes, where labels are names.
        counts: the training samples of each class, where they have names.
        summary: what was found, in one line.
        content: a digest of samples and labels.
        shift, scale: floats x of the file became (x - shift) scale; the shift is empty where it is 0.

    Raises:
        UsageError: files, arrays and keys do not fit, or a value is not finite.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        chosen = choice.chosen(config)
        kinds = [_layout(part, config.layout) for part in chosen.parts]
        _check_together(chosen, kinds, config)
        found = [
            moments.checked(part.samples, kind, part.path, part.key)
            for part, kind in zip(chosen.parts, kinds, strict=True)
        ]
        self.shift, self.scale = _shift_and_scale(config, found[0], chosen.train)
        parts = _split(chosen, config.held_out)
        rows = [
            Mapped(part.samples, kind, self.shift, self.scale, index)
            for (part, index, _), kind in zip(parts, 2 * kinds, strict=False)
        ]
        labels = [torch.from_numpy(numbers) for *_, numbers in parts]
        train, test = (each[:] if each.nbytes <= _SMALL else each for each in rows)
        super().__init__(train, labels[0], test, labels[1], device, config.horizontal_flip)
        self.names = tuple(chosen.names)
        self.counts = tuple(torch.bincount(labels[0], minlength=self.classes).tolist()) if chosen.names else ()
        self.content, self.summary = chosen.content, _summary(self, chosen, kinds[0])
        if chosen.train.samples.nbytes > psutil.virtual_memory().available // 2:
            chosen.train.samples.expect_single_rows()


def _layout(part: Part, wanted: Literal["auto", "chw", "hwc"]) -> Layout:
    """Return where the channels of a part are; refuse to guess where two ways are as likely."""
    shape = part.samples.shape
    if wanted != "auto":
        if len(shape) != 4:
            raise UsageError(
                f"data.layout: found '{wanted}', but {part.samples.where} has shape {list(shape)}; allowed: auto"
            )
        return wanted
    if (found := layout.guessed(shape)) is None:
        raise UsageError(
            f"data.layout: missing, and shape {list(shape)} of {part.samples.where} may be (M, C, H, W) or "
            "(M, H, W, C); allowed: chw, hwc"
        )
    return found


def _check_together(chosen: Chosen, kinds: list[Layout], config: Config) -> None:
    """Refuse parts of different shapes or types, and keys that do nothing with these samples."""
    train = chosen.train.samples
    shapes = [layout.sample_shape(part.samples.shape, kind) for part, kind in zip(chosen.parts, kinds, strict=True)]
    if chosen.held_out is not None:
        other = chosen.held_out.samples
        if shapes[0] != shapes[1] or train.is_bytes != other.is_bytes:
            found = f"{other.where} holds {other.type_name} {list(shapes[1])}"
            raise UsageError(
                f"data.held_out_samples: {found}, allowed: {train.type_name} {list(shapes[0])}, as in training"
            )
    if config.horizontal_flip and kinds[0] == "points":
        raise UsageError("data.horizontal_flip: found true, allowed for points: false")
    if train.is_bytes and (config.scale != 1 or config.deviation):
        key = "deviation" if config.deviation else "scale"
        raise UsageError(
            f"data.{key}: found {getattr(config, key):g}, but {train.where} is uint8, which becomes -1 to 1"
        )
    if config.deviation and config.scale != 1:
        raise UsageError(f"data.scale: found {config.scale:g}, allowed with data.deviation: 1.0")


def _shift_and_scale(config: Config, found: list[moments.Moments] | None, train: Part) -> tuple[Sequence[float], float]:
    """Return the mean of each channel and a common factor, or what the recipe says."""
    if not config.deviation or found is None:
        return (), config.scale
    deviation = math.sqrt(sum(each.deviation**2 for each in found) / len(found))
    if not deviation:
        raise UsageError(
            f"data.deviation: found {config.deviation:g}, but all values of {train.samples.where} are the same"
        )
    return tuple(each.mean for each in found), config.deviation / deviation


def _split(chosen: Chosen, share: float) -> list[tuple[Part, np.ndarray | None, np.ndarray]]:
    """Return training and held-out part, each with its rows (None for all) and labels."""
    if chosen.held_out is not None:
        return [(part, None, own) for part, own in zip(chosen.parts, chosen.numbers, strict=True)]
    train, (numbers,) = chosen.train, chosen.numbers
    return [(train, index, numbers[index]) for index in finite.split(numbers, share)]


def _summary(data: Data, chosen: Chosen, kind: Layout) -> str:
    """Return e.g. "90 pictures [4, 16, 16] of float16, and 10 held out, 2 classes (0: 40, 1: 50), scaled by 0.18"."""
    n, out = data.count_and_held_out
    what = {"points": "points", "grey": "grey pictures", "hwc": "pictures, channels last"}.get(kind, "pictures")
    parts = [f"{n:,} {what} {list(data.shape)} of {chosen.train.samples.type_name}, and {out:,} held out"]
    if chosen.train.labels is not None:
        counts = torch.bincount(data.train_labels.cpu(), minlength=data.classes).tolist()
        names = chosen.names or [str(i) for i in range(data.classes)]
        each = ", ".join(f"{name}: {count:,}" for name, count in zip(names, counts, strict=True))
        each = each if len(counts) <= _LONGEST else f"{min(counts):,} to {max(counts):,} each"
        parts.append(f"{len(counts)} class{'es' * (len(counts) > 1)} ({each})")
    if data.scale != 1:
        parts.append(f"{'centred and ' * bool(data.shift)}scaled by {data.scale:.4g}")
    return ", ".join(parts)
