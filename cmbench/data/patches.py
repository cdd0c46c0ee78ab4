"""Patches of the two photographs that scikit-learn ships: real pictures in colour without a download.

china.jpg by danielbuechele (flickr.com/photos/danielbuechele/6061409035) and flower.jpg by vultilion
(flickr.com/photos/vultilion/6056698931), CC BY 2.0; see images/README.txt of sklearn.datasets.
"""

from collections.abc import Iterator

import numpy as np
import torch
from pydantic import Field, model_validator
from sklearn.datasets import load_sample_image

from cmbench.augmentation import Augmented
from cmbench.config import Channels, Strings
from cmbench.errors import UsageError, did_you_mean
from cmbench.finite import Finite

PICTURES = ("china", "flower")
_SHAPE = (427, 640)  # of both photographs
_CELL = 2  # side of a held-out cell, in patches


class Config(Augmented):
    """[data] kind = "patches"."""

    size: int = Field(32, ge=4, le=_SHAPE[0] // 4, description="pixels of a patch's side")
    stride: Channels = Field(8, description="pixels between neighbouring patches")
    pictures: Strings = Field(PICTURES, description="of china, flower; each is a class")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of each photograph that is held out, in whole regions")

    @model_validator(mode="after")
    def _known(self) -> "Config":
        allowed = f"one or more of {', '.join(PICTURES)}, each once"
        for name in self.pictures:
            if name not in PICTURES:
                raise ValueError(f"pictures: found '{name}', allowed: {allowed}{did_you_mean(name, PICTURES)}")
        if not self.pictures or len(set(self.pictures)) < len(self.pictures):
            raise ValueError(f"pictures: found {list(self.pictures)}, allowed: {allowed}")
        return self


class Data(Finite):
    """Patches (3, size, size) with their photograph as the label.

    Cells of 2 size x 2 size pixels are drawn from each photograph, always the same ones. Patches inside of them are
    held out. Patches that touch none of them are trained on. So no held-out pixel is ever trained on.

    Attributes:
        names: the photographs, in the order of their labels.
        counts: the number of patches of each.
        summary: what was cut out, in one line.

    Raises:
        UsageError: held-out cells leave nothing to train on.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        train: list[np.ndarray] = []
        test: list[np.ndarray] = []
        for name in config.pictures:
            free, held = _places(config, PICTURES.index(name))
            if not len(free):
                raise UsageError(
                    f"data.held_out: found {config.held_out:g} with data.size = {config.size}, which leaves no patches "
                    "to train on; allowed: less"
                )
            photograph = load_sample_image(f"{name}.jpg")
            train.append(_cut(photograph, free, config.size))
            test.append(_cut(photograph, held, config.size))
        super().__init__(*_joined(train), *_shuffled(*_joined(test)), device)
        self.names, self.counts = config.pictures, tuple(map(len, train))
        self.summary = f"{len(self.train):,} patches, and {len(self.test):,} held out, of {' and '.join(self.names)}"


def _places(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the upper left corners of the patches for training and of those held out, (n, 2) and (m, 2)."""
    size, side = config.size, _CELL * config.size
    held = np.zeros(_SHAPE, bool)
    inside: list[tuple[int, int]] = []
    for top, left in _cells(side, config.held_out, seed):
        held[top : top + side, left : left + side] = True
        steps = range(0, side - size + 1, config.stride)
        inside += [(top + y, left + x) for y in steps for x in steps]
    free = [
        (y, x)
        for y in range(0, _SHAPE[0] - size + 1, config.stride)
        for x in range(0, _SHAPE[1] - size + 1, config.stride)
        if not held[y : y + size, x : x + size].any()
    ]
    return np.array(free).reshape(-1, 2), np.array(inside)


def _cells(side: int, share: float, seed: int) -> Iterator[tuple[int, int]]:
    """Yield the corners of the held-out cells: `share` of all, at least one, drawn from `seed`."""
    rows, columns = _SHAPE[0] // side, _SHAPE[1] // side
    count = max(1, round(share * rows * columns))
    for cell in np.random.default_rng(seed).permutation(rows * columns)[:count].tolist():
        yield side * (cell // columns), side * (cell % columns)


def _cut(photograph: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """Cut patches (n, 3, size, size) out of a photograph (H, W, 3)."""
    return np.stack([photograph[y : y + size, x : x + size] for y, x in places]).transpose(0, 3, 1, 2)


def _joined(parts: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts))), torch.from_numpy(labels)


def _shuffled(pictures: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix the classes: the first n stand for all."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return pictures[order], labels[order]
