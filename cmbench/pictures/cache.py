"""Decoded pictures in a file: a safetensors file of bytes that is mapped into memory, and remembers its making.

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

from cmbench import regular
from cmbench.errors import FULL
from cmbench.pictures.workers import Decoded
from cmbench.rundir import files

_FORMAT = "cmbench pictures 1"
_SUFFIX = ".safetensors"
_BLOCK = 2**24  # bytes of a checksum
_CHECKED = 256 * 2**20  # bytes whose checksums are looked at when a file is opened
_LONGEST = 2**26  # bytes of a header
_MARKS = 4096  # bytes that a header keeps free for peculiarities


@dataclass(frozen=True)
class Prepared:
    """Decoded pictures.

    Attributes:
        pictures: (M, C, H, W), uint8, mapped from a file.
        marks: how many pictures have which peculiarity.
    """

    pictures: np.ndarray
    marks: Counter[str]


def folder() -> Path:
    """Return the folder of prepared pictures.

    CMBENCH_CACHE_DIR, or cmbench/pictures in XDG_CACHE_HOME or ~/.cache.

    Raises:
        RuntimeError: there is no home folder.
    """
    if given := os.environ.get("CMBENCH_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()) / "cmbench" / "pictures"


def place(made_of: Mapping[str, Any]) -> Path:
    """Return the file of pictures that were made of this."""
    return folder() / f"{hashlib.blake2b(_json(made_of).encode(), digest_size=16).hexdigest()}{_SUFFIX}"


def opened(path: Path, made_of: Mapping[str, Any], shape: tuple[int, ...]) -> Prepared | None:
    """Map a file of pictures; None if there is none that is whole and was made of this."""
    try:
        with regular.opened(path) as file:
            return _mapped(file, made_of, shape)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(
    path: Path, parts: Iterable[Decoded], made_of: Mapping[str, Any], shape: tuple[int, ...], about: Mapping[str, str]
) -> None:
    """Write the pictures of `parts`, (M, C, H, W) = shape in all; `about` is for people who read the header.

    Raises:
        OSError: the file cannot be written.
    """
    files.remove_temporaries(path.parent, re.escape(path.name))  # of a writer that was killed; the caller is alone
    total, sums, marks = math.prod(shape), _Sums(), Counter[str]()
    room = _room_for_header(made_of, shape, about)
    with files.replacing(path) as descriptor:
        _reserve(descriptor, room + total)
        os.lseek(descriptor, room, os.SEEK_SET)
        for part in parts:
            content = part.rows.tobytes()
            files.write_all(descriptor, content)
            sums.add(content)
            marks.update(part.marks)
        os.lseek(descriptor, 0, os.SEEK_SET)
        files.write_all(descriptor, _header(made_of, shape, about, sums.whole(), marks).ljust(room))


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


def _header(
    made_of: Mapping[str, Any],
    shape: tuple[int, ...],
    about: Mapping[str, str],
    sums: Iterable[int],
    marks: Mapping[str, int],
) -> bytes:
    """Return the length of a header and the header itself, as safetensors has them; spaces may follow."""
    metadata = {"format": _FORMAT, "made_of": _json(made_of), "marks": _json(dict(marks)), "pillow": PIL.__version__}
    metadata |= {**about, "crc32": " ".join(f"{each:08x}" for each in sums)}
    tensor = {"dtype": "U8", "shape": list(shape), "data_offsets": [0, math.prod(shape)]}
    text = json.dumps({"__metadata__": metadata, "pictures": tensor}).encode()
    return (_room_for_header(made_of, shape, about) - 8).to_bytes(8, "little") + text


def _room_for_header(made_of: Mapping[str, Any], shape: tuple[int, ...], about: Mapping[str, str]) -> int:
    """Return bytes in which a header fits, a whole number of pages."""
    fixed = json.dumps([_json(made_of), list(shape), dict(about)]).encode()
    page = mmap.ALLOCATIONGRANULARITY
    return page * -(-(len(fixed) + 9 * -(-math.prod(shape) // _BLOCK) + _MARKS) // page)


def _mapped(file: BinaryIO, made_of: Mapping[str, Any], shape: tuple[int, ...]) -> Prepared | None:
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST:
        return None
    header = json.loads(file.read(length))
    about, tensor, size = header["__metadata__"], header["pictures"], math.prod(shape)
    is_ours = about["format"] == _FORMAT and about["made_of"] == _json(made_of) and tensor["shape"] == list(shape)
    if not is_ours or os.fstat(file.fileno()).st_size != 8 + length + size:
        return None
    sums = [int(each, 16) for each in about["crc32"].split()]
    if len(sums) != -(-size // _BLOCK) or not _is_sound(file, 8 + length, size, sums):
        return None
    pictures = np.memmap(file, np.uint8, "r", 8 + length, shape)  # to be written, it would count as memory
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
