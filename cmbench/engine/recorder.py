"""The write end of a run directory: rows, journal, snapshots, checkpoints and status."""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from cmbench.engine import checkpoint, environment, launched, snapshot
from cmbench.engine.film import Film
from cmbench.engine.machine import Machine
from cmbench.engine.trainer import Trainer
from cmbench.errors import FULL
from cmbench.measures import better
from cmbench.rundir import checkpoints, control, floors, layout, status
from cmbench.rundir.fields import number_of, numbers, table
from cmbench.rundir.files import make_folder, read_json, remove_temporaries
from cmbench.rundir.home import GoneError, Home
from cmbench.rundir.layout import SCHEMA, RunDir
from cmbench.rundir.log import Log, Row
from cmbench.rundir.segments import backward
from cmbench.rundir.snapshots import FIXED
from cmbench.rundir.summary import Summary

_OF_THE_MACHINE = {
    "images_per_s"
}  # metrics that differ between equal runs; apart from `train_s`, equal runs save the same
_STATUS_EVERY = 1.0  # seconds between heartbeats
_LAST_WORD = 10.0  # seconds that the last status may wait for disk space

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A written row and its file: "metrics", "profiles" or "events"."""

    stream: str
    row: Row


class Recorder:
    """Writes the course of a trainer, each row with its step, in a new segment of the run's logs.

    `abandons` means that a user gave up the rows past this step; `is_fork` means that rows begin here. A failed write
    is a warning, not an error, except for a checkpoint: rows wait for disk space.

    Attributes:
        segment: counts from 1; a resumed run opens another one.
        state: the run's state in status.json.
        reason: why the run stopped by itself.
        warnings: for the journal; the reader of the records removes and writes them.
    """

    def __init__(self, run: RunDir, trainer: Trainer, abandons: bool = False, is_fork: bool = False) -> None:
        self.trainer, self.state, self.reason = trainer, "starting", ""
        self.warnings: list[str] = []
        self._failing: set[str] = set()
        for folder in (run.checkpoints, run.snapshots, run.control):
            make_folder(folder)
        remove_temporaries(run.path, r"status\.json|(metrics|profiles|events|machine)\.jsonl|console\.log")
        remove_temporaries(run.path, r"annotations\.json", shared=True)
        remove_temporaries(run.snapshots, rf"{snapshot.NAME}|{re.escape(FIXED)}")
        remove_temporaries(run.control, control.NAME, shared=True)
        paths = (run.metrics, run.profiles, run.events)
        missing = [path.name for path in paths if not path.exists()]
        with ExitStack() as undo:
            logs = [undo.enter_context(closing(Log(path))) for path in (*paths, run.machine)]
            self.segment = 1 + max(log.last_segment() for log in logs)
            for log in logs:
                log.open_segment(self.segment, trainer.state.step + 1, abandons)
            undo.pop_all()
        self._metrics, self._profiles, self._events, self._of_machine = self._logs = logs
        self._machine = Machine(trainer.device.type == "cuda")
        self._renewed = dict.fromkeys(logs, 0)
        if missing and not is_fork and (trainer.state.step or len(missing) < len(paths)):
            self.warnings.append(f"{', '.join(missing)} had been removed: its rows up to here are gone")
        self._home, self._known = Home(run), run
        self._name_logs()
        self._decisive = trainer.recipe.evaluate.decisive
        self._summary, self._quality = told_so_far(run, trainer.state.step, self._decisive)
        self._next_status, self._images_per_s = 0.0, 0.0
        self._launch = {"launch": name} if (name := launched.name()) else {}  # torchrun's restarts look for it
        self._floors: floors.Floors = {}
        self._write_status()

    @property
    def run(self) -> RunDir:
        """The run, where its folder is now. Raises as `follow`."""
        return self.follow()

    def follow(self) -> RunDir:
        """Find the run's folder before anything is written there, and return the run.

        Raises:
            GoneError: the folder is not found.
        """
        run = self._home.find()
        if run != self._known:
            self.warnings.append(f"the run's folder was {self._known.path}, and is {run.path} now")
            self._known = run
            self._name_logs()
        return run

    def _name_logs(self) -> None:
        for log in self._logs:
            log.path = self._home.inside().path / log.path.name

    def metrics(self, values: Mapping[str, float]) -> Record:
        """Write a row of metrics.jsonl."""
        self._images_per_s = values.get("images_per_s", self._images_per_s)
        if math.isfinite(quality := values.get(self._decisive, math.nan)):
            self._quality[self.trainer.state.step] = quality
        images = self.trainer.state.step * self.trainer.recipe.train.batch_size
        record = self._append("metrics", self._metrics, {"images": images, **values})
        self._summary.add(record.row)
        return record

    def profile(self, values: Mapping[str, Sequence[float | None]]) -> Record:
        """Write a row of profiles.jsonl."""
        return self._append("profiles", self._profiles, values)

    def event(self, kind: str, **details: Any) -> Record:
        """Write a row of the journal."""
        return self._append("events", self._events, {"kind": kind, **details})

    def snapshot(self, samples: dict[int, Tensor], film: Film | None = None) -> Record:
        """Write samples, and a film, as snapshots of this step.

        Raises:
            OSError: the files cannot be written.
        """
        step, data, camera = self.trainer.state.step, self.trainer.behind_snapshots, self.trainer.camera
        files = self._there(lambda run: snapshot.write(run, step, samples, data))
        if film is not None and camera is not None:
            self._there(lambda run: camera.write(run, step, film))
        return self.event("snapshot", files=files)

    def checkpoint(self) -> Record:
        """Write a checkpoint of the present state, and remove checkpoints that the recipe does not keep.

        Raises:
            OSError: the checkpoint cannot be written.
        """
        self.follow()
        for log in self._logs:
            self.attempt(log.path.name, log.fsync)
        step, keep = self.trainer.state.step, self.trainer.recipe.checkpoint.keep
        kept = (*layout.steps_of_checkpoints(self.run), step)
        quality = {str(s): self._quality[s] for s in kept if s in self._quality}
        last = {key: value for key, value in self._summary.last.items() if key not in _OF_THE_MACHINE}
        told = {"last": last, "best": self._summary.best, "quality": quality}
        groups, train_s, data = self.trainer.saved(), self.trainer.state.train_s, self.trainer.fingerprint
        folder = self._there(lambda run: checkpoint.save(run, step, groups, told, train_s, data))
        saved = layout.steps_of_checkpoints(self.run)
        sign = -1 if better(self._decisive) == "higher" else 1
        best = sorted((s for s in saved if s in self._quality), key=lambda s: (sign * self._quality[s], s))[:1]
        self.attempt("the removal of older checkpoints", lambda: checkpoint.prune(self._home.inside(), keep, best))
        return self.event("checkpoint", folder=f"checkpoints/{folder.name}", best=step in best)

    def keep_averages(self) -> None:
        """Write a copy of the present averages, which stays.

        Raises:
            OSError: it cannot be written.
        """
        state, data = self.trainer.state, self.trainer.fingerprint
        self._there(lambda run: checkpoint.save(run.kept, state.step, state.averaged(), None, state.train_s, data))
        self.attempt("the removal of abandoned averages", lambda: checkpoint.remove_passed(self._home.inside().kept))

    def _there(self, write: Callable[[RunDir], T]) -> T:
        """Write something in the run's folder; write again if the folder was moved meanwhile."""
        run = self.follow()
        try:
            return write(self._home.inside())
        except OSError:
            if self.follow() == run:
                raise
            return write(self._home.inside())

    def attempt(self, what: str, write: Callable[[], T]) -> T | None:
        """Write something. On failure return None, and warn once until writing works again."""
        try:
            written = write()
        except OSError as error:
            if what not in self._failing:
                self._failing.add(what)
                self.warnings.append(f"{what}: cannot be written: {error.strerror or error}")
            return None
        if what in self._failing:
            self._failing.remove(what)
            self.warnings.append(f"{what}: can be written again")
        return written

    def show(self, state: str) -> None:
        """Write a new state to status.json at once. From now on the run must have a recipe."""
        self.state = state
        self._home.expect_recipe()
        self.attempt("status.json", self._write_status)

    def beat(self) -> None:
        """Write status.json if it is due."""
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + _STATUS_EVERY
            self.attempt("control", lambda: make_folder(self.run.control))
            self.attempt("status.json", self._write_status)
            if self._machine.due(self.trainer.state.train_s) and (found := self._machine.look()):
                self._append("machine", self._of_machine, found)

    def close(self) -> None:
        """Write the last status, waiting a while for disk space, and close the logs."""
        deadline = time.monotonic() + _LAST_WORD
        with suppress(GoneError):
            while not self._say_last() and time.monotonic() < deadline:
                time.sleep(0.2)
        for log in self._logs:
            log.close()
        self._home.close()

    @property
    def unwritten(self) -> str:
        """The rows that are not on the disk, in words; empty if all are."""
        lost = ((log.waiting + log.lost, log.path.name) for log in self._logs)
        rows = ", ".join(f"{n} rows of {name}" for n, name in lost if n)
        return f"could not be written: {rows}" if rows else ""

    def _say_last(self) -> bool:
        """Write the waiting rows, and the status. Return False if another attempt may help."""
        self.follow()
        full = False
        for write in (*(log.flush for log in self._logs), self._write_status):
            try:
                write()
            except OSError as error:
                full = full or error.errno in FULL
        return not full

    def _append(self, stream: str, log: Log, values: Mapping[str, Any]) -> Record:
        self.follow()
        state = self.trainer.state
        row = {"step": state.step, "time": time.time(), "train_s": state.train_s, **values}
        self.attempt(log.path.name, lambda: log.append(row))
        if log.renewed > self._renewed[log]:
            self._renewed[log] = log.renewed
            self.warnings.append(f"{log.path.name} was removed or replaced; it continues in a file of that name")
        return Record(stream, row)

    def _write_status(self) -> None:
        run, step, train = self.run, self.trainer.state.step, self.trainer.recipe.train
        saved = layout.steps_of_checkpoints(run)
        rate = self._images_per_s
        status.write(
            self._home.inside(),
            {
                "schema": SCHEMA,
                "state": self.state,
                **({"reason": self.reason} if self.reason else {}),
                **status.owner(),
                **self._launch,
                "segment": self.segment,
                "step": step,
                "of": train.steps,
                "ranks": self.trainer.ranks.size,
                "devices": environment.devices(self.trainer),
                **environment.gpus(self.trainer),
                "images": step * train.batch_size,
                "train_s": self.trainer.state.train_s,
                "images_per_s": rate,
                "eta_s": (train.steps - step) * train.batch_size / rate if rate else None,
                "checkpoint": saved[-1] if saved else None,
                "last": self._summary.last,
                "best": self._marked_best(),
            },
        )

    def _marked_best(self) -> dict[str, dict[str, Any]]:
        """Return the best of each metric, marked if it cannot be told from a perfect sampler's."""
        if self._summary.best and not self._floors:  # meta.json is written after the first status
            self._floors = floors.of_meta(read_json(self.run.meta) or {})
        within = {"is_within_floor": True}
        return {
            key: {**best, **(within if floors.is_within(self._floors, key, best["value"]) else {})}
            for key, best in self._summary.best.items()
        }


def told_so_far(run: RunDir, step: int, decisive: str) -> tuple[Summary, dict[int, float]]:
    """Return last and best of the metrics up to a step, and the decisive quality by step of the checkpoints.

    They are taken from the step's checkpoint. Checkpoints of earlier versions lack them: then all rows are read,
    newest first.
    """
    state, why = checkpoints.state(run, step)
    if not why and (told := table(state.get("told"))):
        kept = numbers(told.get("quality"))
        return Summary.of(told), {int(s): value for s, value in kept.items() if re.fullmatch("[0-9]{1,15}", s)}
    summary, quality = Summary(), dict[int, float]()
    for rows in backward(run.metrics):  # in pieces: all rows of a long run would fill the memory
        summary.add_before(rows)
        for row in (row for row in reversed(rows) if decisive in row):
            if (value := number_of(row[decisive])) is not None:
                quality.setdefault(row["step"], value)
    return summary, quality
