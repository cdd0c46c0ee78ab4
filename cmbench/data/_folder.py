"""The pictures of a folder, for `images.py`: which there are, which are held out, and what is told of them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cmbench.errors import UsageError
from cmbench.pictures import listing
from cmbench.pictures.cache import Prepared
from cmbench.pictures.listing import Listing
from cmbench.pictures.prepare import prepared, printable
from cmbench.pictures.shape import Shaping, Source

if TYPE_CHECKING:
    from cmbench.data.images import Config

_LONGEST = 12  # most classes that a summary lists with their counts
_ALLOWED = "allowed: one sub-folder a class, train/ and val/, or pictures alone"


def listed(config: "Config", root: Path) -> Listing:
    """List a folder.

    Raises:
        UsageError: it cannot be read, has no pictures, or none of a class; splits or labels do not fit together.
    """
    try:
        found = listing.of_table(root, config.model_dump())
    except OSError as error:
        raise UsageError(f"data.root: no pictures at {root} ({error.strerror or error}); {_ALLOWED}") from None
    except listing.UnfitError as error:
        raise UsageError(f"{error} (at {root})") from None
    if not found.files:
        why = "its sub-folders hold none" if found.names else "it holds none"
        skipped = f"; left out: {_skipped(found)}" if found.skipped else ""
        raise UsageError(f"data.root: no pictures at {root} ({why}{skipped}); {_ALLOWED}")
    if empty := [name for name, count in zip(found.names, found.counts, strict=True) if not count]:
        raise UsageError(f"data.root: no pictures in {root / empty[0]}; allowed: some in every sub-folder of {root}")
    return found


def decoded(config: "Config", found: Listing) -> tuple[str, Prepared]:
    """Return the digest of a folder's files, and the pictures in the order of the files.

    Raises:
        UsageError: some cannot be read, or there is no room for them.
    """
    height, width = config.sides
    shaping = Shaping(height, width, config.channels, config.alpha, config.reader)

    def sources() -> Iterator[Source]:
        yield from ((str(path.relative_to(found.root)), path) for path in found.files)

    try:
        content = listing.digest(found.root, found.known_by)
        both = f"{content} {listing.times(found.files)}".strip()
    except OSError as error:
        what = Path(error.filename or found.root)
        raise UsageError(f"data.root: {what} cannot be read: {error.strerror or error}") from None
    return content, prepared(sources, len(found.files), both, shaping, f"data.root: {found.root}")


def parts(config: "Config", found: Listing) -> tuple[Tensor, Tensor]:
    """Return the indices of the files to train on, and of those held out, each in an order that mixes the classes.

    Raises:
        UsageError: one of the parts would be empty.
    """
    M = len(found.files)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0))
    if found.held is None:
        test_size = max(1, round(config.held_out * M))
        if test_size >= M:
            raise UsageError(f"data.held_out: {test_size} of {M} pictures at {found.root} leave none to train on")
        return order[test_size:], order[:test_size]
    name, held = found.held
    is_held = torch.tensor(held)[order]
    for is_empty, split in ((is_held.all(), "train"), (not is_held.any(), name)):
        if is_empty:
            raise UsageError(f"data.root: no pictures in {found.root / split}; allowed: some in train/ and in {name}/")
    return order[~is_held], order[is_held]


def summary(config: "Config", found: Listing, marks: Counter[str]) -> str:
    """Return e.g. "1,200 pictures of 2 classes (cat: 400, dog: 800), 31 rotated, 4 grey, 2 skipped: 2 .txt"."""
    told = [f"{len(found.files):,} pictures{_of_classes(found)}"]
    if found.held is not None:
        told.append(f"{sum(found.held[1]):,} of them held out, in {found.held[0]}/")
    notes = {"transparent": f" (over {config.alpha})", "animated": " (the first frame)"}
    told += [f"{n:,} {mark}{notes.get(mark, '')}" for mark, n in sorted(marks.items(), key=lambda m: (-m[1], m[0]))]
    if found.skipped:
        told.append(f"{found.skipped.total():,} skipped: {_skipped(found)}")
    if config.reader == "torchvision":
        told.append("read as torchvision does: as they lie, without alpha and depth, classes as text")
    return ", ".join(told)


def _of_classes(found: Listing) -> str:
    if not found.names:
        classes = max(found.labels) + 1
        return f" of {classes} classes by {printable(found.csv.name)}" if found.csv else " without classes"
    counts = found.counts
    each = f"{min(counts):,} to {max(counts):,} pictures each"
    if len(counts) <= _LONGEST:
        each = ", ".join(f"{printable(name)}: {n:,}" for name, n in zip(found.names, counts, strict=True))
    return f" of {len(counts)} class{'es' * (len(counts) > 1)} ({each})"


def _skipped(found: Listing) -> str:
    most = sorted(found.skipped.items(), key=lambda kind: (-kind[1], kind[0]))
    return ", ".join(f"{n:,} {printable(kind)}" for kind, n in most[:_LONGEST])
