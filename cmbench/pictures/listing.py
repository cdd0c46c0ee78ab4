"""The files of a data set: their list, their labels, and a digest that identifies them. Imports no torch.

Each sub-folder of the root is a class, in natural order (2 before 10). All pictures in it, at any depth, belong to the
class. Hidden folders and files are skipped, and so are files of unknown kinds, which are counted.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbench import regular

Reader = str  # "cmbench", or "torchvision", which has the rules of earlier versions

OF_TORCHVISION = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_MORE = (
    ".apng",
    ".avif",
    ".dib",
    ".gif",
    ".ico",
    ".jfif",
    ".jp2",
    ".jpe",
    ".pbm",
    ".pcx",
    ".pnm",
    ".qoi",
    ".sgi",
    ".tga",
)
KINDS = (*OF_TORCHVISION, *_MORE)
ROOT = "~/.cache/cmbench"  # default root of fetched files
_HIDDEN = ("__MACOSX",)  # besides names that begin with a dot
_HASHED = 256 * 2**20  # bytes of content that a digest reads
_FETCHED = {  # the files that torchvision reads, below the root
    "mnist": [
        f"MNIST/raw/{part}-ubyte"
        for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ],
    "cifar10": [f"cifar-10-batches-py/{part}" for part in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")],
}
_FETCHED["fashion_mnist"] = [file.replace("MNIST", "FashionMNIST", 1) for file in _FETCHED["mnist"]]


@dataclass(frozen=True)
class Listing:
    """The classes and pictures below a root.

    Attributes:
        root: the folder.
        names: the names of the classes, in the order of their labels.
        files: the paths of the pictures, class by class.
        labels: the label of each file.
        skipped: the number of skipped files by kind: ".txt", "hidden", "beside the classes".
    """

    root: Path
    names: list[str]
    files: list[Path]
    labels: list[int]
    skipped: Counter[str]

    @property
    def texts(self) -> list[str]:
        """The names as valid text: undecodable bytes become �."""
        return [os.fsencode(name).decode(errors="replace") for name in self.names]

    @property
    def counts(self) -> list[int]:
        """The number of pictures of each class."""
        found = Counter(self.labels)
        return [found[label] for label in range(len(self.names))]


def listing(root: Path, reader: Reader = "cmbench") -> Listing:
    """List a folder with one sub-folder per class.

    Raises:
        OSError: the root, or a folder in it, cannot be read.
    """
    as_before = reader == "torchvision"
    entries = sorted(os.scandir(root), key=lambda entry: entry.name if as_before else natural(entry.name))
    names = [e.name for e in entries if e.is_dir() and (as_before or not is_hidden(e.name))]
    beside = [e.name for e in entries if not e.is_dir()]
    kinds = OF_TORCHVISION if as_before else KINDS
    skipped = Counter("beside the classes" if _kind(name) in kinds else _kind(name) for name in beside)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        for path in _walk(root / name, hidden=as_before):
            if is_hidden(path.name) and not as_before:
                skipped["hidden"] += 1
            elif _kind(path.name) in kinds:
                files.append(path)
                labels.append(label)
            else:
                skipped[_kind(path.name)] += 1
    return Listing(root, names, files, labels, skipped)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts numbers in names by their value: 2 before 10, a2 before a10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(p[:4000]), "") if p[0].isdigit() else (1, 0, p.casefold()) for p in parts], name


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, such as a cache, a thumbnail or version control files."""
    return name.startswith(".") or name in _HIDDEN


def _kind(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without a kind"  # noqa: PTH122 - of a name, not of a path


def _walk(folder: Path, hidden: bool) -> Iterator[Path]:
    """Yield the files of a folder and its sub-folders, sorted by name; each folder once, even through links."""
    seen: set[tuple[int, int]] = set()
    found: list[tuple[str, list[str]]] = []

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        here = os.stat(place)  # noqa: PTH116 - of a text
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if hidden or not is_hidden(name))
        found.append((place, sorted(names)))
    for place, names in sorted(found):
        yield from (Path(place) / name for name in names)


def digest(root: Path, files: Sequence[Path]) -> str:
    """Return a digest of files: of their names below the root, their sizes and their content.

    Of sets up to 256 MiB it reads all content. Of larger sets it reads about 256 MiB, from evenly spaced files, and the
    size of every file. The place of the root and the times of files do not matter.

    Raises:
        OSError: a file is not there or cannot be read.
    """
    found = hashlib.blake2b(digest_size=16)
    sizes = [os.stat(path).st_size for path in files]  # noqa: PTH116 - three times faster, for a million files
    for path, size in zip(files, sizes, strict=True):
        name = os.fsencode(path.relative_to(root))
        found.update(b"%d %d " % (len(name), size) + name)
    for i in looked_into(sizes):
        with regular.opened(files[i], links=True) as file:
            left = _HASHED
            while left and (block := file.read(min(left, 1 << 20))):
                found.update(block)
                left -= len(block)
    return f"files1:{found.hexdigest()}"


def looked_into(sizes: Sequence[int]) -> Iterable[int]:
    """Return the indices of the files whose content is read, evenly spaced."""
    total = sum(sizes)
    if total <= _HASHED:
        return range(len(sizes))
    wanted = max(1, len(sizes) * _HASHED // total)
    return sorted({i * len(sizes) // wanted for i in range(wanted)})


@dataclass(frozen=True)
class Found:
    """The digest of files and, if each is a picture, their number and the classes."""

    content: str
    pictures: int | None = None
    names: list[str] | None = None


def look(table: Mapping[str, Any]) -> Found | None:
    """Look at the files that a recipe's [data] names; None if they are missing, or if it names none."""
    if table.get("kind") != "images":
        return None
    root = Path(str(table.get("root", ""))).expanduser()
    try:
        if table.get("name") == "folder":
            there = listing(root, str(table.get("reader", "cmbench")))
            return Found(digest(root, there.files), len(there.files), there.texts) if there.files else None
        files = fetched(str(table.get("name")), root)
        return Found(digest(root, files)) if files else None
    except (OSError, RuntimeError):
        return None


def fetched(name: str, root: Path) -> list[Path]:
    """Return the files of one of torchvision's sets, or an empty list if one is missing."""
    files = [root / file for file in _FETCHED.get(name, [])]
    return files if all(file.is_file() for file in files) else []
