"""What the dashboard says of a run, as rows of parts: text and style."""

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from cmbench.quantities import charts, title_of
from cmbench.rundir import floors
from cmbench.rundir.log import Row as JournalRow
from cmbench.rundir.settings import in_force
from cmbench.tui import signs
from cmbench.tui.canvas import Floats
from cmbench.tui.chart_lines import Line
from cmbench.tui.scales import Kind, duration, number
from cmbench.tui.system import Load
from cmbench.tui.text import plain, short
from cmbench.tui.view import RunView
from cmbench.tui.widgets.line import Part

Row = list[Part]

CHARTS = 6
_PATTERN = 20  # columns of a regular expression
_NARROW = 100  # columns from which on the steps stand in full, as the application's breakpoint
_WIDE = 30  # a curve whose values span more than this many times is seen better on a log axis
_PENS = {"green": "good", "cyan": "good", "yellow": "warning", "magenta": "warning", "red": "error"}


def pinned_first(groups: Sequence[list[str]], pins: Sequence[str]) -> list[list[str]]:
    """Return the metrics of each chart, those with a pinned metric first and in the order of the pins."""
    order = {key: place for place, key in enumerate(pins)}
    return sorted(groups, key=lambda group: min(order.get(key, len(order)) for key in group))


def found_by(keys: Sequence[str], pattern: str) -> list[list[str]]:
    """Return the metrics, a chart each, whose name or title holds a regular expression; titles in any case."""
    titled = {key: title_of(group) for group in charts(keys) for key in group}
    return [
        [key]
        for key in keys
        if re.search(pattern, key)
        or any(re.search(pattern, title, re.IGNORECASE) for title in (title_of([key]), titled[key]))
    ]


def scale_of(line: Line) -> Kind:
    """Return the vertical axis to begin with: log for values that are positive and far apart."""
    values = line.mean[np.isfinite(line.mean)]
    if not len(values) or values.min() <= 0:
        return "linear"
    low, high = np.quantile(values, [0.02, 0.98])
    return "log" if high > _WIDE * low else "linear"


def first_row(view: RunView) -> str:
    """Return when the first row of the metrics is to come; empty once one is there, or where that is not known."""
    if view.series.metrics.curves or view.recipe is None:
        return ""
    if view.is_still and view.status.get("state") != "paused":
        return "no rows: it ended before the first"
    train, step = view.recipe.train, view.status.get("step") or 0
    every = in_force(list(view.series.journal.settings)).get("log.every", view.recipe.log.every)
    if not every:
        return "no rows: log.every is 0"
    return f"first row at step {min((step // every + 1) * every, train.steps):,}"


def note_of(view: RunView, keys: Sequence[str], ascii_only: bool = False) -> str:
    """Return the last values of a chart, and the best of a quality beside its floor."""
    last = view.last
    values = " ".join(_figure(view, key, last[key], ascii_only) for key in keys if key in last)
    gap = abs(last.get(keys[0], np.nan) - last.get(keys[1], np.nan)) if len(keys) > 1 else np.nan
    values += f"  gap {number(gap)}" if np.isfinite(gap) else ""
    best = view.best(keys[0]) if keys else None
    if best is None:
        return values
    floor = floors.of_row(view.floors, keys[0])
    beside = f"  floor {floors.in_words(floor, number, ascii_only)}" if floor else ""
    shown = f"{values}  best {_figure(view, keys[0], best[0], ascii_only)} @{number(best[1])}"
    return shown + beside


def _figure(view: RunView, key: str, value: float, ascii_only: bool) -> str:
    """Return a figure, with a sign where it is within its floor."""
    return floors.marked(number(value), floors.is_within(view.floors, key, value), ascii_only)


def header(
    view: RunView, rate: float | None, is_frozen: bool, ascii_only: bool, width: int | None = None, pattern: str = ""
) -> list[Row]:
    """Return the line on top: what matters most comes first, for a narrow screen cuts off the end.

    Args:
        view: the run.
        rate: what the dashboard itself sends, bytes a second.
        is_frozen: whether it does not look at the run.
        ascii_only: whether plain characters alone may be used.
        width: columns there are; without it the name and the steps stand in full.
        pattern: what the names of the metrics that are shown were looked for with; empty for the usual ones.
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
    row.append((f"  {_progress(now.get('step') or 0, now.get('of'), is_narrow)}", ""))
    if pattern:
        row.append((f"  /{pattern if len(pattern) <= _PATTERN else f'{pattern[: _PATTERN - 2]}..'}/", "warning"))
    if behind := view.series.behind:
        row.append((f"  reading, {behind / 1e6:.0f} MB to go", "muted"))
    if live and now.get("eta_s"):
        row.append((f"  eta {_coarse(now['eta_s'])}", ""))
    if now.get("train_s") and not is_narrow:
        row.append((f"  trained {_coarse(now['train_s'])}", ""))
    if now.get("checkpoint") is not None:
        row.append((f"  ckpt {number(now['checkpoint'])}", "muted"))
    if live and now.get("images_per_s"):
        row.append((f"  {number(round(now['images_per_s'], -1))} images/s", ""))
    if rate is not None and live and not is_frozen:  # else nothing is sent, nor would this be to say so
        row.append((f"  {'' if is_narrow else 'screen '}{rate / 1000:.1f} kB/s", "muted"))
    return [row]


def _cut(name: str, room: int, ascii_only: bool) -> str:
    """Return a name in so many columns with its last four letters, by which runs of one recipe differ."""
    return name if len(name) <= room else f"{name[: room - 5]}{'~' if ascii_only else '…'}{name[-4:]}"


def _progress(step: int, of: int | None, is_narrow: bool) -> str:
    if not of:
        return f"step {step:,}"
    return signs.progress(step, of) if is_narrow else f"step {step:,}/{of:,} {step / of:.0%}"


def _coarse(seconds: float) -> str:
    """Return a time to three parts in a hundred: an estimate that changes every second only costs bytes."""
    for unit in (86400, 3600, 600, 60, 10):
        if seconds > 30 * unit:
            return duration(round(seconds / unit) * unit)
    return duration(round(seconds / 5) * 5 if seconds > 30 else round(seconds))


def system_line(loads: Sequence[Load]) -> str:
    """Return use and memory in a few words, the GPUs taken together, for screens without room for `system`."""
    gpus = [load for load in loads if load.name.startswith("GPU")]
    name = "GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
    others = [_in_words(load.name, [load]) for load in loads if load not in gpus]
    return "  ".join([*([_in_words(name, gpus)] if gpus else []), *others])


def _in_words(name: str, loads: Sequence[Load]) -> str:
    used = [load.used for load in loads if load.used is not None]
    taken = [load.memory for load in loads if load.memory is not None]
    text = f"{name} {sum(used) / len(used):.0%}" if used else name
    return f"{text} {_gib(sum(taken), sum(load.memory_total for load in loads))}" if taken else text


def _gib(taken: int, total: int) -> str:
    return f"{taken / 2**30:.0f}/{total / 2**30:.0f} GiB"


def system(loads: Sequence[Load], ascii_only: bool) -> list[Row]:
    """Return a bar of use and a bar of memory for each device, as far as it tells."""
    rows: list[Row] = []
    for load in loads:
        name = (f"{load.name:<6}", "strong")
        if load.used is None:
            rows.append([name, (" use not known", "muted")])
        else:
            rows.append([name, *_bar(load.used, ascii_only), (f" {load.used:>4.0%}", "")])
        if load.memory is not None:
            share = load.memory / max(1, load.memory_total)
            taken = _gib(load.memory, load.memory_total)
            rows.append([("memory", "muted"), *_bar(share, ascii_only), (f" {taken}", "")])
        if load.more:
            rows.append([("       " + load.more, "muted")])
    return rows


def _bar(share: float, ascii_only: bool, width: int = 12) -> Row:
    full = round(min(max(share, 0.0), 1.0) * width)
    used, free = ("#", ".") if ascii_only else ("━", "─")
    return [(" " + used * full, "good"), (free * (width - full), "muted")]


def sparks(view: RunView, charts: Sequence[Sequence[str]], ascii_only: bool) -> list[Row]:
    """Return each chart as a name, a value and a short curve, for screens that have room for one chart alone."""
    rows: list[Row] = []
    for keys in charts[:CHARTS]:
        line = view.line(keys[0], "step")
        name = title_of(keys[:1])
        last = view.last.get(keys[0], float("nan"))
        rows.append(
            [(f" {name:<14.14}", "muted"), (f"{number(last):>9} ", "strong"), (spark(line.mean, 50, ascii_only), "")]
        )
    return rows


def spark(values: Floats, width: int, ascii_only: bool = False) -> str:
    """Return a curve as a sparkline of the means of even parts; spaces where there is no value."""
    parts = [part[np.isfinite(part)] for part in np.array_split(values, max(1, min(width, len(values))))]
    return signs.sparkline([float(part.mean()) if len(part) else None for part in parts], ascii_only)


def lines_of(view: RunView, is_console: bool, most: int) -> list[Row]:
    """Return the last lines of the journal, or of what the trainer printed."""
    if is_console:
        return [[(line, "")] for line in view.console()[-most:]]
    return journal(list(view.series.journal.rows)[-most:])


def wrapped(rows: Sequence[Row], width: int) -> list[Row]:
    """Return rows in so many columns: what is too long at the end of one goes on below, under its own beginning."""
    found: list[Row] = []
    for *before, (text, pen) in rows:
        indent = sum(len(part) for part, _ in before)
        room = max(1, width - indent)
        first, *others = [text] if len(text) <= room else wrap(plain(text), room, drop_whitespace=False)
        found.append([*before, (first, pen)])
        found += [[(" " * indent, ""), (part, pen)] for part in others]
    return found


def journal(rows: Sequence[JournalRow]) -> list[Row]:
    """Return what happened, a line each, the newest last."""
    stamps = signs.moments([row.get("time") for row in rows])
    return [[(f"{s} ", "muted"), (said(row), _loudness(row))] for s, row in zip(stamps, rows, strict=True)]


def said(row: JournalRow) -> str:
    """Return one row of the journal in words."""
    kind = str(row.get("kind", "?"))
    details: dict[str, Any] = {
        "warning": row.get("text"),
        "data": row.get("text"),
        "request": _answer(row),
        "checkpoint": Path(str(row.get("folder", ""))).name + (" (best)" if row.get("best") else ""),
        "snapshot": ", ".join(map(str, files)) if isinstance(files := row.get("files"), list) else files,
        "diverged": f"the {row.get('what')} of the next step is not finite",
        "stopped": row.get("reason"),
        "failed": row.get("error"),
        "resumed": _abandoned(row),
        "forked": f"from {row.get('parent')}",
    }
    parts = [row.get("step", "?"), "" if kind == "request" else kind, details.get(kind)]
    text = " ".join(str(part) for part in parts if part not in (None, ""))
    return text + (" (replayed)" if row.get("replayed") else "")


def _answer(row: JournalRow) -> str:
    """Return what came of a request; the settings come last, for they may be cut off."""
    settings = _settings(row.get("settings"))
    return f"{row.get('action')} {row.get('result')}" + (f": {settings}" if settings else "")


def _settings(settings: object) -> str:
    return " ".join(f"{k}={v}" for k, v in settings.items()) if isinstance(settings, dict) else ""


def _abandoned(row: JournalRow) -> str:
    steps = row.get("abandoned")
    kept = f": checkpoints {', '.join(map(str, steps))}" if isinstance(steps, list) and steps else ""
    return f"by choice, the rest abandoned{kept}" if row.get("chosen") is True else ""


def _loudness(row: JournalRow) -> str:
    kinds = {"warning": "warning", "diverged": "error", "failed": "error", "finished": "good", "request": "strong"}
    return kinds.get(str(row.get("kind")), "")
