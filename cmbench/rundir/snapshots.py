"""The snapshots of a run, and the quality of its model at their steps."""

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cmbench.measures import better, quality_keys, sampler_steps
from cmbench.rundir.fields import number_of
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import that_count

FIXED = "fixed.safetensors"  # inputs of f at every snapshot, and the answers it should give
FILM, PLANE = "{:08d}_film.safetensors", "{:08d}_plane.safetensors"  # its answers at a step
TRAJECTORIES = ("exact", "teacher", "noised")  # whose trajectory: the data's, the teacher's, or none

_NAME = re.compile(r"([0-9]{1,15})_([0-9]{1,6})step\.png")
_ANSWERS = re.compile(r"([0-9]{1,15})_(film|plane)\.safetensors")
_Stamp = tuple[int, int]  # time of change in nanoseconds, and size


class SnapshotFile(NamedTuple):
    """A picture, and the file of its points if there is one. The stamps tell it from a file that replaces it."""

    picture: Path
    points: Path | None
    stamps: tuple[_Stamp, ...]


class AnswerFile(NamedTuple):
    """The answers of f at fixed inputs, and the file of these inputs."""

    answers: Path
    fixed: Path
    stamps: tuple[_Stamp, ...]


@dataclass(frozen=True)
class Album:
    """The snapshots of a run by step and number of sampler steps, and the quality by the same keys.

    `measure` is the name of the quality in a row's key, e.g. "sw". `films` and `planes` are the answers of f at fixed
    inputs, by step; runs of earlier versions have none.
    """

    files: Mapping[int, Mapping[int, SnapshotFile]] = field(default_factory=dict)
    quality: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    journal_best: int | None = None
    measure: str = "sw"
    films: Mapping[int, AnswerFile] = field(default_factory=dict)
    planes: Mapping[int, AnswerFile] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """The steps that have snapshots, ascending."""
        return sorted(self.files)

    @property
    def sampler_steps(self) -> list[int]:
        """Every number of sampler steps of any snapshot, ascending."""
        return sorted({k for files in self.files.values() for k in files})

    @property
    def best(self) -> int | None:
        """The step of the journal's best checkpoint; if it has no snapshot, the best step that has one."""
        if self.journal_best in self.files:
            return self.journal_best
        figures = {step: self.quality[step][min(self.quality[step])] for step in self.files if step in self.quality}
        choose = max if better(self.measure) == "higher" else min
        return choose(figures, key=figures.__getitem__, default=None)

    def nearest(self, step: int) -> int | None:
        """Return the step with snapshots that is nearest to `step`."""
        return min(self.files, key=lambda s: (abs(s - step), s), default=None)


class AlbumReader:
    """Reads a run's album repeatedly; from the logs it reads only new rows."""

    def __init__(self, run: RunDir) -> None:
        self._folder = run.snapshots
        self._metrics, self._events = Tail(run.metrics), Tail(run.events)
        self._figures: list[Row] = []
        self._checkpoints: list[Row] = []

    def read(self) -> Album:
        """Return the current album; equal to the last one if nothing changed."""
        self._figures = _go_on(self._figures, self._metrics, lambda key: bool(quality_keys([key])))
        best = _go_on(self._checkpoints, self._events, lambda key: key == "best")
        self._checkpoints = [row for row in best if row["best"] is True]
        keys = quality_keys({key for row in self._figures for key in row})
        quality = {row["step"]: own for row in self._figures if (own := _quality_of(row, keys))}
        journal_best = self._checkpoints[-1]["step"] if self._checkpoints else None
        measure = keys[0].rpartition("_")[0] if keys else "sw"
        return Album(files_of(self._folder), quality, journal_best, measure, **answers_of(self._folder))


def _go_on(rows: list[Row], tail: Tail, tells: Callable[[str], bool]) -> list[Row]:
    """Return the rows that count and have a key that `tells` accepts; `rows` are those of the last look."""
    for piece in tail.pieces():
        keys = {"first_step", *filter(tells, set().union(*piece))}
        if new := [row for row in piece if not keys.isdisjoint(row)]:
            rows = that_count([*rows, *new])
    return rows


def _quality_of(row: Row, keys: Sequence[str]) -> dict[int, float]:
    named = ((sampler_steps(key), row.get(key)) for key in keys)
    return {steps: number for steps, value in named if steps and (number := number_of(value)) is not None}


def files_of(folder: Path) -> dict[int, dict[int, SnapshotFile]]:
    """Return the snapshots in a folder by step and number of sampler steps."""
    stamps = _stamps(folder)
    files: dict[int, dict[int, SnapshotFile]] = {}
    for name in sorted(stamps):
        if match := _NAME.fullmatch(name):
            points = name.removesuffix("png") + "safetensors"
            beside = folder / points if points in stamps else None
            both = tuple(stamps[n] for n in (name, points) if n in stamps)
            files.setdefault(int(match[1]), {})[int(match[2])] = SnapshotFile(folder / name, beside, both)
    return files


def answers_of(folder: Path) -> dict[str, dict[int, AnswerFile]]:
    """Return the answers of f by step: "films" along trajectories and "planes" of latents."""
    stamps, found = _stamps(folder), {"films": dict[int, AnswerFile](), "planes": dict[int, AnswerFile]()}
    for name in sorted(stamps):
        if (match := _ANSWERS.fullmatch(name)) and FIXED in stamps:
            both = (stamps[name], stamps[FIXED])
            found[f"{match[2]}s"][int(match[1])] = AnswerFile(folder / name, folder / FIXED, both)
    return found


def has_any(folder: Path) -> bool:
    """Return whether a folder has snapshots; the search ends at the first one."""
    try:
        with os.scandir(folder) as entries:
            return any(_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False) for entry in entries)
    except OSError:
        return False


def _stamps(folder: Path) -> dict[str, _Stamp]:
    stamps = {}
    try:
        for entry in os.scandir(folder):
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # removed in between
            if stat.S_ISREG(found.st_mode):  # a pipe would make its reader wait for ever
                stamps[entry.name] = (found.st_mtime_ns, found.st_size)
    except OSError:
        pass
    return stamps
