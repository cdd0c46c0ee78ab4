"""Follows a run as plain lines, from its directory alone."""

import heapq
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from operator import itemgetter

import typer

from cmbench import recipe
from cmbench.cli import _screen
from cmbench.errors import STOPPED, DivergedError
from cmbench.rundir import control, group, settings, status
from cmbench.rundir.fields import number_of, whole
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail, last_segment
from cmbench.rundir.segments import newest
from cmbench.rundir.select import address
from cmbench.words.journal import event_line, metrics_line
from cmbench.words.times import Stamps

_POLL = 0.5  # seconds
_EXIT_CODES = {"finished": 0, status.IMPORTED: 0, "stopped": STOPPED, "diverged": DivergedError.exit_code}


def lines(run: RunDir, past: int | None = None) -> Iterator[str]:
    """Yield the lines of a run until it ends; `past` as in `rows`."""
    train, stamps = recipe.load(run.recipe).train, Stamps()
    of = settings.steps(run, train.steps)
    for row in rows(run, past):
        if "kind" in row:
            of = (whole(row.get("steps")) or of) if row["kind"] == "lengthened" else of
            yield stamps.of(row.get("time"), event_line(row))
        elif "step" in row:
            yield stamps.of(row.get("time"), metrics_line(row, of, train.batch_size))


def rows(run: RunDir, past: int | None = None) -> Iterator[Row]:
    """Yield the rows of the metrics and of the journal, ordered by time, until the run ends.

    Past rows come without those that were trained again. A segment that opens later comes as its line
    {"segment": 2, "first_step": 101}, so that a reader can drop the rows that it supersedes.

    Args:
        run: the run.
        past: number of past rows to begin with; None for all of the newest segment.
    """
    tails = [Tail(run.metrics), Tail(run.events)]
    live = status.is_live(run)  # checked before reading, so that the last rows are not missed
    for tail in tails:
        tail.skip()
    yield from reversed(list(islice(_been(tails, past), past)))
    while live:
        time.sleep(_POLL)
        live = status.is_live(run)
        yield from _in_order(row for tail in tails for row in tail.read())


def _been(tails: Sequence[Tail], past: int | None) -> Iterator[Row]:
    """Yield the rows that the tails have skipped, the newest first; without `past`, only the newest segment's."""
    logs = [newest(tail.path, tail.place) for tail in reversed(tails)]  # at equal times, the journal's is newer
    if past is None:
        segment = max(last_segment(tail.path) for tail in tails)
        logs = [takewhile(lambda row: row.get("segment") == segment, rows) for rows in logs]
    for _, row in heapq.merge(*map(_timed, logs), key=itemgetter(0), reverse=True):
        yield row


def _timed(rows: Iterable[Row]) -> Iterator[tuple[float, Row]]:
    """Yield rows with times that never increase, so that they keep their order even if a clock was wrong."""
    latest = math.inf
    for row in rows:
        latest = min(latest, number_of(row.get("time")) or math.inf)
        yield latest, row


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Sort rows by time; the lines that open segments have no time and come first."""
    return sorted(rows, key=lambda row: number_of(row.get("time")) or 0.0)


def follow_started(run: RunDir) -> int:
    """Print a run that was just started until it ends; Ctrl-C asks what to do. Return its trainer's exit code."""
    _screen.line(f"{run.name}  (Ctrl-C: stop it or leave it running)")
    stream = lines(run)
    while True:
        try:
            for line in stream:
                _screen.line(line)
            break
        except KeyboardInterrupt:
            if not _keep_watching(run):
                return 0
            stream = lines(run, past=0)
    return closing(run)


def _keep_watching(run: RunDir) -> bool:
    """Ask what Ctrl-C meant. Return whether to keep watching, which is False only if the run is left running."""
    _screen.line("")
    try:
        answer = typer.prompt("[s]top with a checkpoint, [l]eave it running, or [w]atch on", default="l")
    except (typer.Abort, EOFError):
        answer = "l"
    if answer.lower().startswith("s"):
        control.request(run, "stop")
        return True
    if answer.lower().startswith("w"):
        return True
    _screen.line(f"left running: cmbench watch {address(run)}, cmbench stop {address(run)}")
    return False


def closing(run: RunDir, told: bool = False) -> int:
    """Print how a run ended, why (unless `told` before), and what to type next. Return its trainer's exit code."""
    now = status.read(run)
    state = now["state"]
    if (reason := now.get("reason")) and not told:
        _screen.complain(f"{run.name}: {reason}")
    if state == status.IMPORTED:
        _screen.line(f"imported; next: cmbench sample {address(run)}, cmbench run RECIPE {status.start(run)}")
    elif state == "finished":
        _screen.line(f"snapshots: {run.snapshots}")
        _screen.line(f"next: cmbench sample {address(run)} --steps 1")
    elif state == "diverged":
        saved = now.get("checkpoint")
        good = "no checkpoint is known" if saved is None else f"the last good state is checkpoint {saved}"
        _screen.line(f"diverged; {good}: cmbench show {address(run)}")
        again = "--checkpoint STEP --set optimizer.lr=..."
        _screen.line(f"from an earlier one, with other settings: cmbench resume {address(run)} {again}")
    else:
        _screen.line(f"{state} at step {now['step']}: {' '.join(['cmbench resume', address(run), *group.again(now)])}")
        if state in ("failed", "crashed"):
            _screen.line(f"its last output: {run.console}")
    return exit_code(run)


def exit_code(run: RunDir) -> int:
    """Return the exit code of a run's trainer, which has ended."""
    return _EXIT_CODES.get(status.read(run)["state"], 1)
