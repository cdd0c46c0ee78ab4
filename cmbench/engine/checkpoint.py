"""Checkpoints: a folder of safetensors files and a state.json with their checksums. No pickle is ever read."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import orjson
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cmbench.engine.state import Groups
from cmbench.errors import NotFoundError
from cmbench.rundir import checkpoints
from cmbench.rundir.files import fsync_folder, opened, to_json, write_atomically
from cmbench.rundir.layout import SCHEMA, RunDir, steps_of_checkpoints

_LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one


class DamagedError(NotFoundError):
    """A checkpoint whose files are missing or do not match their checksums."""


def folder_of(run: RunDir, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return run.checkpoint(step)


def save(run: RunDir, step: int, groups: Groups) -> Path:
    """Write a checkpoint: to a temporary folder, fsynced, then renamed. A crash leaves the old ones alone."""
    final = folder_of(run, step)
    temporary = run.checkpoints / f".{step:08d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    checksums = {name: write_tensors(temporary / f"{name}.safetensors", group) for name, group in groups.items()}
    state = {"schema": SCHEMA, "step": step, "sha256": checksums}
    write_atomically(temporary / "state.json", to_json(state, indent=True))
    if final.exists():  # trained again after a resume from an earlier step
        aside = run.checkpoints / f".{step:08d}.old"
        shutil.rmtree(aside, ignore_errors=True)
        final.rename(aside)
    temporary.rename(final)
    fsync_folder(run.checkpoints)
    _remove_leftovers(run)
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
    path = folder_of(run, step) / f"{group}.safetensors"
    return read_tensors(path, _checksums(run, step).get(group))


def averages(run: RunDir, step: int) -> list[str]:
    """List the lengths of the averages that a checkpoint holds, in the recipe's order, e.g. ["0.999"].

    Raises:
        DamagedError: its state.json is missing or broken.
    """
    return checkpoints.averages(_checksums(run, step))


def set_aside_after(run: RunDir, step: int) -> None:
    """Rename the checkpoints after `step`, found damaged, so that none of them is taken for the newest."""
    for damaged in (s for s in steps_of_checkpoints(run) if s > step):
        aside = run.checkpoints / f"{damaged:08d}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        folder_of(run, damaged).rename(aside)


def abandon_after(run: RunDir, step: int) -> list[int]:
    """Move the checkpoints after `step` out of the run's line, to checkpoints/abandoned/, and return their steps.

    The newest goes first: whatever a crash leaves, the ruined end of the run is not taken for its newest checkpoint.
    They stay until `prune` sees a checkpoint of their step or a later one.
    """
    later = [s for s in steps_of_checkpoints(run) if s > step]
    for abandoned in reversed(later):
        run.abandoned_checkpoints.mkdir(exist_ok=True)
        kept = run.abandoned_checkpoints / f"{abandoned:08d}"
        shutil.rmtree(kept, ignore_errors=True)  # of an attempt before this one
        folder_of(run, abandoned).rename(kept)
    return later


def is_whole(run: RunDir, step: int) -> bool:
    """Return whether there is a checkpoint of this step and all its files match their checksums."""
    try:
        return bool(load(run, step))
    except DamagedError:
        return False


def recover(run: RunDir) -> None:
    """Put back a checkpoint that a crash caught between leaving its place and being replaced."""
    for aside in run.checkpoints.glob(".*.old"):
        final = run.checkpoints / aside.name.removeprefix(".").removesuffix(".old")
        if not final.exists():
            aside.rename(final)


def newest(run: RunDir) -> tuple[int, Groups, list[str]]:
    """Read the newest checkpoint that is whole, with a line for each damaged one that was passed over.

    Raises:
        NotFoundError: there is none.
    """
    damaged: list[str] = []
    for step in reversed(steps_of_checkpoints(run)):
        try:
            return step, load(run, step), damaged
        except DamagedError as error:
            damaged.append(str(error))
    raise NotFoundError(f"{run.name}: no checkpoint to resume from{''.join(f' ({d})' for d in damaged)}")


def prune(run: RunDir, keep: int, best: Iterable[int]) -> None:
    """Remove all but the newest `keep` checkpoints and the best, and abandoned ones that the run has passed."""
    steps = steps_of_checkpoints(run)
    for step in set(steps) - set(steps[-keep:]) - set(best):
        doomed = run.checkpoints / f".{step:08d}.tmp"
        folder_of(run, step).rename(doomed)  # a half-removed folder is never taken for a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)
    for abandoned in run.abandoned_checkpoints.glob("[0-9]*"):
        if steps and re.fullmatch("[0-9]{8,15}", abandoned.name) and int(abandoned.name) <= steps[-1]:
            shutil.rmtree(abandoned, ignore_errors=True)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Write tensors to a file, fsync it, and return its SHA-256."""
    content = save_safetensors({name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()})
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read tensors from a file and check it against its SHA-256, where one is known.

    Raises:
        DamagedError: the file is missing or not what was written.
    """
    try:
        content = _content(path)
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, LookupError, AttributeError):
        what = "its size is not what it says of itself" if sha256 is None else "it differs from its checksum"
        raise DamagedError(f"{path}: damaged: {what}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedError(f"{path}: damaged: it differs from its checksum")
    try:
        return load_safetensors(content)
    except SafetensorError as error:
        raise DamagedError(f"{path}: damaged: {error}") from None


def _content(path: Path) -> bytes:
    """Return what stands in a file of tensors, unless it is larger than these.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is, or is no such file.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        header = orjson.loads(file.read(length) if length < min(size, _LONGEST_HEADER) else b"")
        ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
        if size != 8 + length + max(ends, default=0):
            raise ValueError
        file.seek(0)
        return file.read()


def _checksums(run: RunDir, step: int) -> dict[str, str]:
    if (found := checkpoints.checksums(run, step)) is None:
        raise DamagedError(f"{folder_of(run, step) / 'state.json'}: missing or broken")
    return found


def _remove_leftovers(run: RunDir) -> None:
    for leftover in run.checkpoints.glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)
