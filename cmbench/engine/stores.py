"""Where many samples are kept as they are drawn: a folder of PNG files, or one file that is written at the end.

Each store knows what it lacks, so that a command that was ended at any instant goes on where it was. A record beside
the samples says how they are drawn; those drawn otherwise are refused.
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmbench.errors import UsageError
from cmbench.finite import as_bytes
from cmbench.rundir import files
from cmbench.rundir.fields import table, whole
from cmbench.text import shown

RECORD = "samples.json"
_LABELS = "dataset.json"
_MANY = 10_000  # pictures of a folder, above which they lie in folders of a thousand
_END = b"IEND\xaeB`\x82"  # of a PNG
_PIECE = 1 << 24  # bytes
_STAMP = (1980, 1, 1, 0, 0, 0)  # of all members, so that equal samples make equal files

Made = Mapping[str, Any]  # how samples are drawn, in the order in which differences are told


class Store(Protocol):
    """Keeps samples by their numbers. Each rank has one of its own, for its share; rank 0 begins and ends it."""

    def check(self) -> None:
        """Refuse a place that holds something else, and write nothing."""

    def begin(self) -> None:
        """Make the place, or take it up again."""

    def join(self) -> None:
        """As any other rank, use the place that rank 0 has made."""

    def lacks(self, start: int, stop: int) -> bool:
        """Return whether any of these samples is not there yet."""

    def put(self, start: int, x: Tensor) -> None:
        """Keep samples x (b, *shape), in [-1, 1] if they are pictures, of the numbers from start."""

    def keep(self, done: int | None) -> None:
        """Make what was put survive a crash; with `done`, note that all samples below that number are there."""

    def finish(self) -> None:
        """Complete what the user has asked for."""


class Folder:
    """PNG files 000000.png, ..., of more than 10,000 in folders of a thousand, as EDM names them.

    A file is written under another name and renamed. One that a power cut has damaged lacks its end, and is made again.

    Args:
        path: of the folder.
        n: number of samples.
        shape: of a sample, one or three colours.
        made: how they are drawn.
        labels: of all samples, (n,), for a conditional model; they go into dataset.json, as EDM writes it.
    """

    def __init__(self, path: Path, n: int, shape: Sequence[int], made: Made, labels: Tensor | None) -> None:
        self.path, self._n, self._made, self._labels = path, n, {**made, "shape": list(shape)}, labels
        self._nested = n > _MANY

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            UsageError: other samples, or other files, are there.
            OSError: it cannot be read.
        """
        if (record := _record(self.path)) is not None:
            _refuse_other(f"--out {self.path}", record, self._made)
        else:
            _refuse_files(f"--out {self.path}", self.path)

    def begin(self) -> None:
        """Make the folder, or take it up again. Raises OSError if it cannot be written."""
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, *self.path.glob("[0-9]*000")):
            files.remove_temporaries(folder, r"[0-9]{6,}\.png", shared=True)
        if _record(self.path) is None:
            _write_record(self.path, {"made": self._made, "nested": self._nested})
        self.join()

    def join(self) -> None:
        """Name files as those that are there."""
        self._nested = (_record(self.path) or {}).get("nested") is True

    def lacks(self, start: int, stop: int) -> bool:
        """Return whether any of these samples is not there yet."""
        return any(not _is_whole(self._file(k)) for k in range(start, min(stop, self._n)))

    def put(self, start: int, x: Tensor) -> None:
        """Write the files that are not there yet."""
        levels = as_bytes(x).movedim(1, -1).numpy()
        for k in range(start, min(start + len(x), self._n)):
            path = self._file(k)
            if not _is_whole(path):
                path.parent.mkdir(exist_ok=True)
                files.write_atomically(path, _png(levels[k - start]), durable=False)

    def keep(self, done: int | None) -> None:
        """The files themselves tell."""

    def finish(self) -> None:
        """Write the labels, if there are any. Those of more samples, which are there from before, stay."""
        there = (files.read_json(self.path / _LABELS) or {}).get("labels")
        if self._labels is not None and not (isinstance(there, list) and len(there) > self._n):
            names = [self._file(k).relative_to(self.path).as_posix() for k in range(self._n)]
            pairs = [list(pair) for pair in zip(names, self._labels.tolist(), strict=True)]
            files.write_atomically(self.path / _LABELS, files.to_json({"labels": pairs}))

    def _file(self, k: int) -> Path:
        folder = self.path / f"{k - k % 1000:06d}" if self._nested else self.path
        return folder / f"{k:06d}.png"


class Single:
    """One file, written at the end from a folder of numbers beside it, FILE.partial/, which is removed then.

    Args:
        path: of the file.
        n: number of samples.
        shape: of a sample.
        made: how they are drawn.
        labels: of all samples, (n,), for a conditional model.
        option: that names the file: "--out", which makes an .npz, or "--safetensors".
    """

    def __init__(
        self, path: Path, n: int, shape: Sequence[int], made: Made, labels: Tensor | None, option: str
    ) -> None:
        self.path, self._n, self._labels, self._option = path, n, labels, option
        self._folder = path.parent / f"{path.name}.partial"  # a path such as "." has no name
        self._numbers, self._done = self._folder / "samples.raw", 0
        self._is_npz = option == "--out"
        self._shape = (*shape[1:], shape[0]) if self._is_npz else tuple(shape)
        self._dtype = np.dtype(np.uint8 if self._is_npz else np.float32)
        self._size = int(np.prod(self._shape)) * self._dtype.itemsize
        self._made = {**made, "shape": list(shape)}

    def check(self) -> None:
        """Refuse a place that holds something else.

        Raises:
            UsageError: other samples, or other files, are there.
            OSError: it cannot be read.
        """
        if self.path.exists() and not self.path.is_file():
            raise UsageError(f"{self._option} {self.path}: cannot be written: it is no file")
        where = f"{self._option} {self.path}: {self._folder.name}"
        if (record := _record(self._folder)) is not None:
            _refuse_other(where, record, self._made)
        _refuse_files(where, self._folder, own=(RECORD, self._numbers.name))

    def begin(self) -> None:
        """Make the folder, or take it up again. Raises OSError if it cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        files.remove_temporaries(self._folder, RECORD, shared=True)
        if (record := _record(self._folder)) is not None:
            there = self._numbers.stat().st_size // self._size if self._numbers.exists() else 0
            self._done = min(whole(record.get("done")) or 0, there)
        os.close(files.open_to_append(self._numbers))
        self._note()

    def join(self) -> None:
        """Each sample's place follows from its number."""

    def lacks(self, start: int, stop: int) -> bool:
        """Return whether any of these samples is not there yet."""
        return min(stop, self._n) > self._done

    def put(self, start: int, x: Tensor) -> None:
        """Write samples to their place."""
        x = as_bytes(x).movedim(1, -1) if self._is_npz else x.float()
        left = memoryview(x[: self._n - start].contiguous().numpy().tobytes())
        with self._opened() as descriptor:
            at = start * self._size
            while left:
                written = os.pwrite(descriptor, left, at)
                left, at = left[written:], at + written

    def keep(self, done: int | None) -> None:
        """Bring the numbers to the disk, and then note how many are there."""
        with self._opened() as descriptor:
            os.fsync(descriptor)
        if done is not None and done > self._done:
            self._done = min(done, self._n)
            self._note()

    def finish(self) -> None:
        """Write the file, whole or not at all, and remove the folder beside it."""
        with files.replacing(self.path.resolve()) as descriptor, os.fdopen(os.dup(descriptor), "wb") as file:
            if self._is_npz:
                self._write_npz(file)
            else:
                self._write_safetensors(file)
        for path in (self._numbers, self._folder / RECORD):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # another command was as far, or something was put there
            self._folder.rmdir()

    def _write_npz(self, file: Any) -> None:
        """Write arr_0, and arr_1 of a conditional model, as numpy.savez would."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(zipfile.ZipInfo("arr_0.npy", _STAMP), "w", force_zip64=True) as member:
                header = {"descr": "|u1", "fortran_order": False, "shape": (self._n, *self._shape)}
                np.lib.format.write_array_header_1_0(member, header)
                for piece in self._pieces():
                    member.write(piece)
            if self._labels is not None:
                with archive.open(zipfile.ZipInfo("arr_1.npy", _STAMP), "w") as member:
                    np.save(member, self._labels.numpy(), allow_pickle=False)

    def _write_safetensors(self, file: Any) -> None:
        about = {"dtype": "F32", "shape": [self._n, *self._shape], "data_offsets": [0, self._n * self._size]}
        header = files.to_json({"samples": about})
        header += b" " * (-len(header) % 8)
        file.write(struct.pack("<Q", len(header)) + header)
        for piece in self._pieces():
            file.write(piece)

    def _pieces(self) -> Iterator[bytes]:
        left = self._n * self._size
        with self._here(), files.opened(self._numbers) as file:
            while left and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece
        if left:
            raise UsageError(f"{self._option} {self.path}: {self._numbers} was cut off meanwhile")

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Yield the descriptor of the numbers, which stay as they are."""
        with self._here():
            descriptor = os.open(self._numbers, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _here(self) -> Iterator[None]:
        """Say clearly that the numbers have gone.

        Raises:
            UsageError: they have.
        """
        try:
            yield
        except FileNotFoundError:
            gone = f"{self._folder.name} is gone; another such command has completed it, or it was removed"
            raise UsageError(f"{self._option} {self.path}: {gone}") from None

    def _note(self) -> None:
        """Write the record, over the old one where the disk is full."""
        content = files.to_json({"schema": 1, "made": self._made, "done": self._done}, indent=True).ljust(4096)
        path = self._folder / RECORD
        try:
            files.write_atomically(path, content)
        except OSError:
            if not path.exists():
                raise
            files.overwrite(path, content)


def _record(folder: Path) -> dict[str, Any] | None:
    return files.read_json(folder / RECORD)


def _write_record(folder: Path, content: Mapping[str, Any]) -> None:
    files.write_atomically(folder / RECORD, files.to_json({"schema": 1, **content}, indent=True))


def _refuse_other(where: str, record: Mapping[str, Any], made: Made) -> None:
    """Refuse a place that was begun otherwise.

    Raises:
        UsageError: it was; the message names the first difference.
    """
    before = table(record.get("made"))
    for key, value in made.items():
        if key == "run" and before.get("weights") == made.get("weights"):
            continue  # it was renamed
        if before.get(key) != value:
            found = f"begun with {key} {shown(before.get(key))}, asked for {shown(value)}"
            raise UsageError(f"{where}: {found}; allowed: the same, or another place")


def _refuse_files(where: str, folder: Path, own: Sequence[str] = ()) -> None:
    """Refuse a folder with files of someone else; hidden ones do not count, nor does a folder that is not there.

    Raises:
        UsageError: there is one; the message names it.
        OSError: the folder cannot be read.
    """
    names = (path.name for path in folder.iterdir()) if folder.exists() else iter(())
    if found := next((name for name in names if not name.startswith(".") and name not in own), None):
        allowed = "allowed: a new or empty folder, or one that this command has begun"
        raise UsageError(f"{where}: found {shown(found)} there, {allowed}")


def _is_whole(path: Path) -> bool:
    """Return whether a PNG file is there, up to its end."""
    try:
        with files.opened(path) as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False


def _png(levels: np.ndarray) -> bytes:
    """Return a picture (H, W, 1 or 3), uint8, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels).save(buffer, format="png")
    return buffer.getvalue()


def labels_of(n: int, label: int | None, classes: int) -> Tensor:
    """Return the labels of the first n samples, (n,): one class, or all in turn."""
    return torch.full((n,), label) if label is not None else torch.arange(n) % classes
