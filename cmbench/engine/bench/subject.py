"""A recipe under measurement: its steps in memory, and the bare work beside them."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cmbench import consent
from cmbench import recipe as recipes
from cmbench.engine import build, compute, doctor, environment, guard, loop, memory, passes, trainer
from cmbench.engine.bench import memory as of_tensors
from cmbench.engine.bench import passes as bare_passes
from cmbench.engine.bench import steps
from cmbench.engine.bench.phases import Stopwatch, heard
from cmbench.engine.bench.timing import Clock
from cmbench.engine.recorder import Recorder
from cmbench.engine.trainer import Trainer
from cmbench.errors import refusing_write_errors
from cmbench.randomness import StepRandom
from cmbench.recipe import Recipe
from cmbench.rundir.files import make_folder, write_atomically
from cmbench.rundir.layout import RunDir

_AT_ONCE = {"cpu": 1, "cuda": 8}  # steps between two waits for the device, which training does not have


@dataclass(frozen=True)
class Asked:
    """What is measured: a recipe's file, changed.

    Attributes:
        path: of the recipe.
        overrides: such as "train.batch_size=64".
        runs_dir: where to look for its teacher's run.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    runs_dir: Path | None = None

    def told(self) -> dict[str, Any]:
        """Return it as JSON, for other ranks."""
        folder = None if self.runs_dir is None else str(self.runs_dir.resolve())
        return {"path": str(self.path.resolve()), "overrides": list(self.overrides), "runs_dir": folder}

    @classmethod
    def heard(cls, told: dict[str, Any]) -> "Asked":
        """Return what another rank has told."""
        folder = None if told["runs_dir"] is None else Path(told["runs_dir"])
        return cls(Path(told["path"]), tuple(told["overrides"]), folder)


def built_as(asked: Asked) -> tuple[Trainer, list[str]]:
    """Build a recipe as a run would, and return it with what differs here. Data that are not here become noise.

    Raises:
        UsageError: the recipe cannot be built.
        NotFoundError: its teacher is a run that does not exist.
    """
    where = str(asked.path)
    recipe = build.complete(consent.named(asked.path, asked.overrides).recipe, where)
    data, about_data = doctor.data_check(recipe, where)
    recipe, about_distance = doctor.without_fetching(recipe)
    built = trainer.from_recipe(recipe, where, asked.runs_dir, data=data)
    differs = [about_data.found] if "is used instead" in about_data.found else []
    return built, [*differs, *(check.found for check in about_distance)]


@dataclass
class Subject:
    """A recipe and the works that measure it. Its weights change.

    Attributes:
        built: the recipe; its ranks take every step together.
        recorder: where rows are written as in training; None on ranks that write none.
        clock: of the phases.
        phases: seconds of each phase, of each step that was listened to.
        compiling: seconds in which passes of the steps were compiled.
    """

    built: Trainer
    recorder: Recorder | None = None
    clock: Clock = time.perf_counter
    phases: list[dict[str, float]] = field(default_factory=list)
    compiling: float = 0.0

    def __post_init__(self) -> None:
        self.at_once = _AT_ONCE[self.built.device.type]
        self._trainer = steps.in_memory(self.built, rows_every=0)
        self._plain, self._told = self._trainer.recipe, steps.in_memory(self.built, rows_every=1).recipe
        self._steps = steps.taken(self._trainer, self._write)  # one loop for both: it may be a step's passes ahead
        self._multiply, self.of_product = bare_passes.product(self.built.device, self.built.recipe.train)

    def works(self) -> dict[str, Callable[[], object]]:
        """Return the works of a round, by name; the step of "phases" is one, the others are `at_once` of them."""
        several = {"step": self.step, "bare": self.bare, "product": self._multiply}
        return {**{name: self._repeated(work) for name, work in several.items()}, "phases": self._phases_of_warm_step}

    def step(self) -> None:
        """Take a step as in training, without rows and looks at the tangent's parts."""
        environment.choose_operations(self.built.recipe.train)
        self._take(self._plain)

    def bare(self) -> None:
        """Pass the samples that this rank has in a step through the network, forward and back."""
        x_0, labels = self._batch
        model, train = self.built.state.model, self.built.recipe.train
        environment.choose_operations(train)
        t = model.time(torch.full((len(x_0),), model.sigma_data, device=x_0.device))
        with memory.wanted_by_passes(train), passes.compiled(self.built.state):
            bare_passes.bare(model, x_0, t, labels, train.at_once)

    def phases_of_step(self) -> None:
        """Take a step with all rows and looks, and note the seconds of its phases."""
        watch = Stopwatch(self.built.device, self.clock)
        self._listened(watch)
        self.phases.append(watch.taken())

    def _phases_of_warm_step(self) -> None:
        """Take a step unheard, and one that is listened to: the product before it has filled the caches with its own.

        Without the first, the phases of a step of 5 ms on a CPU took a fifth more.
        """
        self.step()
        self.phases_of_step()

    def peaks(self) -> tuple[int, dict[str, int]]:
        """Take a step, and return the bytes kept before it, and the most that each phase had beyond those.

        What compiled passes take on a CPU is unknown: their tensors are no results of operations.
        """
        if not guard.need_not_wait(self._trainer):  # else the loop keeps gradients of the next step
            self.built.state.optimizer.zero_grad(set_to_none=True)
        kept = of_tensors.kept(self.built)
        if self.built.state.compiled and self.built.device.type == "cpu":
            return kept, {}
        with of_tensors.peaks(self.built.device) as peaks:
            self._listened(peaks)
        return kept, peaks.bytes

    def status(self) -> float:
        """Return the seconds that one status of a run takes, which is written once a second."""

        def seconds(recorder: Recorder) -> float:
            began = self.clock()
            recorder.show("running")
            return self.clock() - began

        return 0.0 if self.recorder is None else median(seconds(self.recorder) for _ in range(3))

    def operations(self) -> int:
        """Take a step, and return the floating-point operations of its matrix products and convolutions."""
        with passes.uncompiled(self.built.state):  # whose operations can be counted
            return compute.operations(self.step)

    def _repeated(self, work: Callable[[], object]) -> Callable[[], object]:
        return lambda: [work() for _ in range(self.at_once)]

    def _take(self, recipe: Recipe) -> None:
        self._trainer.recipe = recipe
        next(self._steps)

    def _listened(self, hear: Callable[[str], None]) -> None:
        environment.choose_operations(self.built.recipe.train)
        with heard(self.built, hear):
            self._take(self._told)
            self.built.state.phase("")

    def _write(self, event: loop.Event) -> None:
        """Write rows as `Runner` does. The loop has said that they are being written."""
        if isinstance(event, loop.Compiled):
            self.compiling += event.seconds
        if self.recorder is None:
            return
        if isinstance(event, loop.Metrics):
            self.recorder.metrics(event.values)
        if isinstance(event, loop.Profiled):
            self.recorder.profile(event.values)

    @cached_property
    def _batch(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        built = self.built
        n, part = built.recipe.train.batch_size, built.ranks.part(built.recipe.train.batch_size, built.objective)
        x_0, labels = passes.drawn(built.data, n, StepRandom(built.device, built.recipe.seed, 0, part=part))
        return x_0, labels if built.conditional else None


@contextmanager
def recorder(built: Trainer) -> Iterator[Recorder]:
    """Yield a recorder of the steps in a temporary folder.

    Raises:
        UsageError: there is no place for it.
    """
    with refusing_write_errors("temporary folder"):
        folder = tempfile.TemporaryDirectory(prefix="cmbench-")
    with folder as path:
        run = RunDir(Path(path) / "run")
        make_folder(run.path)
        write_atomically(run.recipe, recipes.dumps(built.recipe).encode())
        written = Recorder(run, built)
        try:
            yield written
        finally:
            written.close()
