"""The arrays of a file by their names. Files are opened as data only: objects, which a pickle holds, are refused.

.npy            mapped
.npz            uncompressed members are mapped, compressed ones read into memory
.safetensors    mapped
.csv            columns of numbers or of text, read into memory
"""

import json
import lzma
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, Literal, cast

import numpy as np
import psutil
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from cmbench import regular
from cmbench.arrays import table
from cmbench.arrays.stored import Stored
from cmbench.errors import UsageError
from cmbench.text import shown

KINDS = (".npy", ".npz", ".safetensors", ".csv")
_OF_SAFETENSORS = {"U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4"}
_OF_SAFETENSORS |= {"U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "?", "BF16": "<u2"}
_PICKLED = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin")
_LOCAL = struct.Struct("<4s22xHH")  # a zip's local header: its sign, and the lengths of the name and of what follows it
_LONGEST = 1 << 27  # bytes of a safetensors header, as that library allows
# What the libraries raise at damaged files. RuntimeError is of encrypted ones, and NotImplementedError is one.
_DAMAGED: tuple[type[Exception], ...] = (
    *(ValueError, EOFError, struct.error, KeyError, TypeError, OverflowError, TokenError, SafetensorError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError),
)


class UnreadableError(Exception):
    """Why a file cannot be read as arrays."""


def opened(path: Path, key: str) -> dict[str, Stored]:
    """Return the arrays of a file by name; that of an .npy file is called "".

    Args:
        path: the file.
        key: of the recipe that names it, for messages, such as "data.root".

    Raises:
        UsageError: it is missing, of another kind, damaged, or holds objects.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        why = "; a pickle may run code: save its arrays as .npy elsewhere" if kind in _PICKLED else ""
        raise UsageError(f"{key}: found {shown(str(path), 200)}, allowed: a file of {', '.join(KINDS)}{why}")
    try:
        return {".npy": _npy, ".npz": _npz, ".safetensors": _safetensors, ".csv": table.columns}[kind](path)
    except UnreadableError as error:
        raise UsageError(f"{key}: {path}: {error}") from None
    except OSError as error:
        raise UsageError(f"{key}: no samples at {path} ({error.strerror or error})") from None
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{key}: {path} cannot be read as {kind}: {reason}") from None


def _npy(path: Path) -> dict[str, Stored]:
    with regular.opened(path, links=True) as file:
        return {"": Stored(_mapped_npy(file, 0), path.name, is_mapped=True)}


def _mapped_npy(file: BinaryIO, start: int) -> np.ndarray:
    """Map the array of an .npy that begins at a byte of a file."""
    file.seek(start)
    shape, is_fortran, dtype = _header(file)
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    if not shape or 0 in shape or dtype.itemsize == 0:
        return np.zeros(shape, dtype, order)
    place = file.tell()
    wanted, there = place + dtype.itemsize * int(np.prod(shape, dtype=object)), file.seek(0, 2)
    if wanted > there:
        raise UnreadableError(f"truncated: it has {there:,} of {wanted:,} bytes")
    # "r": the system refuses a writable mapping that is larger than the memory
    mapped = np.memmap(file, dtype, "r", place, shape, order)
    return np.asarray(mapped)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise UnreadableError(f"of .npy version {version[0]}.{version[1]}; allowed: arrays of plain numbers")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise UnreadableError("an array of objects, which are pickled and may run code; save plain numbers instead")
    if dtype.names or dtype.subdtype:
        raise UnreadableError("an array of records; save each field as an array of its own")
    return shape, is_fortran, dtype


def _npz(path: Path) -> dict[str, Stored]:
    found = {}
    with regular.opened(path, links=True) as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                continue
            where = f"{path.name}: {shown(name)}"
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                file.seek(member.header_offset)
                sign, *lengths = _LOCAL.unpack(file.read(_LOCAL.size))
                if sign != b"PK\x03\x04":
                    raise UnreadableError(f"damaged at {name}")
                start = member.header_offset + _LOCAL.size + sum(lengths)
                found[name] = Stored(_mapped_npy(file, start), where, is_mapped=True)
            else:
                found[name] = Stored(_unpacked(archive, member), where)
    return found


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Read a compressed array into memory, if there is room for it."""
    free = psutil.virtual_memory().available
    if member.file_size > free // 2:
        raise UnreadableError(
            f"{shown(member.filename)} is compressed, and needs {member.file_size:,} bytes of memory, of which "
            f"{free:,} are free; save it by numpy.save as .npy, which is read where it lies"
        )
    with archive.open(member) as file:
        shape, is_fortran, dtype = _header(cast(BinaryIO, file))
        content = file.read()
    if len(content) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise UnreadableError(f"truncated at {shown(member.filename)}")
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if is_fortran else "C")


def _safetensors(path: Path) -> dict[str, Stored]:
    with regular.opened(path, links=True) as file:
        with safe_open(path, "numpy"):
            pass  # the library checks the header: names, places and sizes
        (length,) = struct.unpack("<Q", file.read(8))
        header, start = json.loads(file.read(min(length, _LONGEST))), 8 + length
        found = {}
        for name, about in header.items():
            if name == "__metadata__" or about["dtype"] not in _OF_SAFETENSORS:
                continue
            dtype, shape, place = (
                np.dtype(_OF_SAFETENSORS[about["dtype"]]),
                tuple(about["shape"]),
                about["data_offsets"],
            )
            values = np.zeros(shape, dtype)
            if values.ndim and 0 not in shape:
                values = np.asarray(np.memmap(file, dtype, "r", start + place[0], shape))
            found[name] = Stored(values, f"{path.name}: {shown(name)}", about["dtype"] == "BF16", is_mapped=True)
    return found
