"""Training on several ranks from the command line: torchrun beneath, and this process between it and the user."""

import os
import signal
from collections.abc import Sequence
from types import FrameType

from cmbench.cli import _follow, _screen, _signals
from cmbench.cli._gpus import Gpus
from cmbench.rundir import launch, status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.torchrun import Group


def train(arguments: Sequence[str], gpus: Gpus, heard: Sequence[str]) -> int:
    """Start torchrun, follow its run, and return the exit code that one rank would have.

    Args:
        arguments: of the `cmbench` of each rank.
        gpus: one for each.
        heard: signals that announced an end meanwhile.

    Raises:
        RefusedError: a rank refused.
    """
    ranks = Group(arguments, gpus.size, gpus.environment())

    def pass_on(number: int, frame: FrameType | None) -> None:
        ranks.signal(number, by_hand=number in _signals.BY_HAND)

    with _signals.passed_to(pass_on):
        for name in heard:
            ranks.signal(signal.Signals[name])
        try:
            run = ranks.wait()
        except launch.RefusedError:
            if ranks.ended_by is not None:
                _end_by(ranks.ended_by)
            raise
        detached = launch.accept(run)  # then rank 0 prints to the same console.log
        if not detached:
            _show(run)
        code = ranks.join()
        if not detached:
            with _screen.to_whoever_listens():
                _follow.closing(run)
    crashed = status.read(run)["state"] == "crashed"
    return code if crashed and code > 0 else _follow.exit_code(run)


def _show(run: RunDir) -> None:
    """Print the lines of the run until it ends."""
    with _screen.to_whoever_listens():
        _screen.line(run.name)
        for line in _follow.lines(run):
            _screen.line(line)


def _end_by(number: int) -> None:
    """End as a process without a handler does."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
