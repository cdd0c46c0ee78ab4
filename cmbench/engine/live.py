"""A live run: a trainer in its run directory, from its first row to its last."""

import os
import traceback
from bisect import bisect_right
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

import filelock
import torch

from cmbench.contracts import HasSummary, has
from cmbench.engine import checkpoint, environment, loop, together, watch
from cmbench.engine.memory import LackError
from cmbench.engine.messages import LostRankError
from cmbench.engine.recorder import Record, Recorder
from cmbench.engine.requests import Requests
from cmbench.engine.trainer import Trainer
from cmbench.errors import STOPPED, DivergedError
from cmbench.recipe import MASKS
from cmbench.rundir.files import open_to_append
from cmbench.rundir.home import GoneError
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.log import Row
from cmbench.rundir.segments import newest


@dataclass
class Runner:
    """Trains in a run directory and writes everything there. Holds the run's lock until it ends.

    `warnings` are for the journal. `ahead` are settings to be made at their steps, as `Requests` takes them.
    `abandoned` are the checkpoints after the one from which a user chose to resume; None without such a choice.
    `places` are the changed places, as `rundir.places` reads them. `parent` is the parent of a new fork.
    """

    folder: RunDir
    trainer: Trainer
    lock: filelock.BaseFileLock
    warnings: Sequence[str] = ()
    ahead: Sequence[Row] = ()
    abandoned: Sequence[int] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    parent: Mapping[str, Any] | None = None
    stop_requested: str = ""
    exit_code: int = 0

    def __post_init__(self) -> None:
        """Open the run's logs and mark the run as live."""
        self.recorder = Recorder(self.folder, self.trainer, self.abandoned is not None, self.parent is not None)
        self.trainer.state.share(self.trainer.ranks)
        self._spikes = watch.SpikeWatch(newest(self.run.profiles))
        self.requests = Requests(self, self.ahead)
        self._unsaved = ""  # why the last due checkpoint is missing
        self._events: Iterator[loop.Event] = iter(())
        self._within_step = False
        list(self.requests.refuse("the run was not live"))  # requests meant for an earlier trainer

    @property
    def run(self) -> RunDir:
        """The run, where its folder is now.

        Raises:
            GoneError: the folder is not found.
        """
        return self.recorder.run

    def records(self) -> Iterator[Record]:
        """Train to the end, or until `request_stop`; yield each row after it is written. Sets `exit_code`.

        Raises:
            DivergedError: loss or gradient was not finite; a checkpoint of the last good state was written.
            GoneError: the run's folder was removed.
        """
        journal = self.recorder.event
        try:
            together.lead(self.trainer, self.run, self.places)
            self.recorder.show("running")
            chosen = {} if self.abandoned is None else {"chosen": True, "abandoned": list(self.abandoned)}
            forked = {"parent": self.parent["run"]} if self.parent else {}
            is_new = self.recorder.segment == 1 and not self.trainer.state.step
            how = "forked" if self.parent else "started" if is_new else "resumed"
            named = {"places": dict(self.places)} if self.places else {}
            yield journal(how, **chosen, **named, **forked, **environment.here(self.trainer))
            if self.trainer.ranks.size > 1:
                yield journal("ranks", **self._of_ranks())
            if has(data := self.trainer.data, HasSummary) and data.summary:
                yield journal("data", text=data.summary)
            if (start := self.trainer.start) is not None and self.trainer.state.step == 0:
                yield journal("initialised", source=environment.source(start.trained), error=start.error)
            if self.trainer.recipe.train.compile:
                yield journal("compiling")
            self.recorder.warnings += [*self.warnings, *self._given_up(), *self._unmeasured(), *self._about_ranks()]
            if (yield from self._must_stop()):
                return
            self._events = loop.train(self.trainer)
            for event in self._events:
                self._within_step = not isinstance(event, loop.Stepped)
                yield from self._write(event)
                if not self._within_step and (yield from self._must_stop()):
                    return
            yield from self.requests.refuse("the run has finished")
            self.recorder.state = "finished"
            yield from self.warn()
            yield journal("finished")
        except GeneratorExit:  # the caller has stopped asking for records
            self._leave()
            raise
        except DivergedError:
            raise
        except LostRankError as error:
            self._lose(error)
        except GoneError:
            self.exit_code = 1
            raise
        except LackError as error:
            yield from self._lack(error)
        except BaseException as error:
            self.recorder.state, self.exit_code = "failed", 1
            journal("failed", error=f"{type(error).__name__}: {error}")
            with suppress(OSError), os.fdopen(open_to_append(self.run.console), "a", encoding="utf-8") as console:
                traceback.print_exc(file=console)
            raise
        finally:
            self.close()

    def request_stop(self, reason: str) -> None:
        """Stop after the step in progress, with a checkpoint. Safe to call from a signal handler."""
        self.stop_requested = reason

    def close(self, reason: str = "") -> None:
        """Write the last status and release the run. With a reason, the run stopped before it began."""
        if reason:
            self.recorder.state, self.recorder.reason = "stopped", reason
        self.recorder.close()
        self.lock.release()

    def _given_up(self) -> list[str]:
        return environment.given_up(self.trainer.recipe.train)

    def _unmeasured(self) -> list[str]:
        """Return a line for each measure that the rows will lack because there are too few samples."""
        found = self.trainer.unmeasured() if self.trainer.recipe.evaluate.every else {}
        return [f"evaluate.metrics: {name} is not measured: {reason}" for name, reason in found.items()]

    def _of_ranks(self) -> dict[str, Any]:
        """Return the facts of the journal about the ranks."""
        backend = "nccl" if self.trainer.device.type == "cuda" else "gloo"
        found = environment.devices(self.trainer)
        return {"number": self.trainer.ranks.size, "devices": found, "backend": backend}

    def _about_ranks(self) -> list[str]:
        """Return a line where results depend on the number of ranks, or where more devices could train."""
        recipe, ranks, here = self.trainer.recipe, self.trainer.ranks.size, self.trainer.device.type
        if ranks > 1 and (found := [key for key in MASKS if recipe.network.get(key)]):
            return [f"network.{key} = {recipe.network[key]}: its masks depend on the number of ranks" for key in found]
        is_chosen = recipe.train.device not in ("auto", "cuda")
        gpus = torch.cuda.device_count() if here == "cuda" and self.trainer.state.step == 0 and not is_chosen else 1
        if ranks == 1 and gpus > 1:
            return [f"one of {gpus} GPUs trains; all would with: cmbench run ... --gpus {gpus}"]
        return []

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
            case loop.Snapshotted(samples=samples, film=film):
                if record := self.recorder.attempt("snapshots", lambda: self.recorder.snapshot(samples, film)):
                    yield record
            case loop.AveragesDue():
                self.recorder.attempt("averages", self.recorder.keep_averages)
            case loop.CheckpointDue():
                yield from self._save_as_due()
            case loop.Compiled(passes=passes, seconds=seconds):
                yield self.recorder.event("compiled", passes=passes, seconds=seconds)
            case loop.Diverged():
                yield from self._diverge(event)
        self.recorder.beat()
        yield from self.warn()

    def warn(self) -> Iterator[Record]:
        """Write the warnings of the trainer and the recorder into the journal."""
        self.recorder.warnings += self.trainer.warnings
        self.trainer.warnings.clear()
        while self.recorder.warnings:
            yield self.recorder.event("warning", text=self.recorder.warnings.pop(0))

    def _must_stop(self) -> Generator[Record, None, bool]:
        """Grant the requests between two steps; stop if that was requested, and return whether it was.

        The other ranks take the next step, or end too.
        """
        ranks, state = self.trainer.ranks, self.trainer.state
        stops = yield from self._stops()
        if stops or state.step >= self.trainer.recipe.train.steps:
            ranks.dismiss(self.exit_code)
        else:
            ranks.tell()
        return stops

    def _stops(self) -> Generator[Record, None, bool]:
        if self.trainer.ranks.stop_asked and not self.stop_requested:
            self.request_stop("a signal to another rank")
        yield from self.requests.due()  # also after the last step: a setting may train the run further
        if self.trainer.state.step >= self.trainer.recipe.train.steps and not self.recorder.reason:
            return False
        yield from self.requests.between_steps()
        yield from self.warn()
        if self.stop_requested:
            yield from self.stop_now()
        return bool(self.stop_requested)

    def _leave(self) -> None:
        """Stop because the caller asks for no more records: after the step in progress, which the other ranks take."""
        if self.recorder.state in ("running", "paused"):
            self.request_stop("left")
            while self._within_step and (event := next(self._events, None)) is not None:
                self._within_step = not isinstance(event, loop.Stepped)
                list(self._write(event))
            list(self.stop_now())
        self.trainer.ranks.dismiss(self.exit_code)

    def stop_now(self) -> Iterator[Record]:
        """Stop with a checkpoint, and yield the rows that record it."""
        self.trainer.ranks.call_roll()
        saved = not self.recorder.reason and (yield from self._checkpoint_unless_whole())
        yield from self.requests.refuse("the run has stopped")
        yield from self.warn()
        self.recorder.state, self.exit_code = "stopped", STOPPED
        yield self.recorder.event("stopped", reason=self.stop_requested, **({} if saved else {"saved": False}))

    def _diverge(self, event: loop.Diverged) -> Iterator[Record]:
        self.recorder.state, self.exit_code = "diverged", DivergedError.exit_code
        saved = yield from self._checkpoint_unless_whole()
        bins = sorted({bisect_right(self._edges[1:-1], t) for t in event.times})
        norm = {} if event.tangent_norm is None else {"tangent_norm": event.tangent_norm}
        yield self.recorder.event("diverged", what=event.what, times=event.times, bins=bins, **norm)
        self.trainer.ranks.dismiss(self.exit_code)
        last = f"the last good state is checkpoint {self.trainer.state.step}" if saved else self.recorder.reason
        raise DivergedError(
            f"{self.run.name}: the {event.what} of step {self.trainer.state.step + 1} is not finite; {last}"
        )

    def _lose(self, error: LostRankError) -> NoReturn:
        """End because another rank has. If it was killed, the state stays "running": it reads as crashed from then on.

        Raises:
            LostRankError: always; with the words of that rank if it left any.
        """
        self.exit_code, why = error.exit_code, self.trainer.ranks.words_left()
        if not why:
            self.recorder.event("warning", text=str(error))
            raise error
        self.recorder.state = "failed"
        self.recorder.event("failed", error=f"{why}; {self._kept()}")
        raise LostRankError(f"{self.run.name}: after step {self.trainer.state.step}: {why}; {self._kept()}") from None

    def _kept(self) -> str:
        steps = steps_of_checkpoints(self.run)
        return f"checkpoint {steps[-1]} is kept" if steps else "there is no checkpoint"

    def _lack(self, error: LackError) -> Iterator[Record]:
        """End because memory ran out, with a checkpoint if the state allows one."""
        step, ranks = self.trainer.state.step, self.trainer.ranks
        self.recorder.state, self.exit_code = "failed", 1
        if error.whole and ranks.size == 1:  # other ranks may be within a step, and cannot hand over
            with suppress(MemoryError, RuntimeError):
                yield from self._checkpoint_unless_whole()
        what = f"{ranks.called(0)}: {error.what}" if ranks.size > 1 else error.what
        yield self.recorder.event("failed", error=f"{what}; {self._kept()}")
        raise LackError(f"{self.run.name}: after step {step}: {what}; {self._kept()}", error.whole)

    def _save_as_due(self) -> Iterator[Record]:
        """Write a checkpoint. If that fails, try again at the next due checkpoint; if that fails too, stop."""
        try:
            record = self.recorder.checkpoint()
        except OSError as error:
            last_chance = self._unsaved or self.trainer.state.step == self.trainer.recipe.train.steps
            self._unsaved = self._unwritten_checkpoint(error)
            if last_chance:
                self.recorder.reason = self._unsaved
                self.request_stop("a checkpoint could not be written")
            else:
                self.recorder.warnings.append(f"{self._unsaved}; the next attempt is at the next due checkpoint")
        else:
            self._unsaved = ""
            yield record

    def _checkpoint_unless_whole(self) -> Generator[Record, None, bool]:
        """Write a checkpoint unless this step has one; return whether it has one now."""
        if checkpoint.is_whole(self.run, self.trainer.state.step):
            return True
        try:
            record = self.recorder.checkpoint()
        except OSError as error:
            self.recorder.reason = self._unwritten_checkpoint(error)
            return False
        yield record
        return True

    def _unwritten_checkpoint(self, error: OSError) -> str:
        return f"the checkpoint of step {self.trainer.state.step} cannot be written: {error.strerror or error}"
