"""Checkpoints: a folder of safetensors files and a state.json with their checksums. No pickle is ever read."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import psutil
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cmbench.engine.state import Groups
from cmbench.errors import CmbenchError, NotFoundError
from cmbench.rundir import checkpoints, reconstructed
from cmbench.rundir.checkpoints import GROUP, SCHEMA
from cmbench.rundir.files import fsync_folder, make_folder, opened, temporaries, to_json, write_all, write_atomically
from cmbench.rundir.layout import STEP, RunDir, steps_of_checkpoints

_FILE = re.compile(rf"({GROUP})\.safetensors|state\.json|{temporaries('state.json')}")  # in a checkpoint's folder

_LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer header


class DamagedError(NotFoundError):
    """A checkpoint whose files are missing or do not match their checksums."""


def folder_of(run: RunDir, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return run.checkpoint(step)


def save(
    run: RunDir,
    step: int,
    groups: Groups,
    told: Mapping[str, Any] | None = None,
    train_s: float = 0.0,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint: to a temporary folder, fsynced, then renamed. A crash does not harm older checkpoints.

    Args:
        run: the run.
        step: of the state.
        groups: its tensors.
        told: a summary of the rows so far, so that a resume need not read them.
        train_s: seconds of training.
        data: the fingerprint of the training data, if it is known.

    Raises:
        OSError: the checkpoint cannot be written; older ones are unchanged, and the disk space is free again.
    """
    final, temporary = folder_of(run, step), run.checkpoints / f".{step:08d}.tmp"
    make_folder(run.checkpoints)
    _vacate(temporary)
    temporary.mkdir()
    try:
        sums = {name: write_tensors(temporary / f"{name}.safetensors", group) for name, group in groups.items()}
        about = {"schema": SCHEMA, "step": step, "train_s": train_s, "sha256": sums, "told": told or {}}
        state = checkpoints.sealed({**about, **({"data": data} if data else {})})
        write_atomically(temporary / "state.json", to_json(state, indent=True))
        if final.exists():  # trained again after a resume from an earlier step
            aside = run.checkpoints / f".{step:08d}.old"
            _vacate(aside)
            final.rename(aside)
        temporary.rename(final)
    except OSError:
        _remove(temporary)
        recover(run)
        raise
    fsync_folder(run.checkpoints)
    remove_leftovers(run)
    return final


def load(run: RunDir, step: int) -> Groups:
    """Read a whole checkpoint.

    Raises:
        DamagedError: a file is missing or differs from its checksum.
    """
    return {name: load_group(run, step, name) for name in _checksums(run, step)}


def load_group(run: RunDir, step: int, group: str) -> dict[str, Tensor]:
    """Read one group of tensors of a checkpoint, e.g. "ema_0.999".

    Raises:
        DamagedError: the file is missing or differs from its checksum.
    """
    return read_tensors(*file_of(run, step, group))


def file_of(run: RunDir, step: int, group: str) -> tuple[Path, str | None]:
    """Return the file of a group of tensors and its SHA-256, without checking either.

    An average may also be one that `cmbench ema` has reconstructed.

    Raises:
        DamagedError: the checkpoint's state.json is missing or broken.
    """
    own = _checksums(run, step)
    if group not in own and (sums := reconstructed.checksums(run, step)) and group in sums:
        return reconstructed.folder(run, step, group) / f"{group}.safetensors", sums[group]
    return folder_of(run, step) / f"{group}.safetensors", own.get(group)


def averages(run: RunDir, step: int) -> list[str]:
    """List the lengths of a checkpoint's averages, in the recipe's order, then the reconstructed, e.g. ["0.999"].

    Raises:
        DamagedError: its state.json is missing or broken.
    """
    return checkpoints.averages(reconstructed.checksums(run, step) or _checksums(run, step))


def set_aside_after(run: RunDir, step: int) -> None:
    """Rename the damaged checkpoints after `step`, so that none of them is taken for the newest."""
    for damaged in (s for s in steps_of_checkpoints(run) if s > step):
        aside = run.checkpoints / f"{damaged:08d}.damaged"
        _vacate(aside)
        folder_of(run, damaged).rename(aside)


def abandon_after(run: RunDir, step: int) -> list[int]:
    """Move the checkpoints after `step` to checkpoints/abandoned/, and return their steps.

    The newest moves first, so that even after a crash the abandoned end is not taken for the newest checkpoint. They
    stay until `prune` sees a checkpoint of their step or a later one.
    """
    later = [s for s in steps_of_checkpoints(run) if s > step]
    for abandoned in reversed(later):
        make_folder(run.abandoned_checkpoints)
        kept = run.abandoned_checkpoints / f"{abandoned:08d}"
        _vacate(kept)  # from an earlier attempt
        shutil.move(folder_of(run, abandoned), kept)  # to another disk, if that folder is a link
    return later


def is_whole(run: RunDir, step: int) -> bool:
    """Return whether this step has a checkpoint whose files all match their checksums."""
    try:
        return bool(load(run, step))
    except DamagedError:
        return False


def recover(run: RunDir) -> None:
    """Restore a checkpoint that was moved aside but not yet replaced when a crash came."""
    for aside in _folders(run.checkpoints, rf"\.({STEP})\.old"):
        final = run.checkpoints / aside.name.removeprefix(".").removesuffix(".old")
        if not final.exists():
            aside.rename(final)


def remove_leftovers(run: RunDir) -> None:
    """Remove the remains of checkpoints that were being written, replaced or removed during a crash."""
    for leftover in _folders(run.checkpoints, rf"\.({STEP})\.(tmp|old)"):
        _remove(leftover)


def newest(
    run: RunDir, misfit: Callable[[int, Groups], str] = lambda step, groups: ""
) -> tuple[int, Groups, list[str]]:
    """Read the newest whole checkpoint, with a line for each damaged one that was skipped.

    Args:
        run: the run.
        misfit: returns why the groups of a step do not fit the run; empty if they fit.

    Raises:
        NotFoundError: there is no whole checkpoint.
    """
    damaged: list[str] = []
    for step in reversed(steps_of_checkpoints(run)):
        try:
            return step, load_fitting(run, step, misfit), damaged
        except DamagedError as error:
            damaged.append(str(error))
    raise NotFoundError(f"{run.name}: no checkpoint to resume from{''.join(f' ({d})' for d in damaged)}")


def load_fitting(run: RunDir, step: int, misfit: Callable[[int, Groups], str]) -> Groups:
    """Read a whole checkpoint, `misfit` as for `newest`.

    Raises:
        DamagedError: as `load`, or the checkpoint does not fit the run.
    """
    groups = load(run, step)
    if why := misfit(step, groups):
        raise DamagedError(f"{folder_of(run, step)}: damaged: {why}")
    return groups


def prune(run: RunDir, keep: int, best: Iterable[int]) -> None:
    """Remove all but the newest `keep` checkpoints and the best, and abandoned ones that the run has passed."""
    steps = steps_of_checkpoints(run)
    for step in set(steps) - set(steps[-keep:]) - set(best):
        doomed = run.checkpoints / f".{step:08d}.tmp"
        _vacate(doomed)
        folder_of(run, step).rename(doomed)  # a half-removed folder is never taken for a checkpoint
        _remove(doomed)
    remove_passed(run)


def remove_passed(run: RunDir) -> None:
    """Remove abandoned checkpoints of steps that the run has passed again."""
    steps = steps_of_checkpoints(run)
    for abandoned in _folders(run.abandoned_checkpoints, STEP):
        if steps and int(abandoned.name) <= steps[-1]:
            _remove(abandoned)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors to a file, fsync it, and return its SHA-256."""
    content = save_safetensors({name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()})
    with path.open("wb") as file:
        write_all(file.fileno(), content)
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read tensors from a file, and check the file against its SHA-256 if that is known.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    with _telling(path, sha256), opened(path) as file:
        _header(file)
        _refuse_too_large(path, os.fstat(file.fileno()).st_size)
        file.seek(0)
        content = file.read()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedError(f"{path}: damaged: it differs from its checksum")
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise DamagedError(f"{path}: damaged: {error}") from None


def read_shapes(path: Path, sha256: str | None = None) -> dict[str, list[int]]:
    """Return the shapes of the tensors in a file, according to its header. Raises as `read_tensors`."""
    with _telling(path, sha256), opened(path) as file:
        return {name: list(about["shape"]) for name, about in _header(file).items()}


def verify(path: Path, sha256: str | None) -> None:
    """Check a file against its SHA-256, one piece at a time. Raises as `read_tensors`."""
    digest = hashlib.sha256()
    with _telling(path, sha256), opened(path) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
        if sha256 not in (None, digest.hexdigest()):
            raise ValueError


@contextmanager
def _telling(path: Path, sha256: str | None) -> Iterator[None]:
    """Turn errors while reading a file of tensors into DamagedError."""
    try:
        yield
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError):
        what = "its size differs from its header" if sha256 is None else "it differs from its checksum"
        raise DamagedError(f"{path}: damaged: {what}") from None


def _header(file: BinaryIO) -> dict[str, Any]:
    """Return the header of a file of tensors: the description of each tensor.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: the file's size does not fit, or it is no such file.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    header = orjson.loads(file.read(length) if length < min(size, _LONGEST_HEADER) else b"")
    tensors = {name: about for name, about in header.items() if name != "__metadata__"}
    if size != 8 + length + max((about["data_offsets"][1] for about in tensors.values()), default=0):
        raise ValueError
    return tensors


def _refuse_too_large(path: Path, size: int) -> None:
    """Refuse a file larger than the free memory: reading it could get the process killed. The file is not damaged.

    Raises:
        CmbenchError: there is too little memory.
    """
    if size > (available := psutil.virtual_memory().available):
        raise CmbenchError(f"{path}: {size:,} bytes, but only {available:,} of memory are free: not read")


def _checksums(run: RunDir, step: int) -> dict[str, str]:
    state, why = checkpoints.state(run, step)
    if why:
        raise DamagedError(f"{folder_of(run, step) / 'state.json'}: {why}")
    return state["sha256"]


def _folders(within: Path, pattern: str) -> list[Path]:
    """List the entries whose names match a pattern exactly: a folder that is a link may contain anything else."""
    try:
        return sorted(Path(entry.path) for entry in os.scandir(within) if re.fullmatch(pattern, entry.name))
    except OSError:
        return []


def _remove(folder: Path) -> None:
    """Remove a checkpoint's files and, unless it has other files, its folder. Of a link, only the link."""
    with suppress(OSError):
        if folder.is_symlink():
            folder.unlink()
            return
        for path in folder.iterdir():
            if _FILE.fullmatch(path.name) and not path.is_dir():
                path.unlink()
        folder.rmdir()


def _vacate(folder: Path) -> None:
    """Free a name: remove our files there, and move anything else to the next free name."""
    _remove(folder)
    if os.path.lexists(folder):
        names = (folder.with_name(f"{folder.name}.{i}") for i in count(1))
        folder.rename(next(name for name in names if not os.path.lexists(name)))
