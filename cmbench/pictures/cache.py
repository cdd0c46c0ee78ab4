"""Decoded pictures in a file: a safetensors file that is mapped into memory, and remembers its making.

It lies in the cache folder under a name that follows from what it was made of. It is written to a temporary name,
fsynced and renamed. One that is short or damaged, or was made of something else, counts as missing.
"""

import hashlib
import json
import math
import mmap
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL

from cmbench import caches, regular
from cmbench.errors import FULL
from cmbench.pictures.workers import Decoded
from cmbench.rundir import files

_FORMAT = "cmbench pictures 1"
_SUFFIX = ".safetensors"
_TYPES = {"uint8": "U8", "float32": "F32"}
_BLOCK = 2**24  # bytes of a checksum
_CHECKED = 256 * 2**20  # bytes whose checksums are looked at when a file is opened
_LONGEST = 2**26  # bytes of a header
_MARKS = 4096  # bytes that a header keeps free for peculiarities


@dataclass(frozen=True)
class Prepared:
    """Decoded pictures.

    Attributes:
        pictures: (M, C, H, W), uint8 or float32, mapped from a file.
        marks: how many pictures have which peculiarity.
    """

    pictures: np.ndarray
    marks: Counter[str]


@dataclass(frozen=True)
class Wanted:
    """What a file of pictures is made of, and what it is to hold: (M, C, H, W), uint8 or float32."""

    made_of: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def sums(self) -> int:
        """Number of checksums."""
        return -(-self.nbytes // _BLOCK)

    def place(self) -> Path:
        """Return the file. Raises RuntimeError without a home folder."""
        name = hashlib.blake2b(_json(self.made_of).encode(), digest_size=16).hexdigest()
        return caches.folder("pictures") / f"{name}{_SUFFIX}"


def opened(path: Path, wanted: Wanted) -> Prepared | None:
    """Map a file of pictures; None if there is none that is whole and was made of this."""
    try:
        with regular.opened(path) as file:
            return _mapped(file, wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, parts: Iterable[Decoded], wanted: Wanted, about: Mapping[str, str]) -> None:
    """Write the pictures of `parts`; `about` is for people who read the header.

    Raises:
        OSError: the file cannot be written.
    """
    files.remove_temporaries(path.parent, re.escape(path.name))  # of a writer that was killed; the caller is alone
    sums, marks = _Sums(), Counter[str]()
    room = _room_for_header(wanted, about)
    with files.replacing(path) as descriptor:
        _reserve(descriptor, room + wanted.nbytes)
        os.lseek(descriptor, room, os.SEEK_SET)
        for part in parts:
            content = part.rows.astype(wanted.dtype.newbyteorder("<"), copy=False).tobytes()
            files.write_all(descriptor, content)
            sums.add(content)
            marks.update(part.marks)
        os.lseek(descriptor, 0, os.SEEK_SET)
        files.write_all(descriptor, _header(wanted, about, sums.whole(), marks).ljust(room))


class _Sums:
    """Checksums of blocks of what is written."""

    def __init__(self) -> None:
        self._done: list[int] = []
        self._now, self._bytes = 0, 0

    def add(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            taken = left[: _BLOCK - self._bytes]
            self._now, self._bytes = zlib.crc32(taken, self._now), self._bytes + len(taken)
            left = left[len(taken) :]
            if self._bytes == _BLOCK:
                self._done.append(self._now)
                self._now, self._bytes = 0, 0

    def whole(self) -> list[int]:
        return [*self._done, self._now] if self._bytes else self._done


def _reserve(descriptor: int, size: int) -> None:
    """Take the room on the disk at once, so that a full one is known before anything is decoded."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno in FULL:
                raise


def _header(wanted: Wanted, about: Mapping[str, str], sums: Iterable[int], marks: Mapping[str, int]) -> bytes:
    """Return the length of a header and the header itself, as safetensors has them; spaces may follow."""
    metadata = {
        "format": _FORMAT,
        "made_of": _json(wanted.made_of),
        "marks": _json(dict(marks)),
        "pillow": PIL.__version__,
    }
    metadata |= {**about, "crc32": " ".join(f"{each:08x}" for each in sums)}
    tensor = {"dtype": _TYPES[wanted.dtype.name], "shape": list(wanted.shape), "data_offsets": [0, wanted.nbytes]}
    text = json.dumps({"__metadata__": metadata, "pictures": tensor}).encode()
    return (_room_for_header(wanted, about) - 8).to_bytes(8, "little") + text


def _room_for_header(wanted: Wanted, about: Mapping[str, str]) -> int:
    """Return bytes in which a header fits, a whole number of pages."""
    fixed = json.dumps([_json(wanted.made_of), list(wanted.shape), dict(about)]).encode()
    page = mmap.ALLOCATIONGRANULARITY
    return page * -(-(len(fixed) + 9 * wanted.sums + _MARKS) // page)


def _mapped(file: BinaryIO, wanted: Wanted) -> Prepared | None:
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST:
        return None
    header = json.loads(file.read(length))
    about, tensor, size = header["__metadata__"], header["pictures"], wanted.nbytes
    holds = tensor["dtype"] == _TYPES[wanted.dtype.name] and tensor["shape"] == list(wanted.shape)
    is_ours = about["format"] == _FORMAT and about["made_of"] == _json(wanted.made_of) and holds
    if not is_ours or os.fstat(file.fileno()).st_size != 8 + length + size:
        return None
    sums = [int(each, 16) for each in about["crc32"].split()]
    if len(sums) != wanted.sums or not _is_sound(file, 8 + length, size, sums):
        return None
    # "r": to be written, it would count as memory
    pictures = np.memmap(file, wanted.dtype.newbyteorder("<"), "r", 8 + length, wanted.shape)
    with suppress(OSError):
        os.utime(file.fileno())  # who clears the cache sees what was used last
    return Prepared(pictures, Counter({str(name): int(n) for name, n in json.loads(about["marks"]).items()}))


def _is_sound(file: BinaryIO, start: int, size: int, sums: list[int]) -> bool:
    """Check the checksums: of all blocks, or of a large file those of evenly spaced ones and of the last."""
    wanted = min(len(sums), max(1, _CHECKED // _BLOCK))
    for i in sorted({*(k * len(sums) // wanted for k in range(wanted)), len(sums) - 1}):
        file.seek(start + i * _BLOCK)
        if zlib.crc32(file.read(min(_BLOCK, size - i * _BLOCK))) != sums[i]:
            return False
    return True


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True)
