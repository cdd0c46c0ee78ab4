"""Pictures as EDM packs them: a folder or a zip with dataset.json (Karras et al. 2022, dataset_tool.py). No torch.

    00000/img00000000.png    PNG or another kind of picture, or .npy (latents, as EDM2 keeps them)
    dataset.json             {"labels": [["00000/img00000000.png", 6], ...]}, or null, or no such key, or no such file

Files are taken in the order of their names, as EDM does. Labels are whole numbers; vectors, which EDM also knows, are
refused.
"""

import hashlib
import json
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cmbench import regular
from cmbench.errors import UsageError
from cmbench.pictures import listing
from cmbench.pictures.shape import ARRAY, LARGEST, Source
from cmbench.text import shown

_TABLE = "dataset.json"
# What zipfile raises at damage and at other ways to compress; NotImplementedError is a RuntimeError.
_DAMAGED = (ValueError, EOFError, struct.error, OverflowError, zlib.error, lzma.LZMAError, RuntimeError)
_LARGEST_TABLE = 1 << 30  # bytes; ImageNet's has about 60 MB


class Place(Protocol):
    """Where the files of a data set are read from, by name."""

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return size and checksum of every file by its name; 0 for an unknown checksum."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of at most `most` bytes. Raises OSError or BadZipFile."""

    def picture(self, name: str) -> Path | bytes:
        """Return a picture as a file, or its content. Raises OSError or BadZipFile."""

    def times(self, names: Sequence[str]) -> str:
        """Return what tells files that were written over from those before, where `sizes` and content may not."""


@dataclass(frozen=True, eq=False)
class Packed:
    """The pictures of a data set, in order.

    Attributes:
        root: where they are.
        place: what reads them.
        names: of the files.
        labels: a whole number for each, or None.
        content: a digest of all files.
    """

    root: Path
    place: Place
    names: list[str]
    labels: list[int] | None
    content: str

    def sources(self, names: Sequence[str] | None = None) -> Iterator[Source]:
        """Yield the pictures, or some of them, as they are needed. Raises UsageError if one cannot be read."""
        for name in self.names if names is None else names:
            try:
                yield name, self.place.picture(name)
            except (OSError, zipfile.BadZipFile) as error:
                why = getattr(error, "strerror", None) or error
                raise UsageError(f"data.root: {self.root}: {shown(name)} cannot be read: {why}") from None

    @property
    def known_by(self) -> str:
        """A text that differs where the pictures do. Raises OSError."""
        return f"{self.content} {self.place.times(self.names)}".strip()


def is_packed(root: Path) -> bool:
    """Return whether a folder has EDM's table."""
    return (root / _TABLE).is_file()


@contextmanager
def opened(root: Path, key: str = "data.root") -> Iterator[Packed]:
    """Open a folder or a zip while the block runs.

    Raises:
        UsageError: it is missing, damaged, or holds no pictures; or its table does not fit them.
    """
    try:
        if root.is_dir():
            yield _packed(_Folder(root), root, key)
        else:
            with regular.opened(root, links=True) as file, _archive(file) as archive:
                yield _packed(_Zip(archive), root, key)
    except OSError as error:
        raise UsageError(f"{key}: no pictures at {root} ({error.strerror or error})") from None
    except zipfile.BadZipFile as error:
        raise UsageError(f"{key}: {root} is no zip, or damaged: {error}") from None


def _archive(file: BinaryIO) -> zipfile.ZipFile:
    """Read the list of an archive's files. Raises OSError or BadZipFile, at whatever damage."""
    try:
        return zipfile.ZipFile(file)
    except _DAMAGED as error:
        raise zipfile.BadZipFile(" ".join(str(error).split()) or type(error).__name__) from None


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, folders, names in os.walk(self._root, followlinks=False):
            folders[:] = [name for name in folders if not listing.is_hidden(name)]
            for name in names:
                path = Path(folder) / name
                if not listing.is_hidden(name):
                    found[path.relative_to(self._root).as_posix()] = (path.stat().st_size, 0)
        return found

    def read(self, name: str, most: int) -> bytes:
        return regular.read(self._root / name, most, links=True)

    def picture(self, name: str) -> Path:
        return self._root / name

    def times(self, names: Sequence[str]) -> str:
        return listing.times([self._root / name for name in names])


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def sizes(self) -> dict[str, tuple[int, int]]:
        members = self._archive.infolist()
        return {
            member.filename: (member.file_size, member.CRC)
            for member in members
            if member.filename and not member.is_dir() and not any(map(listing.is_hidden, member.filename.split("/")))
        }

    def read(self, name: str, most: int) -> bytes:
        member = self._archive.getinfo(name)
        if member.file_size > most or member.flag_bits & 1:
            why = "encrypted" if member.flag_bits & 1 else f"of {member.file_size:,} bytes, allowed: at most {most:,}"
            raise OSError(why)
        try:
            return self._archive.read(member)
        except _DAMAGED as error:
            raise OSError(" ".join(str(error).split()) or "truncated") from None

    def picture(self, name: str) -> bytes:
        return self.read(name, LARGEST)

    def times(self, names: Sequence[str]) -> str:
        return ""  # the checksums tell


def _packed(place: Place, root: Path, key: str) -> Packed:
    sizes = place.sizes()
    names = sorted(name for name in sizes if Path(name).suffix.lower() in (*listing.KINDS, ARRAY))
    if not names:
        raise UsageError(f"{key}: no pictures at {root} (it holds none, of {len(sizes)} files)")
    table = place.read(_TABLE, _LARGEST_TABLE) if _TABLE in sizes else b"{}"
    return Packed(root, place, names, _labels(table, names, root, key), _digest(place, names, sizes, table))


def _labels(table: bytes, names: list[str], root: Path, key: str) -> list[int] | None:
    """Return the label of each file; None if the table has none."""
    where = f"{key}: {root}: {_TABLE}"
    try:
        found = json.loads(table)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error}") from None
    pairs = found.get("labels") if isinstance(found, dict) else found
    if pairs is None:
        return None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UsageError(f'{where}: found {shown(pairs)}, allowed: {{"labels": [["00000/img00000000.png", 6], ...]}}')
    of_file = {str(name).replace("\\", "/"): label for name, label in pairs}
    if missing := [name for name in names if name not in of_file]:
        raise UsageError(
            f"{where} has no label for {len(missing):,} of {len(names):,} files, such as {shown(missing[0])}"
        )
    return [_whole(of_file[name], name, where) for name in names]


def _whole(label: Any, name: str, where: str) -> int:
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 2**31:
        return label
    kind = "a vector" if isinstance(label, list) else shown(label)
    raise UsageError(f"{where}: the label of {shown(name)} is {kind}; allowed: whole numbers from 0")


def _digest(place: Place, names: list[str], sizes: dict[str, tuple[int, int]], table: bytes) -> str:
    """Return a digest of names, sizes, a zip's checksums and the table; of a folder also of content, up to 256 MiB."""
    found = hashlib.blake2b(table, digest_size=16)
    for name in names:
        found.update(f"{name} {sizes[name]};".encode(errors="surrogateescape"))
    if isinstance(place, _Folder):
        for i in listing.looked_into([sizes[name][0] for name in names]):
            found.update(place.read(names[i], LARGEST))
    return f"edm1:{found.hexdigest()}"


def look(table: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return digest and number of the pictures that a recipe's [data] names; None if they cannot be read."""
    try:
        with opened(Path(str(table.get("root", ""))).expanduser()) as packed:
            return packed.content, len(packed.names)
    except (UsageError, RuntimeError):
        return None
