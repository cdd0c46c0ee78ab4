"""Pictures through torchvision: MNIST, Fashion-MNIST, CIFAR-10, or a folder with one sub-folder a class."""

from pathlib import Path
from typing import Literal
from urllib.error import URLError

import psutil
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from cmbench.config import Channels
from cmbench.config import Config as BaseConfig
from cmbench.data._finite import Finite
from cmbench.errors import UsageError

_TORCHVISION = {
    "mnist": (datasets.MNIST, "the four *-ubyte.gz of MNIST into MNIST/raw"),
    "fashion_mnist": (
        datasets.FashionMNIST,
        "the four *-ubyte.gz of Fashion-MNIST into FashionMNIST/raw",
    ),
    "cifar10": (datasets.CIFAR10, "cifar-10-python.tar.gz"),
}
_SHAPES = {"mnist": (1, 28, 28), "fashion_mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


class Config(BaseConfig):
    """[data] kind = "images"."""

    name: Literal["mnist", "fashion_mnist", "cifar10", "folder"] = Field("mnist", description="which pictures")
    root: str = Field("~/.cache/cmbench", description="where the files are or go; for folder: the folder itself")
    download: bool = Field(True, description="fetch what is missing (never for folder)")
    size: Channels = Field(32, description="folder only: pixels of a side, by resizing and cropping the centre")
    held_out: float = Field(0.1, gt=0, lt=1, description="folder only: share of pictures that are held out")
    horizontal_flip: bool = Field(False, description="mirror each picture with probability one half")


class Data(Finite):
    """Pictures (1 or 3, H, W) with class labels; torchvision's test split is held out.

    Raises:
        UsageError: the files are missing and cannot be fetched, or do not fit into memory.
    """

    @staticmethod
    def shape_and_classes(config: Config) -> tuple[tuple[int, ...], int]:
        """Return the shape of a sample and the number of labels, 1 for a folder that is missing."""
        if config.name != "folder":
            return _SHAPES[config.name], 10
        root = Path(config.root).expanduser()
        folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        return (3, config.size, config.size), max(1, len(folders))

    def __init__(self, config: Config, device: torch.device) -> None:
        root = Path(config.root).expanduser()
        load = _folder if config.name == "folder" else _torchvision
        super().__init__(*load(config, root), device, config.horizontal_flip)


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


def _folder(config: Config, root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    crop = v2.Compose([v2.Resize(config.size), v2.CenterCrop(config.size), v2.PILToTensor()])
    try:
        folder = datasets.ImageFolder(str(root), transform=crop)
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"data.root: no pictures at {root} ({reason}); allowed: one sub-folder a class") from None
    wanted, free = len(folder) * 3 * config.size**2, psutil.virtual_memory().available
    if wanted > free:
        raise UsageError(f"data.root: {len(folder)} pictures need {wanted:,} bytes of memory, {free:,} are free")
    test_size = max(1, round(config.held_out * len(folder)))
    if test_size >= len(folder):
        raise UsageError(f"data.held_out: {test_size} of {len(folder)} pictures at {root} leave none to train on")
    try:
        pictures = torch.cat([batch for batch, _ in DataLoader(folder, batch_size=256)])
    except OSError as error:
        raise UsageError(f"data.root: {root}: {error}") from None
    labels = torch.tensor(folder.targets)
    order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0))
    test, train = order.split([test_size, len(folder) - test_size])
    return pictures[train], labels[train], pictures[test], labels[test]
