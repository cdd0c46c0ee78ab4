"""A trainer in a run directory: started, resumed, stopped."""

import shutil
import socket
import traceback
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from cmbench import recipe as recipes
from cmbench.engine import checkpoint, environment, loop, snapshot, trainer, watch
from cmbench.engine.recorder import Record, Recorder
from cmbench.engine.requests import Requests
from cmbench.engine.trainer import Trainer
from cmbench.errors import STOPPED, ConflictError, DivergedError, NotFoundError, writing
from cmbench.rundir import control, layout, settings, status
from cmbench.rundir.fields import whole
from cmbench.rundir.files import read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log, Row, Tail, newest
from cmbench.rundir.select import address, runs_folder


@dataclass
class Runner:
    """Trains in a run directory and writes everything there. Holds the run's lock until it ends.

    `warnings` are for the journal; `ahead` are settings to be made at their steps, as `Requests` takes them;
    `abandoned` are the checkpoints past the one that the run was taken up from by choice, None without such a choice.
    """

    run: RunDir
    trainer: Trainer
    lock: filelock.BaseFileLock
    warnings: Sequence[str] = ()
    ahead: Sequence[Row] = ()
    abandoned: Sequence[int] | None = None
    stop_requested: str = ""
    exit_code: int = 0

    def __post_init__(self) -> None:
        """Open the run's logs and say that the run is live."""
        self.recorder = Recorder(self.run, self.trainer, abandons=self.abandoned is not None)
        self._spikes = watch.SpikeWatch(newest(self.run.profiles))
        self._requests = Requests(self, self.ahead)
        list(self._requests.refuse("the run was not live"))  # meant for a trainer that is no more
        self.recorder.show("starting")

    def records(self) -> Iterator[Record]:
        """Train to the end, or until `request_stop`; yield each row after it is written. Sets `exit_code`.

        Raises:
            DivergedError: loss or gradient was not finite; a checkpoint of the last good state was written.
        """
        journal = self.recorder.event
        try:
            self.recorder.show("running")
            chosen = {} if self.abandoned is None else {"chosen": True, "abandoned": list(self.abandoned)}
            how = "started" if self.recorder.segment == 1 else "resumed"
            yield journal(how, **chosen, **environment.here(self.trainer))
            if (start := self.trainer.start) is not None and self.trainer.state.step == 0:
                yield journal("initialised", source=environment.source(start.trained), error=start.error)
            for line in self.warnings:
                yield journal("warning", text=line)
            if (yield from self._must_stop()):
                return
            for event in loop.train(self.trainer):
                yield from self._write(event)
                if isinstance(event, loop.Stepped) and (yield from self._must_stop()):
                    return
            yield from self._requests.refuse("the run has finished")
            self.recorder.state = "finished"
            yield journal("finished")
        except GeneratorExit:  # whoever asked for records asks for no more
            self.request_stop("left")
            list(self._stop())
            raise
        except DivergedError:
            raise
        except BaseException as error:
            self.recorder.state, self.exit_code = "failed", 1
            journal("failed", error=f"{type(error).__name__}: {error}")
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
        self.recorder.close()
        self.lock.release()

    @property
    def _edges(self) -> list[float]:
        return self.trainer.state.profile.edges.tolist()

    def _write(self, event: loop.Event) -> Iterator[Record]:
        match event:
            case loop.Metrics(values=values):
                yield self.recorder.metrics(values)
            case loop.Profiled(values=values):
                yield self.recorder.profile(values)
                if jumps := self._spikes.look(values):
                    text = watch.described(jumps, self._edges)
                    yield self.recorder.event("warning", text=text, bins=list(jumps))
            case loop.Evaluated(values=values, profile=profile):
                yield self.recorder.metrics(values)
                if profile:
                    yield self.recorder.profile(profile)
            case loop.Snapshotted(samples=samples):
                yield self.recorder.snapshot(samples)
            case loop.CheckpointDue():
                yield self.recorder.checkpoint()
            case loop.Diverged():
                yield from self._diverge(event)
        self.recorder.beat()

    def _must_stop(self) -> Generator[Record, None, bool]:
        """Grant what was asked for between two steps; stop where that was asked, and return whether it was."""
        if self.trainer.state.step >= self.trainer.recipe.train.steps:
            return False
        yield from self._requests.between_steps()
        if self.stop_requested:
            yield from self._stop()
        return bool(self.stop_requested)

    def _stop(self) -> Iterator[Record]:
        yield from self._checkpoint_unless_whole()
        yield from self._requests.refuse("the run has stopped")
        self.recorder.state, self.exit_code = "stopped", STOPPED
        yield self.recorder.event("stopped", reason=self.stop_requested)

    def _diverge(self, event: loop.Diverged) -> Iterator[Record]:
        self.recorder.state, self.exit_code = "diverged", DivergedError.exit_code
        yield from self._checkpoint_unless_whole()
        bins = sorted({bisect_right(self._edges[1:-1], t) for t in event.times})
        norm = {} if event.tangent_norm is None else {"tangent_norm": event.tangent_norm}
        yield self.recorder.event("diverged", what=event.what, times=event.times, bins=bins, **norm)
        raise DivergedError(
            f"{self.run.name}: the {event.what} of step {self.trainer.state.step + 1} is not finite; "
            f"the last good state is checkpoint {self.trainer.state.step}"
        )

    def _checkpoint_unless_whole(self) -> Iterator[Record]:
        if not checkpoint.is_whole(self.run, self.trainer.state.step):
            yield self.recorder.checkpoint()


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


def resume(
    run: RunDir, runs_dir: Path | None = None, changes: Mapping[str, Any] | None = None, step: int | None = None
) -> Runner:
    """Take a run up from its newest whole checkpoint, or from its first step where it has none yet.

    Settings that it was given while it trained are part of it: those up to the checkpoint are in force, later ones
    are made again at their steps.

    With a `step` it is taken up from that checkpoint, and what lies past it is abandoned: rows are superseded as after
    a crash, later settings are not made again, now or by any later resume, and later checkpoints and snapshots go to
    folders named abandoned, where neither `latest` nor a resume looks. An abandoned checkpoint is removed once the run
    has a checkpoint of its step or past it.

    Args:
        run: the run.
        runs_dir: where its teacher's run is looked for.
        changes: settings such as {"optimizer.lr": 1e-4} from the next step on, also in place of later ones.
        step: of the checkpoint to go back to; None takes the newest and abandons nothing.

    Raises:
        ConflictError: the run is live, or finished.
        NotFoundError: every checkpoint is damaged, or that of `step` is damaged or not there.
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
            step = _unfinished(run) if step is None else step
            if step is None:
                damaged = _load_newest(run, built)
            else:
                damaged = []
                built.state.load(step, checkpoint.load(run, step))
            ahead = _steer_as_before(run, built, changes or {}, abandons=step is not None)
            abandoned = None if step is None else _abandon(run, step)
            warnings = [*damaged, *environment.differences(meta, built)]
            return Runner(run, built, lock, warnings, ahead, abandoned)
    except BaseException:
        lock.release()
        raise


def _load_newest(run: RunDir, built: Trainer) -> list[str]:
    """Load the newest whole checkpoint into the state, and return a line for each damaged one, which is set aside."""
    if not layout.steps_of_checkpoints(run):
        if any(row.get("kind") == "checkpoint" for row in newest(run.events)):
            raise NotFoundError(f"{run.name}: its checkpoints are gone")
        return []
    step, groups, damaged = checkpoint.newest(run)
    checkpoint.set_aside_after(run, step)
    built.state.load(step, groups)
    return [f"{line}; the checkpoint of step {step} is used" for line in damaged]


def _abandon(run: RunDir, step: int) -> list[int]:
    """Set aside what lies past a step, and return the steps of its checkpoints.

    The journal says so first: whatever is killed from here on, any later resume goes back to this step as well.
    """
    journal = Log(run.events)
    journal.open_segment(journal.last_segment() + 1, step + 1, abandons=True)
    journal.fsync()
    journal.close()
    abandoned = checkpoint.abandon_after(run, step)
    snapshot.abandon_after(run, step)
    return abandoned


def _unfinished(run: RunDir) -> int | None:
    """Return the step that a resume was going back to by choice when it was killed, before it said `resumed`."""
    step = None
    for row in Tail(run.events, [b'"abandons"', b'"resumed"']).read():
        if row.get("abandons") is True and (first_step := whole(row.get("first_step"))) is not None:
            step = first_step - 1
        elif row.get("kind") == "resumed":
            step = None
    return step


def _steer_as_before(run: RunDir, built: Trainer, changes: Mapping[str, Any], abandons: bool) -> list[Row]:
    """Put the settings in force that led to the checkpoint, and return those to come: earlier ones, then `changes`."""
    step = built.state.step
    rows = settings.read(run)
    made, ahead = settings.at([*rows, {"first_step": step + 1, "abandons": True}] if abandons else rows, step)
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
