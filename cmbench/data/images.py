"""Pictures: MNIST, Fashion-MNIST, CIFAR-10 through torchvision, or a folder with one sub-folder per class."""

import os
from collections import Counter
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import psutil
import torch
from pydantic import Field
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from cmbench.config import Channels
from cmbench.config import Config as BaseConfig
from cmbench.errors import UsageError
from cmbench.finite import Finite
from cmbench.pictures import decode, listing
from cmbench.pictures.listing import Listing
from cmbench.text import shown

_TORCHVISION = {
    "mnist": (datasets.MNIST, "the four *-ubyte.gz of MNIST into MNIST/raw"),
    "fashion_mnist": (
        datasets.FashionMNIST,
        "the four *-ubyte.gz of Fashion-MNIST into FashionMNIST/raw",
    ),
    "cifar10": (datasets.CIFAR10, "cifar-10-python.tar.gz"),
}
_SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
_NAMED = 4  # unreadable files that a message names
_ENOUGH = 20  # unreadable files after which the search stops
_LONGEST = 12  # most classes that a summary lists with their counts


class Config(BaseConfig):
    """[data] kind = "images"."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "folder"] = Field("mnist", description="which pictures")
    root: str = Field(listing.ROOT, description="where the files are or go; for folder: the folder itself")
    download: bool = Field(True, description="fetch what is missing (never for folder)")
    size: Channels = Field(32, description="folder only: pixels of a side, by resizing and cropping the centre")
    held_out: float = Field(0.1, gt=0, lt=1, description="folder only: share of pictures that are held out")
    alpha: decode.Alpha = Field("white", description="folder only: what shows through: white, black, or refused")
    reader: Literal["cmbench", "torchvision"] = Field(
        "cmbench",
        description="folder only: torchvision: classes as text, pictures as they lie, no alpha, no depth (older runs)",
    )
    horizontal_flip: bool = Field(False, description="mirror each picture with probability one half")

    def located(self, base: Path) -> "Config":
        """Return the settings for a run, with a root that does not depend on the working directory.

        The root of fetched files keeps its ~, as each user has a home.
        """
        given = Path(self.root)
        if self.name != "folder" and self.root.startswith("~"):
            return self
        return self.model_copy(update={"root": os.path.normpath(base / given.expanduser())})


class Data(Finite):
    """Pictures (1 or 3, H, W) with class labels; torchvision's test split is held out.

    Attributes:
        names: the names of a folder's classes, in the order of their labels; empty for other sets.
        counts: the number of pictures of each of these classes.
        summary: what was found, in one line.
        content: a digest of the files.

    Raises:
        UsageError: the files are missing and cannot be fetched, cannot be read, or do not fit into memory.
    """

    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    @staticmethod
    def shape_and_classes(config: Config) -> tuple[tuple[int, ...], int]:
        """Return the shape of a sample and the number of labels, which is 1 for a missing folder."""
        if config.name != "folder":
            return _SHAPES[config.name], 10
        try:
            folders = listing.listing(Path(config.root).expanduser(), config.reader).names
        except (OSError, RuntimeError):
            folders = []
        return (3, config.size, config.size), max(1, len(folders))

    def __init__(self, config: Config, device: torch.device) -> None:
        root = Path(config.root).expanduser()
        if config.name != "folder":
            super().__init__(*_torchvision(config, root), device, config.horizontal_flip)
            files = listing.fetched(config.name, root)
            self.content = listing.digest(root, files) if files else ""
            self.summary = f"{len(self.train):,} pictures, and {len(self.test):,} held out"
            return
        found = _listed(config, root)
        splits, marks = _folder(config, found)
        super().__init__(*splits, device, config.horizontal_flip)
        self.names = tuple(found.texts)
        self.counts = tuple(found.counts)
        self.classes = len(self.names)
        self.content, self.summary = listing.digest(root, found.files), _summary(config, found, marks)


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


def _listed(config: Config, root: Path) -> Listing:
    """List a folder; refuse it unless it has one sub-folder of pictures per class."""
    try:
        found = listing.listing(root, config.reader)
    except OSError as error:
        raise UsageError(
            f"data.root: no pictures at {root} ({error.strerror or error}); allowed: one sub-folder a class"
        ) from None
    if not found.names or not found.files:
        why = "it has no sub-folder" if not found.names else "its sub-folders hold none"
        skipped = f"; left out: {_skipped(found)}" if found.skipped else ""
        raise UsageError(f"data.root: no pictures at {root} ({why}{skipped}); allowed: one sub-folder a class")
    if empty := [name for name, count in zip(found.names, found.counts, strict=True) if not count]:
        raise UsageError(f"data.root: no pictures in {root / empty[0]}; allowed: some in every sub-folder of {root}")
    return found


def _folder(config: Config, found: Listing) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Counter[str]]:
    """Decode each picture of a folder straight into its final place, so that it is in memory only once."""
    M, shape = len(found.files), (3, config.size, config.size)
    wanted, free = M * 3 * config.size**2, psutil.virtual_memory().available
    if wanted > free:
        raise UsageError(
            f"data.root: {M} pictures need {wanted:,} bytes of memory, {free:,} are free; a lower data.size needs less"
        )
    test_size = max(1, round(config.held_out * M))
    if test_size >= M:
        raise UsageError(f"data.held_out: {test_size} of {M} pictures at {found.root} leave none to train on")
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    pictures, place = torch.empty(M, *shape, dtype=torch.uint8), order.argsort()
    marks = _decode_into(pictures, place, config, found)
    labels = torch.tensor(found.labels)[order]
    return (pictures[test_size:], labels[test_size:], pictures[:test_size], labels[:test_size]), marks


def _decode_into(pictures: Tensor, place: Tensor, config: Config, found: Listing) -> Counter[str]:
    """Fill in pictures (M, 3, H, W), the i-th file at place[i], and count their peculiarities.

    Raises:
        UsageError: some pictures cannot be read; the message names them.
    """
    crop = v2.Compose([v2.Resize(config.size), v2.CenterCrop(config.size), v2.PILToTensor()])
    marks: Counter[str] = Counter()
    refused: list[str] = []
    for path, i in zip(found.files, place.tolist(), strict=True):
        try:
            if config.reader == "torchvision":
                image, own = decode.as_torchvision(path)
            else:
                image, own = decode.read(path, config.alpha)
            decode.refuse_absurd_shape(image, config.size)
        except decode.RefusedError as error:
            refused.append(f"{path.relative_to(found.root)}: {error}")
            if len(refused) == _ENOUGH:
                break
            continue
        pictures[i] = crop(image)
        marks.update(own)
    if refused:
        more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
        count = f"at least {_ENOUGH}" if len(refused) == _ENOUGH else str(len(refused))
        named = "; ".join(shown_name(line) for line in refused[:_NAMED])
        raise UsageError(
            f"data.root: {found.root}: {count} of {len(found.files):,} pictures cannot be read: {named}{more}"
        )
    return marks


def shown_name(line: str) -> str:
    """Return a line with a file name in printable form, for messages."""
    return line if line.isprintable() else shown(line, 200)


def _summary(config: Config, found: Listing, marks: Counter[str]) -> str:
    """Return e.g. "1,200 pictures of 2 classes (cat: 400, dog: 800), 31 rotated, 4 grey, 2 skipped: 2 .txt"."""
    counts = found.counts
    if len(counts) <= _LONGEST:
        each = ", ".join(f"{shown_name(name)}: {n:,}" for name, n in zip(found.names, counts, strict=True))
    else:
        each = f"{min(counts):,} to {max(counts):,} pictures each"
    parts = [f"{len(found.files):,} pictures of {len(counts)} class{'es' * (len(counts) > 1)} ({each})"]
    notes = {"transparent": f" (over {config.alpha})", "animated": " (the first frame)"}
    parts += [f"{n:,} {mark}{notes.get(mark, '')}" for mark, n in sorted(marks.items(), key=lambda m: (-m[1], m[0]))]
    if found.skipped:
        parts.append(f"{found.skipped.total():,} skipped: {_skipped(found)}")
    if config.reader == "torchvision":
        parts.append("read as torchvision does: as they lie, without alpha and depth, classes as text")
    return ", ".join(parts)


def _skipped(found: Listing) -> str:
    most = sorted(found.skipped.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{n:,} {shown_name(kind)}" for kind, n in most[:_LONGEST])
