"""A run on a card of text: what the dashboard tells, for pipes, logs and terminals that show lines alone."""

import numpy as np

from cmbench.cli import _plots
from cmbench.cli._lines import event_line
from cmbench.rundir.layout import RunDir
from cmbench.tui import report
from cmbench.tui.scales import number
from cmbench.tui.text import plain
from cmbench.tui.view import RunView, quality_keys

WIDTH = 80
_HEIGHT = 9
_EVENTS = 5


def card(run: RunDir) -> list[str]:
    """Return the lines of a card, each at most 80 columns."""
    view = RunView(run)
    view.read()
    while view.series.behind:
        view.read()
    lines = ["".join(text for text, _ in report.header(view, None, False, ascii_only=True)[0]).strip()]
    lines += [f"path {plain(run.path)}", ""]
    for keys in [["loss"], ["tangent_norm"], quality_keys(view.keys)[:1]]:
        if keys and keys[0] in view.keys:
            lines += _chart(view, keys[0])
    last = view.series.metrics.last
    lines += [f"  {report.title_of([key]):<24}{number(last[key]):>12}" for key in view.keys if key in last]
    lines += ["", *(plain(event_line(row)) for row in list(view.series.journal.rows)[-_EVENTS:])]
    return [line[:WIDTH] for line in lines]


def _chart(view: RunView, key: str) -> list[str]:
    line = view.line(key, "step")
    if not np.isfinite(line.mean).any():
        return []
    x, y = line.x.tolist(), [float(v) if np.isfinite(v) else None for v in line.mean]
    ends = {x[0]: number(x[0]), x[-1]: number(x[-1])}
    text = _plots.chart([_plots.Series(x, y, "*", joined=True)], ends, height=_HEIGHT, at_most=WIDTH)
    return [report.title_of([key]), *text.splitlines()]
