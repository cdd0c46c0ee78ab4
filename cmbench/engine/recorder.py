"""The write end of a run directory: rows, journal, snapshots, checkpoints and status."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cmbench.engine import checkpoint, snapshot
from cmbench.engine.trainer import Trainer
from cmbench.measures import better
from cmbench.rundir import layout, status
from cmbench.rundir.fields import number_of
from cmbench.rundir.files import remove_temporaries
from cmbench.rundir.layout import SCHEMA, RunDir
from cmbench.rundir.log import Log, Row, backward
from cmbench.rundir.summary import Summary

_STATUS_EVERY = 1.0  # seconds between heartbeats


@dataclass(frozen=True)
class Record:
    """A row as it was written, and the file it went to: "metrics", "profiles" or "events"."""

    stream: str
    row: Row


class Recorder:
    """Writes what becomes of a trainer, each row with its step, in a new segment of the run's logs.

    `abandons` says that what earlier segments have past this step comes no more.

    Attributes:
        segment: counts from 1; a resumed run opens another one.
        state: what status.json says of the run.
    """

    def __init__(self, run: RunDir, trainer: Trainer, abandons: bool = False) -> None:
        self.run, self.trainer, self.state = run, trainer, "starting"
        logs = [Log(path) for path in (run.metrics, run.profiles, run.events)]
        self.segment = 1 + max(log.last_segment() for log in logs)
        for log in logs:
            log.open_segment(self.segment, trainer.state.step + 1, abandons)
        self._metrics, self._profiles, self._events = self._logs = logs
        self._summary, self._decisive = Summary(), trainer.recipe.evaluate.decisive
        self._quality = dict[int, float]()
        for rows in backward(run.metrics):  # of a long run, all of them would fill the memory
            self._summary.add_before(rows)
            for row in (row for row in reversed(rows) if self._decisive in row):
                if (value := number_of(row[self._decisive])) is not None:
                    self._quality.setdefault(row["step"], value)
        self._next_status, self._images_per_s = 0.0, 0.0
        for folder in (run.path, run.snapshots, run.control):
            remove_temporaries(folder)

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

    def snapshot(self, samples: dict[int, Tensor]) -> Record:
        """Write samples as snapshots of this step."""
        return self.event("snapshot", files=snapshot.write(self.run, self.trainer.state.step, samples))

    def checkpoint(self) -> Record:
        """Write a checkpoint of the state as it is now, and remove those that the recipe does not keep."""
        for log in self._logs:
            log.fsync()
        step, keep = self.trainer.state.step, self.trainer.recipe.checkpoint.keep
        folder = checkpoint.save(self.run, step, self.trainer.state.groups())
        saved = layout.steps_of_checkpoints(self.run)
        sign = -1 if better(self._decisive) == "higher" else 1
        best = sorted((s for s in saved if s in self._quality), key=lambda s: (sign * self._quality[s], s))[:1]
        checkpoint.prune(self.run, keep, best)
        return self.event("checkpoint", folder=f"checkpoints/{folder.name}", best=step in best)

    def show(self, state: str) -> None:
        """Write a new state to status.json at once."""
        self.state = state
        self._write_status()

    def beat(self) -> None:
        """Write status.json, if it is time to."""
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + _STATUS_EVERY
            self._write_status()

    def close(self) -> None:
        """Write the last status and close the logs."""
        self._write_status()
        for log in self._logs:
            log.close()

    def _append(self, stream: str, log: Log, values: Mapping[str, Any]) -> Record:
        row = {"step": self.trainer.state.step, "time": time.time(), **values}
        log.append(row)
        return Record(stream, row)

    def _write_status(self) -> None:
        step, train = self.trainer.state.step, self.trainer.recipe.train
        saved = layout.steps_of_checkpoints(self.run)
        rate = self._images_per_s
        status.write(
            self.run,
            {
                "schema": SCHEMA,
                "state": self.state,
                **status.owner(),
                "segment": self.segment,
                "step": step,
                "of": train.steps,
                "images": step * train.batch_size,
                "images_per_s": rate,
                "eta_s": (train.steps - step) * train.batch_size / rate if rate else None,
                "checkpoint": saved[-1] if saved else None,
                "last": self._summary.last,
                "best": self._summary.best,
            },
        )
