"""Training from the command line: detached and followed, or in this process."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from cmbench.cli import _alert, _dashboard, _follow, _progress, _screen, _several, _signals
from cmbench.cli._gpus import Gpus
from cmbench.errors import CmbenchError, DivergedError, StoppedError, UsageError, stopping_on_write_errors
from cmbench.rundir import group, launch, status
from cmbench.rundir.files import open_to_append, write_all
from cmbench.rundir.home import GoneError
from cmbench.rundir.select import address
from cmbench.text import brief, plain
from cmbench.words.journal import event_line, metrics_line
from cmbench.words.times import Stamps

if TYPE_CHECKING:
    from cmbench.engine.ranks import Ranks
    from cmbench.engine.recorder import Record
    from cmbench.engine.runner import Runner


def train(
    make: "Callable[[], Runner]",
    arguments: Sequence[str],
    foreground: bool,
    detach: bool,
    heard: list[str] | None = None,
    gpus: Gpus | None = None,
) -> int:
    """Train, and return the exit code.

    Args:
        make: builds the runner, for training in this process.
        arguments: of the `cmbench` that trains in a separate process.
        foreground: whether to train in this process. Without a terminal, under CI and under Slurm it is always so,
            unless `detach` is given.
        detach: whether to start the training and return.
        heard: what `listen` has returned, if the caller has been listening.
        gpus: on which to train; None for the device of the recipe.
    """
    member = group.member()
    if member.size > 1 and detach:
        raise UsageError(f"--detach: found with {member.size} ranks, allowed: without it, since torchrun stays")
    if not launch.is_detached() and member.leads:
        _say_that_it_starts(launch.subject_of(arguments))  # before the dashboard is imported, too
    if _trains_here(foreground, detach):
        heard = _heard_meanwhile() if heard is None else heard
        if gpus is not None and gpus.size > 1:
            return _several.train(arguments, gpus, heard)
        os.environ.update({} if gpus is None else gpus.environment())
        return _in_this_process(make, heard)
    shows = not detach and _dashboard.can_be_shown()
    if shows:
        _dashboard.settings()
    start = launch.Start([*arguments, *([] if gpus is None else ["--gpus", gpus.given])])
    try:
        run = _dashboard.show_start(start) if shows else start.wait()
    except KeyboardInterrupt:
        start.cancel()
        raise
    if detach:
        _screen.line(run.name)
        return 0
    if not shows:
        return _follow.follow_started(run)
    if status.is_live(run):
        _screen.line(f"left running: cmbench watch {address(run)}, cmbench stop {address(run)}")
        return 0
    return _follow.closing(run)


def _say_that_it_starts(subject: str) -> None:
    """Give a sign of life on a terminal: importing torch and building the model takes seconds."""
    if _screen.is_terminal(err=True):
        _screen.line(f"{subject}: starting, importing torch and building the model (Ctrl-C: cancel)", err=True)


def _has_terminal() -> bool:
    batch = os.environ.get("CI") or os.environ.get("SLURM_JOB_ID")
    return _dashboard.has_terminal() and not batch


def listen(foreground: bool, detach: bool) -> list[str] | None:
    """Note signals that announce an end from now on, if this process is to train: a check may take seconds, too."""
    return _heard_meanwhile() if _trains_here(foreground, detach) else None


def _trains_here(foreground: bool, detach: bool) -> bool:
    return foreground or group.member().size > 1 or not (detach or _has_terminal())


def _in_this_process(make: "Callable[[], Runner]", heard: list[str]) -> int:
    from cmbench import settings
    from cmbench.engine import ranks as all_ranks

    wanted, ranks = settings.load().alert, all_ranks.gather(heard)
    if not ranks.leads:
        return _follow_rank_0(ranks)
    with _others_end_too(ranks), _progress.shown():
        runner = make()
    alerts = _alert.Alerts(wanted, runner)
    _stop_on_signals(runner)
    if heard:
        runner.request_stop(heard[-1])
    try:
        with _others_end_too(ranks), stopping_on_write_errors(runner.run.console):
            detached = launch.accept(runner.run)
            console = os.fdopen(open_to_append(runner.run.console), "ab", buffering=0)
    except StoppedError as error:
        runner.close(str(error))
        raise
    except BaseException:
        runner.close()
        raise

    from cmbench.engine.memory import LackError
    from cmbench.engine.messages import LostRankError

    with console:

        def say(line: str) -> None:
            shown = plain(line)
            with suppress(OSError):  # on a full disk the log has gaps
                write_all(console.fileno(), f"{shown}\n".encode())
            if not detached:  # if detached, stdout is the log itself
                with _screen.to_whoever_listens():
                    _screen.line(shown)

        say(runner.run.name)
        stamps = Stamps()
        try:
            for record in runner.records():
                if line := _line(record, runner):
                    say(stamps.of(record.row.get("time"), line))
                alerts.take(record)
        except (DivergedError, LackError, LostRankError) as error:
            say(f"cmbench: {brief(error)}")
            return error.exit_code
        finally:
            _end_undisturbed(ranks)
    ranks.close()
    if trouble := runner.recorder.reason or runner.recorder.unwritten:
        _screen.complain(f"{runner.folder.name}: {trouble}")
    with suppress(GoneError), _screen.to_whoever_listens():
        _follow.closing(runner.run, told=bool(trouble))
    return runner.exit_code


def _follow_rank_0(ranks: "Ranks") -> int:
    """Train as rank 0 says. A signal does no more than to reach rank 0 with the next step."""
    from cmbench.engine import together
    from cmbench.engine.memory import LackError

    def hear(number: int, frame: FrameType | None) -> None:
        ranks.heard = signal.Signals(number).name

    _signals.on(*_signals.ASKING, handler=hear)
    try:
        code = together.follow(ranks)
    except LackError as error:
        _screen.complain(f"{ranks.called(ranks.member.rank)}: {error}")  # where rank 0 may have no time to say it
        return error.exit_code
    finally:
        _end_undisturbed(ranks)
    ranks.close()
    return code


def _end_undisturbed(ranks: "Ranks") -> None:
    if ranks.size > 1:
        _signals.ignore()


@contextmanager
def _others_end_too(ranks: "Ranks") -> Iterator[None]:
    """Let the other ranks, which wait for the run, end with this one's exit code if the block fails."""
    try:
        yield
    except BaseException as error:
        ranks.dismiss(error.exit_code if isinstance(error, CmbenchError) else 1)
        _end_undisturbed(ranks)  # it has yet to say why
        raise


def _line(record: "Record", runner: "Runner") -> str:
    train = runner.trainer.recipe.train
    if record.stream == "events":
        return event_line(record.row)
    return metrics_line(record.row, train.steps, train.batch_size) if record.stream == "metrics" else ""


def _stop_on_signals(runner: "Runner") -> None:
    """Let signals stop the run with a checkpoint.

    The first SIGINT, SIGTERM or SIGHUP does so; the second ends the process at once. Batch systems announce an end by
    SIGUSR1, SIGUSR2 or SIGXCPU, some more than once: these never do more than stop with a checkpoint. Of several ranks
    no signal does more: torchrun passes each on, and ends those that take too long.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        runner.request_stop(signal.Signals(number).name)
        if number in _signals.BY_HAND and group.member().size == 1:
            for each in _signals.BY_HAND:
                signal.signal(each, signal.SIG_DFL)

    _signals.on(*_signals.ASKING, handler=stop)


def _heard_meanwhile() -> list[str]:
    """Return a list that collects the names of signals that announce an end while a run is still being built."""
    heard: list[str] = []
    _signals.on(*_signals.ANNOUNCED, handler=lambda number, frame: heard.append(signal.Signals(number).name))
    return heard
