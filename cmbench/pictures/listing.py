"""The files of a data set: their list, their labels, and a digest that identifies them. Imports no torch.

Layouts:

    classes   each sub-folder is a class, in natural order (2 before 10); all pictures in it, at any depth, belong to it
    splits    train/ beside val/, valid/, validation/ or test/, which is held out; each as one of the others
    flat      all pictures, at any depth, without classes

Hidden folders and files are skipped, and so are files of unknown kinds, which are counted.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from cmbench import regular
from cmbench.pictures import labels as of_csv
from cmbench.pictures.labels import UnfitError

Layout = Literal["auto", "classes", "splits", "flat"]
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
_TRAINED, _HELD_OUT = "train", ("val", "valid", "validation", "test")  # splits; the first that is there is held out
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
        names: the names of the classes, in the order of their labels; empty without classes, or if they are numbers.
        files: the paths of the pictures, class by class.
        labels: the label of each file.
        skipped: the number of skipped files by kind: ".txt", "hidden", "beside the classes".
        held: the name of the held-out split, and whether each file belongs to it; None without splits.
        csv: the file of the labels; None if folders say them.
    """

    root: Path
    names: list[str]
    files: list[Path]
    labels: list[int]
    skipped: Counter[str]
    held: tuple[str, list[bool]] | None = None
    csv: Path | None = None

    @property
    def known_by(self) -> list[Path]:
        """The files whose content tells these data from others."""
        return [*self.files, self.csv] if self.csv else self.files

    @property
    def texts(self) -> list[str]:
        """The names as valid text: undecodable bytes become �."""
        return [os.fsencode(name).decode(errors="replace") for name in self.names]

    @property
    def counts(self) -> list[int]:
        """The number of pictures of each class."""
        found = Counter(self.labels)
        return [found[label] for label in range(len(self.names))]


def listing(root: Path, reader: Reader = "cmbench", layout: Layout = "auto", labels: str = "") -> Listing:
    """List a folder of pictures.

    Args:
        root: the folder.
        reader: "torchvision" has classes alone, hidden ones too, sorted as text.
        layout: of the folder; "auto" takes splits and flat folders for what they are.
        labels: a CSV below the root that says the classes instead of the folders.

    Raises:
        OSError: the root, or a folder in it, cannot be read.
        UnfitError: splits or labels do not fit together.
    """
    as_before = reader == "torchvision"
    entries = sorted(os.scandir(root), key=lambda entry: entry.name if as_before else natural(entry.name))
    names = [e.name for e in entries if e.is_dir() and (as_before or not is_hidden(e.name))]
    if layout == "auto":
        layout = "classes" if as_before else _recognised(names, bool(labels))
    if layout == "splits":
        found = _splits(root, names, bool(labels))
    elif layout == "flat":
        files, skipped = _pictures(root)
        found = Listing(root, [], files, [0] * len(files), skipped)
    else:
        beside = [e.name for e in entries if not e.is_dir()]
        found = _classes(root, names, beside, as_before)
    return _labelled(found, labels) if labels else found


def _recognised(names: Sequence[str], has_labels: bool) -> Layout:
    """Return what sub-folders of these names are."""
    if _TRAINED in names and len(names) > 1 and not set(names) - {_TRAINED, *_HELD_OUT}:
        return "splits"
    return "classes" if names and not has_labels else "flat"


def _classes(root: Path, names: list[str], beside: Sequence[str], as_before: bool = False) -> Listing:
    kinds = OF_TORCHVISION if as_before else KINDS
    skipped = Counter("beside the classes" if _kind(name) in kinds else _kind(name) for name in beside)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        own, others = _pictures(root / name, as_before)
        files += own
        labels += [label] * len(own)
        skipped += others
    return Listing(root, names, files, labels, skipped)


def _splits(root: Path, names: Sequence[str], has_labels: bool) -> Listing:
    """List train/ and the held-out split; their classes have the same names."""
    held = next((name for name in _HELD_OUT if name in names), "")
    if _TRAINED not in names or not held:
        raise UnfitError(f"data.layout: found 'splits', but no {_TRAINED}/ beside one of {', '.join(_HELD_OUT)}")
    layout: Layout = "flat" if has_labels else "auto"
    trained, tested = (listing(root / name, "cmbench", layout) for name in (_TRAINED, held))
    if bool(trained.names) != bool(tested.names):
        flat, other = (_TRAINED, held) if tested.names else (held, _TRAINED)
        raise UnfitError(f"data.root: {flat}/ has no classes, and {other}/ has; allowed: both or none")
    if unknown := [name for name in tested.names if name not in trained.names]:
        raise UnfitError(f"data.root: {held}/ has the class {unknown[0]!r}, which {_TRAINED}/ has not")
    number = {name: label for label, name in enumerate(trained.names)}
    labels = [number[tested.names[label]] if number else 0 for label in tested.labels]
    skipped = trained.skipped + tested.skipped
    for name in names:
        if name not in (_TRAINED, held):
            skipped[f"in {name}/"] += len(_pictures(root / name)[0])
    is_held = [False] * len(trained.files) + [True] * len(tested.files)
    return Listing(root, trained.names, trained.files + tested.files, trained.labels + labels, skipped, (held, is_held))


def _labelled(found: Listing, labels: str) -> Listing:
    """Return a listing with the classes that a CSV says."""
    place = Path(labels)
    if place.is_absolute() or ".." in place.parts:
        raise UnfitError(f"data.labels: found {labels!r}, allowed: a file below data.root")
    csv, names = found.root / place, [path.relative_to(found.root).as_posix() for path in found.files]
    try:
        numbers, classes = of_csv.read(csv, names, KINDS)
    except UnfitError as error:
        raise UnfitError(f"data.labels: {error}") from None
    skipped = found.skipped - Counter([_kind(csv.name)])
    return replace(found, names=classes, labels=numbers, skipped=skipped, csv=csv)


def _pictures(folder: Path, as_before: bool = False) -> tuple[list[Path], Counter[str]]:
    """Return the pictures of a folder at any depth, and the number of skipped files by kind."""
    kinds = OF_TORCHVISION if as_before else KINDS
    files: list[Path] = []
    skipped = Counter[str]()
    for path in _walk(folder, hidden=as_before):
        if is_hidden(path.name) and not as_before:
            skipped["hidden"] += 1
        elif _kind(path.name) in kinds:
            files.append(path)
        else:
            skipped[_kind(path.name)] += 1
    return files, skipped


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


def times(files: Sequence[Path]) -> str:
    """Return a digest of the times of files whose content `digest` reads only in part; empty if it reads all.

    With it, a picture that was painted over in a large set is noticed.

    Raises:
        OSError: a file is not there.
    """
    found = [os.stat(path) for path in files]  # noqa: PTH116
    if sum(each.st_size for each in found) <= _HASHED:
        return ""
    return hashlib.blake2b(b"".join(b"%d " % each.st_mtime_ns for each in found), digest_size=16).hexdigest()


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
            there = of_table(root, table)
            return Found(digest(root, there.known_by), len(there.files), there.texts) if there.files else None
        files = fetched(str(table.get("name")), root)
        return Found(digest(root, files)) if files else None
    except (OSError, RuntimeError, UnfitError):
        return None


def of_table(root: Path, table: Mapping[str, Any]) -> Listing:
    """List a folder as the recipe's [data] says. Raises as `listing`."""
    given = table.get("layout", "auto")
    layout: Layout = next((name for name in get_args(Layout) if name == given), "auto")
    return listing(root, str(table.get("reader", "cmbench")), layout, str(table.get("labels", "")))


def fetched(name: str, root: Path) -> list[Path]:
    """Return the files of one of torchvision's sets, or an empty list if one is missing."""
    files = [root / file for file in _FETCHED.get(name, [])]
    return files if all(file.is_file() for file in files) else []
