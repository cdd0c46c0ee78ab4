"""Training from the command line: detached and followed, or in this process."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from cmbench.cli import _dashboard, _follow, _screen
from cmbench.cli._lines import event_line, metrics_line
from cmbench.errors import DivergedError
from cmbench.rundir import launch, status
from cmbench.rundir.select import address
from cmbench.text import brief, plain

if TYPE_CHECKING:
    from cmbench.engine.recorder import Record
    from cmbench.engine.runner import Runner


def train(make: "Callable[[], Runner]", arguments: Sequence[str], foreground: bool, detach: bool) -> int:
    """Train, and return the exit code.

    Args:
        make: builds the runner, when the training is to happen in this process.
        arguments: of the `cmbench` that trains in a process of its own.
        foreground: asked for by the user; without a terminal, under CI and under Slurm it is so in any case.
        detach: start it and return.
    """
    if foreground or not (detach or _has_terminal()):
        return _in_this_process(make())
    shows = not detach and _dashboard.can_be_shown()
    if shows:
        _dashboard.settings()
    run = launch.start_detached(arguments)
    if detach:
        _screen.line(run.name)
        return 0
    if not shows:
        return _follow.follow_started(run)
    _dashboard.show(run.path.parent, [run])
    if status.is_live(run):
        _screen.line(f"left running: cmbench watch {address(run)}, cmbench stop {address(run)}")
        return 0
    return _follow.closing(run)


def _has_terminal() -> bool:
    batch = os.environ.get("CI") or os.environ.get("SLURM_JOB_ID")
    return _dashboard.has_terminal() and not batch


def _in_this_process(runner: "Runner") -> int:
    detached = launch.accept(runner.run)
    _stop_on_signals(runner)
    with runner.run.console.open("a", encoding="utf-8", buffering=1) as console:

        def say(line: str) -> None:
            with suppress(_screen.LostOutputError):  # the reader or the terminal has gone; training goes on
                _screen.line(line)
            if not detached:  # otherwise the console is where it was just printed
                console.write(plain(line) + "\n")

        say(runner.run.name)
        try:
            for record in runner.records():
                if line := _line(record, runner):
                    say(line)
        except DivergedError as error:
            say(f"cmbench: {brief(error)}")
            return error.exit_code
    with suppress(_screen.LostOutputError):
        _follow.closing(runner.run)
    return runner.exit_code


def _line(record: "Record", runner: "Runner") -> str:
    train = runner.trainer.recipe.train
    if record.stream == "events":
        return event_line(record.row)
    return metrics_line(record.row, train.steps, train.batch_size) if record.stream == "metrics" else ""


def _stop_on_signals(runner: "Runner") -> None:
    """Let the first SIGINT, SIGTERM or SIGHUP stop with a checkpoint, and the second end the process at once."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        runner.request_stop(signal.Signals(number).name)
        for each in signals:
            signal.signal(each, signal.SIG_DFL)

    for each in signals:
        if signal.getsignal(each) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(each, stop)
