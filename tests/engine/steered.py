"""Runs that are asked for things at chosen steps, and what came of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from fake_runs import read_rows

from cmbench import consent
from cmbench.engine import checkpoint, runner
from cmbench.engine.recorder import Record
from cmbench.engine.runner import Runner
from cmbench.rundir import control
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.log import Row

CLOCK = {"time", "train_s", "images_per_s", "segment"}
Requests = dict[int, list[tuple[str, dict]]]  # step -> action, settings


def create(home: Path, *overrides: str) -> Runner:
    return runner.create(consent.named(home / "tiny.toml", overrides), None, ["cmbench"])


def after(made: Runner, step: int, what: Callable[[], object]) -> Runner:
    """Do something once `step` steps are done, before the trainer looks for requests."""
    move = made.trainer.objective.after_step

    def after_step(model: torch.nn.Module, k: int) -> None:
        move(model, k)
        if k + 1 == step:
            what()

    made.trainer.objective.after_step = after_step
    return made


def asked(made: Runner, requests: Requests) -> Runner:
    """Send requests after their steps; each step is looked at, however short it was."""
    for step, wanted in requests.items():

        def send(wanted: list[tuple[str, dict]] = wanted) -> None:
            made.requests._next_look = 0.0
            for action, settings in wanted:
                control.request(made.run, action, **({"settings": settings} if settings else {}))

        if step > made.trainer.state.step:
            after(made, step, send)
        elif step == made.trainer.state.step:
            send()
    return made


def finish(made: Runner) -> RunDir:
    list(made.records())
    assert made.exit_code == 0
    return made.run


def killed(made: Runner, step: int, deaf: bool = False) -> RunDir:
    """Train `step` steps, hear their requests unless `deaf`, and end as SIGKILL does: no checkpoint, no last word."""
    hear = made.requests.between_steps

    def between_steps() -> Iterator[Record]:
        dying = made.trainer.state.step == step
        if not (dying and deaf):
            yield from hear()
        if dying:
            made.request_stop("killed")

    made.requests.between_steps = between_steps
    made.stop_now = lambda: iter(())
    list(made.records())
    assert made.trainer.state.step == step
    return made.run


def answers(run: RunDir) -> list[Row]:
    return [row for row in read_rows(run.events) if row["kind"] == "request"]


def timeless(path: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in read_rows(path)]


def assert_same_end(run: RunDir, other: RunDir) -> None:
    """The last checkpoints, the metrics and the profiles of two runs are equal bit for bit."""
    last = steps_of_checkpoints(other)[-1]
    mine, theirs = checkpoint.load(run, last), checkpoint.load(other, last)
    assert list(mine) == list(theirs)
    for group, tensors in theirs.items():
        assert all(torch.equal(mine[group][name], tensor) for name, tensor in tensors.items()), group
    assert timeless(run.metrics) == timeless(other.metrics)
    assert timeless(run.profiles) == timeless(other.profiles)
    assert read_rows(run.metrics)
