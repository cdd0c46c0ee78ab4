"""A run as a text card: the dashboard's content for pipes, logs and terminals that only show lines."""

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from cmbench import quantities
from cmbench.cli import _plots, _screen
from cmbench.measures import quality_keys
from cmbench.rundir.layout import RunDir
from cmbench.text import plain
from cmbench.views import report
from cmbench.views.run import RunView
from cmbench.words.numbers import number
from cmbench.words.signs import ascii_alone

WIDTH = 80
_HEIGHT = 9
_EVENTS = 5


def card(run: RunDir, ascii_only: bool = False) -> Text:
    """Return a card; on a terminal its lines have at most 80 columns."""
    view = RunView(run)
    while view.read() and view.series.behind:
        pass
    lines: list[str | Text] = [
        _line("".join(text for text, _ in report.header(view, None, False, ascii_only=True)[0]).strip())
    ]
    lines += [_line(f"path {run.path}"), ""]
    for keys in [["loss"], ["tangent_norm"], quality_keys(view.keys)[:1]]:
        if keys and keys[0] in view.keys:
            lines += _chart(view, keys[0])
    last = view.last
    lines += [
        _line(f"  {plain(quantities.title_of([key])):<24}{number(last[key]):>12}") for key in view.keys if key in last
    ]
    rows = report.journal(list(view.series.journal.rows)[-_EVENTS:])
    lines += ["", *(_line("".join(text for text, _ in row)) for row in rows)]
    whole = Text("\n").join(line if isinstance(line, Text) else Text(line) for line in lines)
    return Text(ascii_alone(whole.plain)) if ascii_only else whole


def _line(text: str) -> str:
    """Return foreign text as one line, cut to fit where a terminal would fold it."""
    shown = plain(text)
    return shown if cell_len(shown) <= WIDTH or not _screen.is_terminal() else set_cell_size(shown, WIDTH).rstrip()


def _chart(view: RunView, key: str) -> list[str | Text]:
    line = view.line(key, "step")
    if not np.isfinite(line.mean).any():
        return []
    x, y = line.x.tolist(), [float(v) if np.isfinite(v) else None for v in line.mean]
    ends = {x[0]: number(x[0]), x[-1]: number(x[-1])}
    chart = _plots.chart([_plots.Series(x, y, "*", joined=True)], ends, height=_HEIGHT, at_most=WIDTH)
    return [plain(quantities.title_of([key])), chart]
