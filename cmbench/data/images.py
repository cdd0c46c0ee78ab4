"""Pictures: MNIST, Fashion-MNIST, CIFAR-10 through torchvision, or those of a folder."""

import os
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from pydantic import Field
from torch import Tensor
from torchvision import datasets

from cmbench.augmentation import Augmented
from cmbench.config import Size
from cmbench.data import _folder
from cmbench.errors import UsageError
from cmbench.finite import Finite, Gathered
from cmbench.pictures import decode, listing

_TORCHVISION = {
    "mnist": (datasets.MNIST, "the four *-ubyte.gz of MNIST into MNIST/raw"),
    "fashion_mnist": (
        datasets.FashionMNIST,
        "the four *-ubyte.gz of Fashion-MNIST into FashionMNIST/raw",
    ),
    "cifar10": (datasets.CIFAR10, "cifar-10-python.tar.gz"),
}
_SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


class Config(Augmented):
    """[data] kind = "images"."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "folder"] = Field("mnist", description="which pictures")
    root: str = Field(listing.ROOT, description="where the files are or go; for folder: the folder itself")
    download: bool = Field(True, description="fetch what is missing (never for folder)")
    size: Size = Field(32, description="folder only: pixels of a side, or [H, W]; by resizing and cropping the centre")
    channels: Literal[1, 3] = Field(3, description="folder only: 3: colours; 1: grey")
    layout: listing.Layout = Field(
        "auto", description="folder only: classes (sub-folders), splits (train, val), flat (no classes); auto: as found"
    )
    labels: str = Field("", description="folder only: a CSV below root that has the classes: file name, label")
    held_out: float = Field(0.1, gt=0, lt=1, description="folder only: share of pictures held out, without splits")
    alpha: decode.Alpha = Field("white", description="folder only: what shows through: white, black, or refused")
    reader: Literal["cmbench", "torchvision"] = Field(
        "cmbench",
        description="folder only: torchvision: classes as text, pictures as they lie, no alpha, no depth (older runs)",
    )
    horizontal_flip: bool = Field(False, description="mirror each picture with probability one half")

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of a folder's pictures."""
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def located(self, base: Path) -> "Config":
        """Return the settings for a run, with a root that does not depend on the working directory.

        The root of fetched files keeps its ~, as each user has a home.
        """
        given = Path(self.root)
        if self.name != "folder" and self.root.startswith("~"):
            return self
        return self.model_copy(update={"root": os.path.normpath(base / given.expanduser())})


class Data(Finite):
    """Pictures (1 or 3, H, W) with class labels; torchvision's test split, or a folder's own, is held out.

    Attributes:
        names: the names of a folder's classes, in the order of their labels; empty for other sets.
        counts: the number of pictures of each of these classes.
        summary: what was found, in one line.
        content: a digest of the files.

    Raises:
        UsageError: the files are missing and cannot be fetched, or cannot be read.
    """

    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    @staticmethod
    def shape_and_classes(config: Config) -> tuple[tuple[int, ...], int]:
        """Return the shape of a sample and the number of labels, which is 1 for a missing folder."""
        if config.name != "folder":
            return _SHAPES[config.name], 10
        try:
            found = listing.of_table(Path(config.root).expanduser(), config.model_dump())
            classes = max(found.labels, default=0) + 1
        except (OSError, RuntimeError, listing.UnfitError):
            classes = 1
        return (config.channels, *config.sides), classes

    def __init__(self, config: Config, device: torch.device) -> None:
        root = Path(config.root).expanduser()
        if config.name != "folder":
            super().__init__(*_torchvision(config, root), device, config.horizontal_flip)
            files = listing.fetched(config.name, root)
            self.content = listing.digest(root, files) if files else ""
            self.summary = f"{len(self.train):,} pictures, and {len(self.test):,} held out"
            return
        found = _folder.listed(config, root)
        train, test = _folder.parts(config, found)
        self.content, made = _folder.decoded(config, found)
        labels = torch.tensor(found.labels)
        samples, held_out = (Gathered(made.pictures, index) for index in (train, test))
        super().__init__(
            samples, labels[train], held_out.to(held_out.device), labels[test], device, config.horizontal_flip
        )
        self.names, self.counts = tuple(found.texts), tuple(found.counts)
        self.classes, self.summary = max(found.labels) + 1, _folder.summary(config, found, made.marks)


def _torchvision(config: Config, root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dataset, files = _TORCHVISION[config.name]
    try:
        splits = [dataset(str(root), train=train, download=config.download) for train in (True, False)]
    except (RuntimeError, URLError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"data.root: no {config.name} at {root} ({reason}); put {files} there, with data.download = true to unpack"
        ) from None
    train, test = ((_channels_first(split.data), torch.as_tensor(split.targets)) for split in splits)
    return *train, *test


def _channels_first(pictures: object) -> Tensor:
    """(M, H, W) or (M, H, W, 3), tensor or array -> (M, C, H, W) uint8."""
    x = torch.as_tensor(pictures)
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
