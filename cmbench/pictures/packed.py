"""Pictures as EDM packs them: a folder or a zip with dataset.json (Karras et al. 2022, dataset_tool.py). No torch.

    00000/img00000000.png    PNG or another kind of picture, or .npy (latents, as EDM2 keeps them)
    dataset.json             {"labels": [["00000/img00000000.png", 6], ...]}, or null, or no such key, or no such file

Files are taken in the order of their names, as EDM does. Labels are whole numbers; vectors, which EDM also knows, are
refused.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cmbench import regular
from cmbench.errors import UsageError
from cmbench.pictures import listing
from cmbench.text import shown

ARRAY = ".npy"
_TABLE = "dataset.json"
_LARGEST_TABLE = 1 << 30  # bytes; ImageNet's has about 60 MB
_LARGEST = 1 << 28  # bytes of a picture


class Source(Protocol):
    """Where the files of a data set are read from, by name."""

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return size and checksum of every file by its name; 0 for an unknown checksum."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of at most `most` bytes. Raises OSError or BadZipFile."""


@dataclass(frozen=True, eq=False)
class Packed:
    """The pictures of a data set, in order.

    Attributes:
        source: what reads them.
        names: of the files.
        labels: a whole number for each, or None.
        content: a digest of all files.
    """

    source: Source
    names: list[str]
    labels: list[int] | None
    content: str

    def read(self, name: str) -> bytes:
        """Return the content of a picture. Raises OSError or BadZipFile."""
        return self.source.read(name, _LARGEST)


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
            with regular.opened(root, links=True) as file, zipfile.ZipFile(file) as archive:
                yield _packed(_Zip(archive), root, key)
    except OSError as error:
        raise UsageError(f"{key}: no pictures at {root} ({error.strerror or error})") from None
    except zipfile.BadZipFile as error:
        raise UsageError(f"{key}: {root} is no zip, or damaged: {error}") from None


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


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def sizes(self) -> dict[str, tuple[int, int]]:
        members = self._archive.infolist()
        return {
            member.filename: (member.file_size, member.CRC)
            for member in members
            if not member.is_dir() and not any(map(listing.is_hidden, member.filename.split("/")))
        }

    def read(self, name: str, most: int) -> bytes:
        member = self._archive.getinfo(name)
        if member.file_size > most or member.flag_bits & 1:
            why = "encrypted" if member.flag_bits & 1 else f"of {member.file_size:,} bytes, allowed: at most {most:,}"
            raise OSError(f"{name} is {why}")
        try:
            return self._archive.read(member)
        except (NotImplementedError, RuntimeError, EOFError) as error:  # of other ways to compress, of truncated files
            raise OSError(f"{name}: {error or 'truncated'}") from None


def _packed(source: Source, root: Path, key: str) -> Packed:
    sizes = source.sizes()
    names = sorted(name for name in sizes if Path(name).suffix.lower() in (*listing.KINDS, ARRAY))
    if not names:
        raise UsageError(f"{key}: no pictures at {root} (it holds none, of {len(sizes)} files)")
    table = source.read(_TABLE, _LARGEST_TABLE) if _TABLE in sizes else b"{}"
    return Packed(source, names, _labels(table, names, root, key), _digest(source, names, sizes, table))


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


def _digest(source: Source, names: list[str], sizes: dict[str, tuple[int, int]], table: bytes) -> str:
    """Return a digest of names, sizes, a zip's checksums and the table; of a folder also of content, up to 256 MiB."""
    found = hashlib.blake2b(table, digest_size=16)
    for name in names:
        found.update(f"{name} {sizes[name]};".encode(errors="surrogateescape"))
    if isinstance(source, _Folder):
        for i in listing.looked_into([sizes[name][0] for name in names]):
            found.update(source.read(names[i], _LARGEST))
    return f"edm1:{found.hexdigest()}"


def look(table: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return digest and number of the pictures that a recipe's [data] names; None if they cannot be read."""
    try:
        with opened(Path(str(table.get("root", ""))).expanduser()) as packed:
            return packed.content, len(packed.names)
    except (UsageError, RuntimeError):
        return None
