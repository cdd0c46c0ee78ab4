"""The runs of an ablation or a sweep, trained a few at a time."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from cmbench.cli import _gpus, _outcomes, _screen
from cmbench.cli._plan import Task
from cmbench.cli._processes import Accepted, Ended, Processes
from cmbench.errors import STOPPED, DivergedError, UsageError
from cmbench.rundir import annotations
from cmbench.rundir.layout import RunDir


class Training:
    """Trains the tasks that are not done, and prints lines about their progress.

    Args:
        path: of the recipe.
        runs_dir: of the runs.
        jobs: how many train at a time; None: one, or one a GPU.
        gpus: on which they train, as CUDA_VISIBLE_DEVICES names them; empty for the device of each recipe.
        trust: --trust.
        to_stderr: whether lines go there, apart from data.
        tag: that the runs get, so that a filter finds them; empty for none.
    """

    def __init__(
        self,
        path: Path,
        runs_dir: Path,
        jobs: int | None,
        gpus: Sequence[str],
        trust: bool,
        to_stderr: bool,
        tag: str = "",
    ) -> None:
        self._path, self._runs_dir, self._to_stderr, self._tag = path, runs_dir, to_stderr, tag
        self._jobs, self._gpus = jobs or len(gpus) or 1, gpus
        self._trust = ["--trust"] if trust else []
        self.failures: list[str] = []
        self.interrupted = False

    def say(self, line: str) -> None:
        """Print a line apart from the data."""
        _screen.line(line, err=self._to_stderr)

    def do(self, tasks: Sequence[Task]) -> None:
        """Train the tasks that are not done. A failed run is noted, and the others continue."""
        left = [task for task in tasks if not task.is_done]
        if left and len(left) < len(tasks):
            self.say(f"{len(tasks) - len(left)} of {len(tasks)} runs exist already")
        pool = [_gpus.alone(gpu) for gpu in self._gpus]
        processes = Processes([self._command(task) for task in left], self._jobs, _threads(self._jobs), pool)
        with closing(processes.events()) as events:
            for event in events:
                self.interrupted = processes.stopped
                if isinstance(event, Accepted):
                    self._accepted(left[event.index], event.run)
                else:
                    self._ended(left[event.index], event)
        self.interrupted = processes.stopped

    def carry_out(self, tasks: Sequence[Task], report: Callable[[], None]) -> int:
        """Train the tasks that are not done, print the report unless runs are left, and return the exit code."""
        for task in tasks:
            self._mark(task)
        self.do(tasks)
        left = sum(not task.is_done for task in tasks)
        if not (self.interrupted and left):
            report()
            for failure in self.failures:
                _screen.complain(failure)
            if self.failures or not left:
                return 1 if self.failures else 0
        self.say(f"stopped, {left} of {len(tasks)} runs left; go on: {shlex.join(['cmbench', *sys.argv[1:]])}")
        return STOPPED

    def _mark(self, task: Task) -> None:
        """Add the tag to a task's run. Those of a reader stay; where it cannot be written, the run trains without."""
        if self._tag and task.run and self._tag not in (tags := annotations.read(task.run).tags):
            with suppress(UsageError):
                annotations.annotate(task.run, tags=[*tags, self._tag])

    def _command(self, task: Task) -> list[str]:
        task.resumed = task.run is not None
        if task.run:
            command = ["resume", str(task.run.path.resolve())]
        else:
            command = ["run", str(self._path), *(part for o in task.overrides for part in ("--set", o))]
        return [*command, *self._trust, "--runs-dir", str(self._runs_dir), "--foreground"]

    def _accepted(self, task: Task, run: str) -> None:
        task.run = task.run or RunDir(self._runs_dir / run)
        self._mark(task)
        self.say(f"{task}  {'resumed' if task.resumed else 'started'}")

    def _ended(self, task: Task, end: Ended) -> None:
        if end.exit_code in (0, DivergedError.exit_code, STOPPED) or (task.run and task.is_done):
            self.say(f"{task}  {_outcomes.in_words(task)}")
        elif self.interrupted:
            self.say(f"{task}  interrupted")
        else:
            self.say(f"{task}  failed: {end.error}")
            self.failures.append(f"{task}: failed: {end.error}")


def _threads(jobs: int) -> dict[str, str]:
    """Return variables that divide one trainer's cores among `jobs` trainers; none if OMP_NUM_THREADS is set.

    Two trainers of ct_edm_ring on two cores: 9,000 images/s each with one thread, 1,100 with two.
    """
    if jobs == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    import torch

    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
