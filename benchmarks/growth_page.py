"""Writes the figures of growth.py into docs/performance.md, between two marks."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from cmbench.rundir.files import write_atomically

Found = Mapping[str, Any]
Tell = Callable[[list[int], list[Found]], str]  # values and points of a sweep, as a cell of the table
NETWORKS = {"mlp": "MLP", "unet": "U-Net", "dit": "DiT"}
MARKS = "<!-- growth -->", "<!-- end of growth -->"
NEAR_BEST = 0.9  # of the best rate
NONE = ""  # a sweep that there is not
CHARTS = """\
![The rate over the batch size, the time of a step over width and picture size](images/growth_size.svg)

![What rows, bins and averages take of a step, in per cent](images/growth_extras.svg)
"""


def points(found: Found, what: str, network: str) -> tuple[list[int], list[Found]]:
    """Return the values and the points of a sweep; both are empty if there is none."""
    asked = [sweep for sweep in found["sweeps"] if (sweep["what"], sweep["network"]) == (what, network)]
    rows = [row for sweep in asked for row in sweep["points"]]
    return [row["value"] for row in rows], rows


def spent(row: Found) -> float:
    """Return the share of a step that diagnostics and recording take."""
    return row["shares"]["diagnostics"] + row["shares"]["recording"]


def rates(rows: Sequence[Found]) -> list[float]:
    """Return the images a second of each batch size, to the first."""
    return [row["value"] / rows[0]["value"] / row["seconds"] for row in rows]


def best_from(rows: Sequence[Found]) -> int:
    """Return the smallest batch whose rate is near that of the best."""
    found = rates(rows)
    return next(row["value"] for row, rate in zip(rows, found, strict=True) if rate >= NEAR_BEST * max(found))


def block(found: Found) -> str:
    """Return what stands between the marks."""
    rounds, version = found["rounds"], found["torch"].partition("+")[0]
    about = f"Taken on {_day(found['date'])} with torch {version}: medians of {rounds} rounds, on one thread of a CPU."
    return f"{about}\n\n{CHARTS}\n{_table(found)}\n{_of_ranks(found)}"


def write(page: Path, found: Found) -> None:
    """Put it there, at once: a reader and a kill find the old page or the new.

    Raises:
        SystemExit: somebody has changed a mark.
    """
    text = page.read_text(encoding="utf-8")
    begin, end = (text.find(f"{mark}\n") for mark in MARKS)
    if not 0 <= begin < end or any(text.count(f"{mark}\n") != 1 for mark in MARKS):
        sys.exit(f"{page}: found other lines than one '{MARKS[0]}' and, after it, one '{MARKS[1]}'")
    write_atomically(page, f"{text[:begin]}{MARKS[0]}\n{block(found)}{text[end:]}".encode())


def _day(iso: str) -> str:
    return f"{(day := date.fromisoformat(iso)).day} {day:%B %Y}"


def _table(found: Found) -> str:
    """Return what the sweeps come to, a column for each network."""
    head = f"| | {' | '.join(NETWORKS.values())} |\n|---{'|---' * len(NETWORKS)}|\n"
    return head + "".join(
        f"| {title} | {' | '.join(_cell(tell, *points(found, what, network)) for network in NETWORKS)} |\n"
        for title, what, tell in LINES
    )


def _cell(tell: Tell, values: list[int], rows: list[Found]) -> str:
    return tell(values, rows) if rows else NONE


def _range(values: list[int], _: list[Found]) -> str:
    return f"{values[0]} to {values[-1]:,}"


def _gain(_: list[int], rows: list[Found]) -> str:
    return f"{max(rates(rows)):.1f} times"


def _near_best(_: list[int], rows: list[Found]) -> str:
    return f"{best_from(rows):,}"


def _overhead(_: list[int], rows: list[Found]) -> str:
    return f"{rows[0]['to_bare']:.2f} to {rows[-1]['to_bare']:.2f}"


def _doubled(values: list[int], rows: list[Found]) -> str:
    """Return the growth of time and operations by the last doubling."""
    half = max(i for i, value in enumerate(values) if 2 * value <= values[-1])
    seconds, flop = (rows[-1][name] / rows[half][name] for name in ("seconds", "flop"))
    return f"{values[half]} to {values[-1]:,}: {seconds:.1f}, {flop:.1f} times"


def _watched(_: list[int], rows: list[Found]) -> str:
    return _percent(spent(rows[0]), 1)


def _watched_rarely(values: list[int], rows: list[Found]) -> str:
    return f"{_percent(spent(rows[-1]), 1)}, every {values[-1]}"


def _with_bins(values: list[int], rows: list[Found]) -> str:
    return ", ".join(f"{values[i]}: {_percent(spent(rows[i]), 1)}" for i in (0, -1))


def _each(values: list[int], rows: list[Found]) -> str:
    """Return what a further average takes, as a share of a step with the fewest."""
    first, last = (row["shares"]["averages"] * row["seconds"] for row in (rows[0], rows[-1]))
    return _percent((last - first) / (values[-1] - values[0]), 2)


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


LINES: Sequence[tuple[str, str, Tell]] = (
    ("batch sizes", "batch", _range),
    ("best rate, to that of the smallest batch", "batch", _gain),
    (f"smallest batch with {_percent(NEAR_BEST)} of the best rate", "batch", _near_best),
    ("a step to a bare pass, smallest batch to largest", "batch", _overhead),
    ("twice the width: time, operations", "width", _doubled),
    ("twice the side of a picture: time, operations", "size", _doubled),
    ("diagnostics and recording, rows at each step", "rows", _watched),
    ("diagnostics and recording, rows at few steps", "rows", _watched_rarely),
    ("diagnostics and recording by bins", "bins", _with_bins),
    ("a further average, to a step with one", "averages", _each),
)


def _of_ranks(found: Found) -> str:
    head = "| ranks | batch size | rate, to one rank alone | efficiency | the first rank ran |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {row['ranks']} | {row['batch_size']} | {row['ranks'] * row['efficiency']:.2f} times "
        f"| {_percent(row['efficiency'])} | {_percent(row['cores'])} of the time |\n"
        for row in found["ranks"]
    )
