"""Texts about a run, as rows of parts: a text and its pen."""

import re
from collections.abc import Sequence
from textwrap import wrap

import numpy as np

from cmbench.errors import UsageError
from cmbench.quantities import charts, title_of
from cmbench.recipe import load
from cmbench.rundir import floors, status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row as JournalRow
from cmbench.rundir.settings import in_force
from cmbench.rundir.settings import read as read_settings
from cmbench.text import plain
from cmbench.views.axes import Kind, usual
from cmbench.views.lines import Line
from cmbench.views.run import RunView
from cmbench.words import signs
from cmbench.words.journal import said
from cmbench.words.numbers import number, progress
from cmbench.words.signs import short
from cmbench.words.times import coarse, moments

Row = list[tuple[str, str]]  # parts: a text and its pen

CHARTS = 6
_PATTERN = 20  # columns for a regular expression
_NARROW = 100  # columns from which the steps are shown in full; the application's breakpoint
_SENSE = 28  # columns of a warning below which nobody could make sense of it
_PENS = {"green": "good", "cyan": "good", "yellow": "warning", "magenta": "warning", "red": "error"}


def pinned_first(groups: Sequence[list[str]], pins: Sequence[str]) -> list[list[str]]:
    """Return the metrics of each chart; charts with a pinned metric come first, in the order of the pins."""
    order = {key: place for place, key in enumerate(pins)}
    return sorted(groups, key=lambda group: min(order.get(key, len(order)) for key in group))


def found_by(keys: Sequence[str], pattern: str) -> list[list[str]]:
    """Return the metrics, one per chart, whose name or title (in any case) matches a regular expression."""
    titled = {key: title_of(group) for group in charts(keys) for key in group}
    return [
        [key]
        for key in keys
        if re.search(pattern, key)
        or any(re.search(pattern, title, re.IGNORECASE) for title in (title_of([key]), titled[key]))
    ]


def scale_of(lines: Sequence[Line]) -> Kind:
    """Return the default kind of vertical axis for all lines of a chart."""
    return usual(np.concatenate([line.mean for line in lines])) if lines else "linear"


def first_row(view: RunView) -> str:
    """Return when the first row of metrics is due; empty if there is a row already, or if that is unknown."""
    if view.series.metrics.curves or view.recipe is None:
        return ""
    if view.is_still and view.status.get("state") != "paused":
        return "no rows: the run ended before the first"
    train, step = view.recipe.train, view.status.get("step") or 0
    now = in_force(list(view.series.journal.settings))
    every, last = now.get("log.every", view.recipe.log.every), now.get("train.steps", train.steps)
    if not every:
        return "no rows: log.every is 0"
    return f"first row at step {min((step // every + 1) * every, last):,}"


def first_snapshot(run: RunDir) -> str:
    """Return when the first snapshot of a run is due, or why none will come, from the files of the run."""
    try:
        recipe = load(run.recipe)
    except (UsageError, OSError):
        return "no snapshots yet"
    now = status.read(run)
    every = in_force(read_settings(run)).get("snapshot.every", recipe.snapshot.every)
    if now["state"] not in status.LIVE:
        return "no snapshots: the run ended before the first"
    if not every:
        return "no snapshots: snapshot.every is 0; n on the dashboard draws one"
    step = min(((now.get("step") or 0) // every + 1) * every, recipe.train.steps)
    return f"no snapshots yet: the first comes at step {step:,}"


def note_of(view: RunView, keys: Sequence[str], ascii_only: bool = False) -> str:
    """Return the last values of a chart; for a quality also its floor, its best value and the gap between two lines.

    What matters most comes first, because a narrow chart cuts the end off.
    """
    last = view.last
    values = " ".join(_figure(view, key, last[key], ascii_only) for key in keys if key in last)
    gap = abs(last.get(keys[0], np.nan) - last.get(keys[1], np.nan)) if len(keys) > 1 else np.nan
    between = f"  gap {number(gap)}" if np.isfinite(gap) else ""
    best = view.best(keys[0]) if keys else None
    if best is None:
        return values + between
    floor = floors.of_row(view.floors, keys[0])
    beside = f"  floor {floors.in_words(floor, number, ascii_only)}" if floor else ""
    return f"{values}{beside}  best {_figure(view, keys[0], best[0], ascii_only)} @{number(best[1])}{between}"


def _figure(view: RunView, key: str, value: float, ascii_only: bool) -> str:
    """Return a value as text, with a mark if it is within its floor."""
    return floors.marked(number(value), floors.is_within(view.floors, key, value), ascii_only)


def header(
    view: RunView, rate: float | None, is_frozen: bool, ascii_only: bool, width: int | None = None, pattern: str = ""
) -> list[Row]:
    """Return the header line. The most important parts come first, because a narrow screen cuts off the end.

    Args:
        view: the run.
        rate: bytes per second that the dashboard itself sends.
        is_frozen: whether the dashboard has stopped reading the run.
        ascii_only: whether to use ASCII only.
        width: available columns; None shows the name and the steps in full.
        pattern: the regular expression of the metric filter; empty without a filter.
    """
    now, live = view.status, not view.is_still
    state = now.get("state", "starting")
    sign, style = signs.sign(state, ascii_only)
    name = short(view.run.name)
    row: Row = [(f" {name if width is None else _cut(name, width // 3, ascii_only)} ", "strong")]
    row.append((f" {sign} {'folder is gone' if state == 'gone' else state}", _PENS.get(style, "warning")))
    if view.alerts:
        row.append((f"  {'!' if ascii_only else '⚠'} {view.alerts}", "error" if state == "diverged" else "warning"))
    is_narrow = width is not None and width < _NARROW
    row += [("  frozen (z)", "warning")] if is_frozen else []
    if (ranks := now.get("ranks") or 1) > 1:
        row.append((f"  {ranks} ranks", ""))
    row.append((f"  {_progress(now.get('step') or 0, now.get('of'), is_narrow)}", ""))
    if pattern:
        row.append((f"  /{pattern if len(pattern) <= _PATTERN else f'{pattern[: _PATTERN - 2]}..'}/", "warning"))
    if behind := view.series.behind:
        row.append((f"  reading, {behind / 1e6:.0f} MB to go", "muted"))
    if live and now.get("eta_s"):
        row.append((f"  eta {coarse(now['eta_s'])}", ""))
    if now.get("train_s") and not is_narrow:
        row.append((f"  trained {coarse(now['train_s'])}", ""))
    if now.get("checkpoint") is not None:
        row.append((f"  ckpt {number(now['checkpoint'])}", "muted"))
    if live and now.get("images_per_s"):
        row.append((f"  {number(round(now['images_per_s'], -1))} images/s", ""))
    if rate is not None and live and not is_frozen:  # otherwise nothing is sent, not even this line
        row.append((f"  {'' if is_narrow else 'screen '}{rate / 1000:.1f} kB/s", "muted"))
    if view.alerts and (last := view.last_alert):
        rows = [*row, (f"  last: {last}", "warning")]
        row += rows[-1:] if width is None else _last_part(rows, width, ascii_only)
    return [row]


def _last_part(row: Row, width: int, ascii_only: bool) -> Row:
    """Return the last part of a row, cut to the columns that the others leave; empty without room for its sense."""
    *before, (text, pen) = row
    room = width - sum(len(part) for part, _ in before)
    if len(text) > room:
        text = f"{text[: room - 1]}{'~' if ascii_only else '…'}" if room >= _SENSE else ""
    return [(text, pen)] if text else []


def _cut(name: str, room: int, ascii_only: bool) -> str:
    """Cut a name to `room` columns, but keep its last four letters: runs of one recipe differ in these."""
    return name if len(name) <= room else f"{name[: room - 5]}{'~' if ascii_only else '…'}{name[-4:]}"


def _progress(step: int, of: int | None, is_narrow: bool) -> str:
    if not of:
        return f"step {step:,}"
    return progress(step, of) if is_narrow else f"step {step:,}/{of:,} {step / of:.0%}"


def sparks(view: RunView, charts: Sequence[Sequence[str]], ascii_only: bool) -> list[Row]:
    """Return each chart as a name, a value and a short curve, for screens with room for only one chart."""
    rows: list[Row] = []
    for keys in charts[:CHARTS]:
        line = view.line(keys[0], "step")
        name = title_of(keys[:1])
        last = view.last.get(keys[0], float("nan"))
        rows.append(
            [
                (f" {name:<14.14}", "muted"),
                (f"{number(last):>9} ", "strong"),
                (signs.spark(line.mean, 50, ascii_only), ""),
            ]
        )
    return rows


def lines_of(view: RunView, is_console: bool, most: int) -> list[Row]:
    """Return the last lines of the journal, or of the trainer's output."""
    if is_console:
        return [[(line, "")] for line in view.console()[-most:]]
    return journal(list(view.series.journal.rows)[-most:])


def wrapped(rows: Sequence[Row], width: int) -> list[Row]:
    """Wrap rows to `width` columns: if the last part is too long, it continues below, aligned with its start."""
    found: list[Row] = []
    for *before, (text, pen) in rows:
        indent = sum(len(part) for part, _ in before)
        room = max(1, width - indent)
        first, *others = [text] if len(text) <= room else wrap(plain(text), room, drop_whitespace=False)
        found.append([*before, (first, pen)])
        found += [[(" " * indent, ""), (part, pen)] for part in others]
    return found


def journal(rows: Sequence[JournalRow]) -> list[Row]:
    """Return one line per journal row, the newest last."""
    stamps = moments([row.get("time") for row in rows])
    lines = [f"{row.get('step', '?')} {said(row)}" for row in rows]
    return [[(f"{s} ", "muted"), (t, _loudness(row))] for s, t, row in zip(stamps, lines, rows, strict=True)]


def _loudness(row: JournalRow) -> str:
    kinds = {"warning": "warning", "diverged": "error", "failed": "error", "finished": "good", "request": "strong"}
    return kinds.get(str(row.get("kind")), "")
