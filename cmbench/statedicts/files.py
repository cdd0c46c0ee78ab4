"""Reads files of tensors: safetensors, PyTorch state dicts, and diffusers folders of both.

A PyTorch file is a pickle. It is read by `torch.load(weights_only=True)` alone, which builds tensors, numbers, texts
and containers of them, and refuses everything else. A file that needs more is refused: reading it would run its code.
"""

import hashlib
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cmbench import regular
from cmbench.errors import UsageError

KINDS = ".safetensors, .pt, .pth, .bin or .ckpt"
HOW_TO_CONVERT = "docs/weights.md says how to convert it where its code is"
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "U8": "uint8"}
_DTYPES |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin, since 1.6 and before
_LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer header
_LARGEST_INDEX = 1 << 26  # bytes of the list of a model's parts
_DEEPEST = 8  # levels of nested tables in a PyTorch file
_PIECE = 1 << 20  # bytes
# What diffusers calls the file of a model, and the folders of a pipeline that hold one.
_IN_A_FOLDER = ("diffusion_pytorch_model", "model", "pytorch_model")
_MODELS = ("unet", "transformer")

Format = Literal["safetensors", "torch"]


@dataclass(frozen=True)
class Entry:
    """A tensor of a file, which is read when `read` is called.

    Attributes:
        name: all keys that lead to it, joined by dots.
        group: those of the tables around its state dict; empty if the file is one.
        shape: of the tensor.
        dtype: its name, e.g. "float16".
        read: returns the tensor on the CPU.
        listed: whether a list holds it, which has no names.
    """

    name: str
    group: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]
    listed: bool = False


@dataclass(frozen=True)
class File:
    """An open file of tensors.

    Attributes:
        path: absolute; of a folder, the folder.
        format: how it is written.
        sha256: of its content; of several parts, the hash of the hashes of all, in the order of their names.
        size: bytes.
        entries: its tensors, in its order.
    """

    path: Path
    format: Format
    sha256: str
    size: int
    entries: Sequence[Entry]


@contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a file or a folder of weights; its tensors can be read within the block.

    Raises:
        UsageError: it is missing, is no such file, is damaged, or needs code to be read. One line says which.
    """
    path = _resolved(path)
    parts = _parts(path)
    before = [_stamp(part) for part in parts]
    with ExitStack() as stack:
        formats = [_format(part) for part in parts]
        entries = [e for part, kind in zip(parts, formats, strict=True) for e in _entries(part, kind, stack)]
        if not entries:
            raise UsageError(f"{path}: found no tensors, allowed: {KINDS} with a state dict")
        sums = [_sha256(part) for part in parts]  # last: a huge file that is none of weights is refused at once
        whole = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
        yield File(path, formats[0], whole, sum(size for _, size, _ in before), entries)
        if before != [_stamp(part) for part in parts]:
            raise UsageError(f"{path}: changed while it was read")


def _resolved(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - a link keeps its name, by which it is known
    except (RuntimeError, ValueError) as error:  # no home, or a zero byte
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _parts(path: Path) -> list[Path]:
    """Return the files of a path: itself, or what a folder of diffusers has, in the order of their names."""
    try:
        if not path.is_dir():
            return [path]
        for folder in places(path):
            for name in _IN_A_FOLDER:
                if (index := folder / f"{name}.safetensors.index.json").exists():
                    return _listed(index)
                for kind in (".safetensors", ".bin"):
                    if (file := folder / f"{name}{kind}").exists():
                        return [file]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {_reason(error)}") from None
    raise UsageError(f"{path}: a folder without {_IN_A_FOLDER[0]}.safetensors; allowed: {KINDS}, or a diffusers folder")


def places(folder: Path) -> list[Path]:
    """Return where a folder of diffusers may have its model: itself, or a part of a pipeline."""
    return [folder, *(folder / model for model in _MODELS)]


def _listed(index: Path) -> list[Path]:
    """Return the parts that the index of a model in several files lists."""
    try:
        names = set(orjson.loads(regular.read(index, _LARGEST_INDEX, links=True))["weight_map"].values())
    except OSError as error:
        raise UsageError(f"{index}: cannot be read: {_reason(error)}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        names = set()
    if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise UsageError(f"{index}: found no list of files beside it, allowed: the index of a diffusers model")
    return [index.parent / name for name in sorted(names)]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {_reason(error)}") from None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with regular.opened(path, links=True) as file:
            for piece in iter(lambda: file.read(_PIECE), b""):
                digest.update(piece)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {_reason(error)}") from None
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _format(path: Path) -> Format:
    """Tell the format by the first bytes: names lie.

    Raises:
        UsageError: it is neither.
    """
    try:
        with regular.opened(path, links=True) as file:
            start = file.read(9)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {_reason(error)}") from None
    if start.startswith((_ZIP, _PICKLE)):
        return "torch"
    if path.suffix == ".safetensors" or (start[8:] == b"{" and int.from_bytes(start[:8], "little") < _LONGEST_HEADER):
        return "safetensors"
    raise UsageError(f"{path}: found no file of weights, allowed: {KINDS}")


def _entries(path: Path, kind: Format, stack: ExitStack) -> list[Entry]:
    return _of_safetensors(path, stack) if kind == "safetensors" else _of_torch(path)


def _of_safetensors(path: Path, stack: ExitStack) -> list[Entry]:
    try:
        file = stack.enter_context(safe_open(path, "pt"))
        slices = [(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118 - it is no dict
        known = [(name, tuple(own.get_shape()), _DTYPES.get(own.get_dtype(), own.get_dtype())) for name, own in slices]
        twins = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        why = str(error).removeprefix("Error while deserializing header: ")
        raise UsageError(f"{path}: truncated, or no safetensors: {why}") from None
    entries = {name: Entry(name, "", shape, dtype, partial(file.get_tensor, name)) for name, shape, dtype in known}
    # safetensors' `save_model` leaves out a tensor that another one shares, and names both in the metadata
    shared = {name: entries[twin] for name, twin in twins.items() if name not in entries and twin in entries}
    return [*entries.values(), *(Entry(name, "", e.shape, e.dtype, e.read) for name, e in shared.items())]


def _of_torch(path: Path) -> list[Entry]:
    whole = _loaded(path)
    if not isinstance(whole, Mapping | list | tuple):
        raise UsageError(f"{path}: found {_named(type(whole))}, allowed: a state dict, or a table of state dicts")
    return list(_walked(whole, (), 0))


def _loaded(path: Path) -> Any:
    """Read a PyTorch file without running any code of it.

    Raises:
        UsageError: it needs code to be read, or is damaged.
    """
    is_zip = _is_zip(path)
    if is_zip and _is_torchscript(path):
        raise UsageError(f"{path}: a TorchScript program, allowed: a state dict; {HOW_TO_CONVERT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats of old versions
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the file may hold anything, and torch's errors for it have many types
        raise UsageError(f"{path}: {_why_not(error)}") from None


def _is_zip(path: Path) -> bool:
    with regular.opened(path, links=True) as file:
        return file.read(4) == _ZIP


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False  # then torch says what is wrong


def _why_not(error: Exception) -> str:
    """Return why torch has not read a file, in our words: its own are pages."""
    text = " ".join(str(error).split())
    needed = re.search(r"(?:GLOBAL|class) ([\w.]+\.[\w.]+)", text)
    if "weights_only" in text or "nsupported" in text:
        what = f" (it needs {needed[1]})" if needed else ""
        return f"a pickle of objects, which would run code{what}; allowed: a state dict; {HOW_TO_CONVERT}"
    return f"truncated or damaged: {text[:120]}"


def _walked(value: object, keys: tuple[str, ...], depth: int) -> Iterator[Entry]:
    """Yield the tensors of nested tables, each with its keys."""
    if isinstance(value, Mapping):
        items: Iterator[tuple[str, object]] = ((str(key), own) for key, own in value.items())
    elif isinstance(value, list | tuple):
        items = ((str(i), own) for i, own in enumerate(value))
    else:
        return
    for key, own in items:
        if isinstance(own, Tensor):
            yield _entry(own, keys, key, not isinstance(value, Mapping))
        elif depth < _DEEPEST:
            yield from _walked(own, (*keys, key), depth + 1)


def _entry(tensor: Tensor, keys: tuple[str, ...], key: str, listed: bool) -> Entry:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        dtype = f"{str(tensor.layout).removeprefix('torch.')} {dtype}"  # which no network takes
    return Entry(".".join((*keys, key)), ".".join(keys), tuple(tensor.shape), dtype, tensor.detach, listed)


def _named(kind: type) -> str:
    return "a tensor" if issubclass(kind, Tensor) else f"a {kind.__name__}"
