"""The texts in a chart's frame: its title with the average, and the values at the cursor."""

import numpy as np

from cmbench.text import plain
from cmbench.tui.widgets.chart_window import Window
from cmbench.views.lines import Line
from cmbench.views.smoothing import width_in_rows
from cmbench.words.numbers import number


def title(window: Window) -> str:
    """Return a chart's title, with the scale if it is not linear and the average if there is one."""
    kind = "" if window.scale.kind == "linear" else f" {window.scale.kind}"
    return f"{window.title}{kind}{_average(window)}"


def _average(window: Window) -> str:
    """Return the name of the average: its kind, and its standard deviation as a share of the rows and in rows."""
    widths = {width_in_rows(line.count, window.strength) for line in window.lines if window.is_averaged(line)}
    if not widths:
        return ""
    many = "s" * (max(widths) > 1)
    rows = f", {'/'.join(map(str, sorted(widths)))} row{many}" if len(widths) < 3 else ""
    alone = " here" if window.smoothing and window.title in window.smoothing.alone else ""
    return f" gauss {100 * window.strength:g}%{rows}{alone}"


def reading(window: Window) -> str:
    """Return the raw and averaged values of the rows at the cursor, each with its place."""
    read = list(window.at_cursor())
    places = [_place(window, line, i) for line, i in read]
    together = len(set(places)) == 1
    parts = places[:1] if together else []
    for (line, i), place in zip(read, places, strict=True):
        own = [plain(line.label)] if len(window.lines) > 1 else []
        parts.append(" ".join([*own, *([] if together else [place]), _value(window, line, i)]))
    return "  ".join(parts)


def _place(window: Window, line: Line, i: int) -> str:
    """Return the name of a row's place; of several rows taken together, "to" and the place of the last."""
    name = _name(window, float(line.x[i]))
    return f"to {name}" if line.rows[i] > 1 else name


def _name(window: Window, x: float) -> str:
    return (window.x.name or window.x.label)(x)


def _value(window: Window, line: Line, i: int) -> str:
    """Return the value of a row, or the mean of several, and the average there."""
    many = line.rows[i] > 1
    if not line.count[i]:
        return "not finite"
    text = number(float(line.mean[i])) + (f" mean of {line.count[i]:.0f}" if many else "")
    text += ", not all finite" if many and line.bad[i] else ""
    mean = window.average(line)
    if mean is None or not np.isfinite(mean[i]):
        return text
    return f"{text} (gauss {number(window.scale.inverse(float(mean[i])))})"


def values(window: Window) -> str:
    """Return the full values at the cursor, or the last of each line: one line of text for each."""
    found = []
    for line in window.lines:
        i = window.row_at_cursor(line)
        i = len(line.x) - 1 if i is None else i
        if i >= 0:
            found.append(plain(f"{line.label} {_name(window, float(line.x[i]))} {float(line.mean[i])!r}"))
    return "\n".join(found)
