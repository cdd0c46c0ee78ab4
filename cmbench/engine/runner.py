"""A trainer in a run directory: the one writer of its files."""

import math
import shutil
import socket
import time
import traceback
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from torch import Tensor

from cmbench import recipe as recipes
from cmbench.engine import checkpoint, environment, loop, snapshot, trainer, watch
from cmbench.engine.requests import Requests
from cmbench.engine.start import Start
from cmbench.engine.trainer import Trainer
from cmbench.errors import STOPPED, ConflictError, DivergedError, NotFoundError, writing
from cmbench.rundir import control, layout, settings, status
from cmbench.rundir.files import read_json, remove_temporaries, to_json, write_atomically
from cmbench.rundir.layout import SCHEMA, RunDir
from cmbench.rundir.log import Log, Row, Tail, read_rows
from cmbench.rundir.select import address, runs_folder
from cmbench.rundir.summary import Summary

_STATUS_EVERY = 1.0  # seconds between heartbeats


@dataclass(frozen=True)
class Record:
    """A row as it was written, and the file it went to: "metrics", "profiles" or "events"."""

    stream: str
    row: Row


@dataclass
class Runner:
    """Trains in a run directory and writes everything there. Holds the run's lock until it ends.

    `warnings` are for the journal; `ahead` are settings to be made at their steps, as `Requests` takes them.
    """

    run: RunDir
    trainer: Trainer
    lock: filelock.BaseFileLock
    segment: int = 1
    stop_requested: str = ""
    exit_code: int = 0
    state: str = "starting"
    warnings: Sequence[str] = ()
    ahead: Sequence[Row] = ()
    _next_status: float = 0.0
    _images_per_s: float = 0.0

    def records(self) -> Iterator[Record]:
        """Train to the end, or until `request_stop`; yield each row after it is written. Sets `exit_code`.

        Raises:
            DivergedError: loss or gradient was not finite; a checkpoint of the last good state was written.
        """
        try:
            self.state = "running"
            yield self.event("started" if self.segment == 1 else "resumed", **environment.here(self.trainer))
            if self.trainer.start is not None and self.trainer.state.step == 0:
                yield self._initialised(self.trainer.start)
            for line in self.warnings:
                yield self.event("warning", text=line)
            if (yield from self._must_stop()):
                return
            for event in loop.train(self.trainer):
                yield from self._write(event)
                if isinstance(event, loop.Stepped) and (yield from self._must_stop()):
                    return
            yield from self._requests.refuse("the run has finished")
            self.state = "finished"
            yield self.event("finished")
        except GeneratorExit:  # whoever asked for records asks for no more
            self.request_stop("left")
            list(self._stop())
            raise
        except DivergedError:
            raise
        except BaseException as error:
            self.state, self.exit_code = "failed", 1
            self.event("failed", error=f"{type(error).__name__}: {error}")
            with self.run.console.open("a", encoding="utf-8") as console:
                traceback.print_exc(file=console)
            raise
        finally:
            self.close()

    def request_stop(self, reason: str) -> None:
        """Stop after the step in progress, with a checkpoint. Safe to call from a signal handler."""
        self.stop_requested = reason

    def close(self) -> None:
        """Write the last status and let go of the run."""
        self._write_status()
        for log in (self._metrics, self._profiles, self._events):
            log.close()
        self.lock.release()

    def __post_init__(self) -> None:
        """Open the run's logs in a new segment and say that the run is live."""
        logs = [Log(path) for path in (self.run.metrics, self.run.profiles, self.run.events)]
        self.segment = 1 + max(log.last_segment() for log in logs)
        for log in logs:
            log.open_segment(self.segment, first_step=self.trainer.state.step + 1)
        self._metrics, self._profiles, self._events = logs
        rows = read_rows(self.run.metrics)
        self._summary = Summary(rows)
        self._spikes = watch.SpikeWatch(read_rows(self.run.profiles))
        self._quality = {row["step"]: row[self._quality_key] for row in rows if row.get(self._quality_key) is not None}
        for folder in (self.run.path, self.run.snapshots, self.run.control):
            remove_temporaries(folder)
        self._requests = Requests(self, self.ahead)
        list(self._requests.refuse("the run was not live"))  # meant for a trainer that is no more
        self._write_status()

    @property
    def _is_complete(self) -> bool:
        return self.trainer.state.step >= self.trainer.recipe.train.steps

    @property
    def _edges(self) -> list[float]:
        return self.trainer.state.profile.edges.tolist()

    @property
    def _quality_key(self) -> str:
        return f"sw_{self.trainer.recipe.evaluate.steps[0]}step"

    def _write(self, event: loop.Event) -> Iterator[Record]:
        match event:
            case loop.Metrics(values=values):
                self._images_per_s = values["images_per_s"]
                yield self._row(values)
            case loop.Profiled(values=values):
                yield self._profile_row(values)
                if jumps := self._spikes.look(values):
                    yield self.event("warning", text=watch.described(jumps, self._edges), bins=list(jumps))
            case loop.Evaluated(values=values, profile=profile):
                if math.isfinite(quality := values[self._quality_key]):
                    self._quality[event.step] = quality
                yield self._row(values)
                if profile:
                    yield self._profile_row(profile)
            case loop.Snapshotted(samples=samples):
                yield self.draw(samples)
            case loop.CheckpointDue():
                yield self.save()
            case loop.Diverged():
                yield from self._diverge(event)
        self.beat()

    def _row(self, values: dict[str, float]) -> Record:
        step = self.trainer.state.step
        images = step * self.trainer.recipe.train.batch_size
        row = {"step": step, "time": time.time(), "images": images, **values}
        self._metrics.append(row)
        self._summary.add(row)
        return Record("metrics", row)

    def _initialised(self, start: Start) -> Record:
        source = environment.source(start.trained)
        return self.event("initialised", source=source, error=start.error)

    def _profile_row(self, values: Mapping[str, Sequence[float | None]]) -> Record:
        row = {"step": self.trainer.state.step, "time": time.time(), **values}
        self._profiles.append(row)
        return Record("profiles", row)

    def event(self, kind: str, **details: Any) -> Record:
        """Write a row of the journal."""
        row = {"step": self.trainer.state.step, "time": time.time(), "kind": kind, **details}
        self._events.append(row)
        return Record("events", row)

    def draw(self, samples: dict[int, Tensor]) -> Record:
        """Write snapshots of the state as it is now."""
        return self.event("snapshot", files=snapshot.write(self.run, self.trainer.state.step, samples))

    def save(self) -> Record:
        """Write a checkpoint of the state as it is now, and remove those that the recipe does not keep."""
        for log in (self._metrics, self._profiles, self._events):
            log.fsync()
        step, keep = self.trainer.state.step, self.trainer.recipe.checkpoint.keep
        folder = checkpoint.save(self.run, step, self.trainer.state.groups())
        saved = layout.steps_of_checkpoints(self.run)
        best = sorted((s for s in saved if s in self._quality), key=lambda s: (self._quality[s], s))[:1]
        checkpoint.prune(self.run, keep, best)
        return self.event("checkpoint", folder=f"checkpoints/{folder.name}", best=step in best)

    def _checkpoint_unless_whole(self) -> Iterator[Record]:
        if not checkpoint.is_whole(self.run, self.trainer.state.step):
            yield self.save()

    def _diverge(self, event: loop.Diverged) -> Iterator[Record]:
        self.state, self.exit_code = "diverged", DivergedError.exit_code
        yield from self._checkpoint_unless_whole()
        bins = sorted({bisect_right(self._edges[1:-1], t) for t in event.times})
        norm = {} if event.tangent_norm is None else {"tangent_norm": event.tangent_norm}
        yield self.event("diverged", what=event.what, times=event.times, bins=bins, **norm)
        raise DivergedError(
            f"{self.run.name}: the {event.what} of step {self.trainer.state.step + 1} is not finite; "
            f"the last good state is checkpoint {self.trainer.state.step}"
        )

    def _must_stop(self) -> Generator[Record, None, bool]:
        """Grant what was asked for between two steps; stop where that was asked, and return whether it was."""
        if self._is_complete:
            return False
        yield from self._requests.between_steps()
        if self.stop_requested:
            yield from self._stop()
        return bool(self.stop_requested)

    def _stop(self) -> Iterator[Record]:
        yield from self._checkpoint_unless_whole()
        yield from self._requests.refuse("the run has stopped")
        self.state, self.exit_code = "stopped", STOPPED
        yield self.event("stopped", reason=self.stop_requested)

    def show_state(self, state: str) -> None:
        """Write a new state to status.json at once."""
        self.state = state
        self._write_status()

    def beat(self) -> None:
        """Write status.json, if it is time to."""
        now = time.monotonic()
        if now >= self._next_status:
            self._next_status = now + _STATUS_EVERY
            self._write_status()

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


def create(recipe_file: Path, overrides: Sequence[str], runs_dir: Path | None, argv: Sequence[str]) -> Runner:
    """Build a recipe and make a run directory for it. Nothing is written before everything is built.

    Raises:
        UsageError: something in the recipe is not allowed, or the runs folder cannot be written.
        NotFoundError: the teacher's run does not exist.
    """
    environment.make_reproducible()
    built = trainer.from_file(recipe_file, overrides, runs_dir)
    source = recipe_file.read_text(encoding="utf-8") + "".join(f"\n# --set {override}" for override in overrides)
    meta = environment.meta(built, argv)
    run = layout.create(runs_folder(runs_dir), built.recipe.name)
    with writing(run.path), ExitStack() as undo:
        undo.callback(shutil.rmtree, run.path, ignore_errors=True)
        runner = Runner(run, built, _locked(run))
        undo.callback(runner.close)
        write_atomically(run.meta, to_json(meta, indent=True))
        write_atomically(run.recipe_source, source.encode())
        if built.teacher is not None:
            built.teacher.save(run.teacher)
        if built.recipe.start is not None and built.start is not None:
            built.start.trained.save(run.start)
        write_atomically(run.recipe, recipes.dumps(built.recipe).encode())  # last: from here on it is a run
        layout.point_latest(run)
        undo.pop_all()
    return runner


def resume(run: RunDir, runs_dir: Path | None = None, changes: Mapping[str, Any] | None = None) -> Runner:
    """Take a run up from its newest whole checkpoint, or from its first step where it has none yet.

    Settings that it was given while it trained are part of it: those up to the checkpoint are in force, later ones
    are made again at their steps.

    Args:
        run: the run.
        runs_dir: where its teacher's run is looked for.
        changes: settings such as {"optimizer.lr": 1e-4} from the next step on, also in place of later ones.

    Raises:
        ConflictError: the run is live, or finished.
        NotFoundError: every checkpoint is damaged.
        UsageError: the run cannot be written, or a change is not allowed.
    """
    lock = _locked(run)
    try:
        now = status.read(run)
        if now["state"] in status.LIVE and now.get("host") not in (None, socket.gethostname()):
            raise ConflictError(f"{run.name}: a trainer on {now['host']} works on this run, or did until lately")
        if now["state"] == "finished":
            raise ConflictError(f"{run.name}: already finished at step {now['step']}")
        meta = read_json(run.meta) or {}
        environment.make_reproducible(meta.get("threads"))
        built = trainer.from_recipe(recipes.load(run.recipe), str(run.recipe), runs_dir, kept=run)
        built.steered(changes or {}, run.name)
        with writing(run.path):
            checkpoint.recover(run)
            damaged = _load_newest(run, built)
            ahead = _steer_as_before(run, built, changes or {})
            return Runner(run, built, lock, warnings=[*damaged, *environment.differences(meta, built)], ahead=ahead)
    except BaseException:
        lock.release()
        raise


def _load_newest(run: RunDir, built: Trainer) -> list[str]:
    """Load the newest whole checkpoint into the state, and return a line for each damaged one, which is set aside."""
    if not layout.steps_of_checkpoints(run):
        if any(row["kind"] == "checkpoint" for row in read_rows(run.events)):
            raise NotFoundError(f"{run.name}: its checkpoints are gone")
        return []
    step, groups, damaged = checkpoint.newest(run)
    checkpoint.set_aside_after(run, step)
    built.state.load(step, groups)
    return [f"{line}; the checkpoint of step {step} is used" for line in damaged]


def _steer_as_before(run: RunDir, built: Trainer, changes: Mapping[str, Any]) -> list[Row]:
    """Put the settings in force that led to the checkpoint, and return those to come: earlier ones, then `changes`."""
    step = built.state.step
    made, ahead = settings.at(Tail(run.events).read(), step)
    for row in made:
        built.steer(row["settings"], f"{run.events}, step {row['step']}")
    ahead = [{**row, "replayed": True} for row in ahead]
    if changes:
        ahead.append({"id": control.new_id(), "step": step, "settings": dict(changes)})
    return sorted(ahead, key=lambda row: row["step"])


def _locked(run: RunDir) -> filelock.BaseFileLock:
    """Take the run's lock, which the system frees however the process ends."""
    lock = filelock.FileLock(run.lock)
    with writing(run.lock):
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConflictError(f"{run.name}: a trainer works on this run (cmbench watch {address(run)})") from None
    return lock
