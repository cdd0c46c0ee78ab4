"""What a recipe's [data] names: arrays of samples, of labels and of held-out samples, in one file or several."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cmbench.arrays import digest, formats, labels
from cmbench.arrays.stored import Stored
from cmbench.errors import UsageError, did_you_mean
from cmbench.text import shown

_NAMED = 12  # arrays that a message lists
Arrays = Mapping[str, Stored]


class Names(Protocol):
    """The keys of [data] kind = "arrays" that name arrays; an empty text names none."""

    @property
    def root(self) -> str:
        """The file of the samples."""

    @property
    def samples(self) -> str:
        """The samples in it."""

    @property
    def labels(self) -> str:
        """The labels: an array of the file, or a file beside it."""

    @property
    def held_out_samples(self) -> str:
        """The held-out samples: an array of the file, or a file beside it."""

    @property
    def held_out_labels(self) -> str:
        """Their labels."""


@dataclass(frozen=True)
class AsNamed:
    """The same from a recipe's table."""

    root: str = ""
    samples: str = ""
    labels: str = ""
    held_out_samples: str = ""
    held_out_labels: str = ""

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "AsNamed":
        """Return the names in a table; whatever else it holds is left out."""
        return cls(**{key: str(table[key]) for key in cls.__dataclass_fields__ if key in table})


@dataclass(frozen=True, eq=False)
class Part:
    """Samples (M, ...) and their labels, with the keys and files that named them."""

    samples: Stored
    labels: Stored | None
    key: str
    path: Path


@dataclass(frozen=True, eq=False)
class Chosen:
    """The arrays of a data set.

    Attributes:
        train: what is trained on; with `held_out` = None a share of it is held out.
        held_out: what is held out, if it lies apart.
        numbers: the labels of each part, int64; without labels, zeros.
        names: of the classes, where labels are names.
    """

    train: Part
    held_out: Part | None
    numbers: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[Part]:
        """The one or two parts."""
        return [self.train] if self.held_out is None else [self.train, self.held_out]

    @property
    def content(self) -> str:
        """A digest that tells the data from others."""
        return digest.content(
            [part.samples for part in self.parts], [part.labels for part in self.parts if part.labels is not None]
        )


def chosen(names: Names) -> Chosen:
    """Open and check the arrays that are named. Their values are not looked at, but for the labels.

    Raises:
        UsageError: a file or array is missing, or of a type, shape or number that does not fit.
    """
    path = Path(names.root).expanduser()
    main = formats.opened(path, "data.root")
    where = _Place(path, main)
    own = where.named(names.labels, "data.labels", names.samples) if names.labels else None
    samples = _samples(where, names.samples, names.labels, "data.root", "data.samples")
    train = Part(samples, own, "data.root", path)
    parts = [train, *([_held_out(where, names, train)] if names.held_out_samples else [])]
    if names.held_out_labels and not names.held_out_samples:
        raise UsageError("data.held_out_labels: found one, but no data.held_out_samples")
    for part in parts:
        _check(part)
    if own is None:
        numbers, classes = [np.zeros(len(part.samples), np.int64) for part in parts], list[str]()
    else:
        pairs = [(part.labels, part.samples) for part in parts if part.labels is not None]
        numbers, classes = labels.numbered(pairs, "data.labels")
    return Chosen(train, parts[1] if len(parts) > 1 else None, numbers, classes)


@dataclass(frozen=True, eq=False)
class _Place:
    """The main file with its arrays, beside which the others lie."""

    path: Path
    arrays: Arrays

    def named(self, name: str, key: str, within: str) -> Stored:
        """Return an array of the main file, or that of a file beside it; of several there, the one called `within`."""
        if name in self.arrays:
            return self.arrays[name]
        path, arrays = self.beside(name, key)
        return one(arrays, within if within in arrays else "", key, path)

    def beside(self, name: str, key: str) -> tuple[Path, Arrays]:
        """Open a file beside the main one."""
        path = self.path.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"{key}: found {shown(name)}, allowed: a file beside {self.path.name}, by its name there")
        if Path(name).suffix.lower() not in formats.KINDS:
            own = f"an array of {self.path.name} ({_listed(self.arrays)}) or " if "" not in self.arrays else ""
            raise UsageError(
                f"{key}: found {shown(name)}, allowed: {own}a file beside it{did_you_mean(name, self.arrays)}"
            )
        return path, formats.opened(path, key)


def one(arrays: Arrays, name: str, key: str, path: Path) -> Stored:
    """Return an array by its name; without a name, the only one.

    Raises:
        UsageError: there is none of that name, or no name was given and there are several.
    """
    if name in arrays and (name or len(arrays) == 1):
        return arrays[name]
    if not name and len(arrays) == 1:
        return next(iter(arrays.values()))
    if not arrays:
        raise UsageError(f"{key}: {path} holds no array")
    if not name:
        raise UsageError(f"{key}: missing, and {path} holds {len(arrays)} arrays; allowed: {_listed(arrays)}")
    allowed = _listed(arrays) if "" not in arrays else "none, since an .npy holds one array"
    raise UsageError(f"{key}: found {shown(name)}, allowed in {path}: {allowed}{did_you_mean(name, arrays)}")


def _samples(where: _Place, name: str, label: str, root: str, key: str) -> Stored:
    """Return the samples of the main file; of a .csv, all columns but that of the labels."""
    if where.path.suffix.lower() == ".csv":
        return _columns(where.arrays, name, label, where.path, key)
    others = (
        {own: each for own, each in where.arrays.items() if not label or own != label} if not name else where.arrays
    )
    return one(others, name, key if name or len(others) > 1 else root, where.path)


def _columns(arrays: Arrays, name: str, label: str, path: Path, key: str) -> Stored:
    """Return columns of a .csv side by side, (M, D)."""
    wanted = [part.strip() for part in name.split(",")] if name else [own for own in arrays if own != label]
    for own in wanted:
        if (found := one(arrays, own, key, path)).values.dtype.kind != "f":
            hint = "" if name else "; name it as data.labels, or the columns of the samples as data.samples"
            raise UsageError(f"{key}: {found.where} is a column of text{hint}")
    if not wanted:
        raise UsageError(f"{key}: {path} has no column beside the labels")
    return Stored(np.stack([arrays[own].values for own in wanted], axis=1), path.name)


def _held_out(where: _Place, names: Names, train: Part) -> Part:
    """Return the held-out part; its labels have the name of the others, unless they are named."""
    key, name = "data.held_out_samples", names.held_out_samples
    label, label_key = names.held_out_labels, "data.held_out_labels"
    if name in where.arrays and where.path.suffix.lower() != ".csv":
        if train.labels is not None and not label:
            raise UsageError(f"{label_key}: missing, since data.labels names labels")
        return Part(where.arrays[name], where.named(label, label_key, name) if label else None, key, where.path)
    path, arrays = where.beside(name, key)
    there = _Place(path, arrays)
    samples = _samples(there, names.samples if names.samples in arrays else "", label or names.labels, key, key)
    if train.labels is None:
        return Part(samples, None, key, path)
    if not label and names.labels not in arrays:
        raise UsageError(
            f"{label_key}: missing, since data.labels names labels and {path.name} has no {names.labels!r}"
        )
    return Part(samples, there.named(label or names.labels, label_key, names.samples), key, path)


def _check(part: Part) -> None:
    """Refuse samples of another type or rank, and empty ones."""
    samples = part.samples
    if not (samples.is_bytes or samples.is_float):
        allowed = "allowed: uint8 (pictures of 0 to 255) or floats of 16 to 64 bits"
        raise UsageError(f"{part.key}: {samples.where} is of type {samples.type_name}, {allowed}")
    if samples.values.ndim not in (2, 3, 4):
        allowed = "allowed: points (M, D), pictures (M, H, W), (M, C, H, W) or (M, H, W, C)"
        raise UsageError(f"{part.key}: {samples.where} has shape {list(samples.shape)}, {allowed}")
    if 0 in samples.shape:
        raise UsageError(f"{part.key}: {samples.where} is empty: it has shape {list(samples.shape)}")


def _listed(arrays: Arrays) -> str:
    names = [shown(name) for name in arrays][:_NAMED]
    return ", ".join(names) + (f" and {len(arrays) - _NAMED} more" if len(arrays) > _NAMED else "")


def look(table: Mapping[str, Any]) -> tuple[str, int, list[str] | None] | None:
    """Return digest, number of samples and names of the classes of a recipe's [data]; None if they cannot be read."""
    try:
        found = chosen(AsNamed.of(table))
    except UsageError:
        return None
    return found.content, sum(len(part.samples) for part in found.parts), found.names or None
