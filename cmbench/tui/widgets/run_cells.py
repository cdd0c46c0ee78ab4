"""A run as a row of a table: the columns for each width, their cells, and how they sort."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text

from cmbench.rundir import floors
from cmbench.rundir.overview import Glance, figure
from cmbench.text import plain
from cmbench.tui.text import cell
from cmbench.words import signs
from cmbench.words.numbers import number, progress
from cmbench.words.signs import short

WIDE = 140  # terminal columns from which there is room for a preview
_TAGS_FROM, _MIDDLE, _MORE_FROM = 150, 100, 76
_METRIC, _METRIC_LEAST = 18, 9  # characters: longest name of a metric's column, least width of the column
SPARK = 10  # characters of the sparkline

Sort = Callable[[Glance, float], float | str | None]


@dataclass(frozen=True)
class Column:
    """A column of the table; if `sort` is None, the table cannot be sorted by it."""

    key: str
    label: str
    width: int  # 0: the remaining width
    sort: Sort | None = None
    right: bool = False


@dataclass(frozen=True)
class Look:
    """Everything that a row shows; equal looks give equal rows."""

    glance: Glance
    age: str
    is_marked: bool
    course: tuple[float | None, ...]


_MARK = Column("mark", "", 1)
_STATE = Column("state", "state", 10, lambda glance, now: glance.state)
_SIGN = Column("state", "", 1, _STATE.sort)
_RUN = Column("run", "run", 0, lambda glance, now: plain(glance.name).casefold())
_TAGS = Column("tags", "tags", 12, lambda glance, now: " ".join(glance.written.tags).casefold() or None)
_STEP = Column("step", "step", 9, lambda glance, now: glance.step, right=True)
_LOSS = Column("loss", "loss", 8, lambda glance, now: glance.loss, right=True)
_QUALITY = Column("quality", "quality", 9, lambda glance, now: glance.quality, right=True)
_AGE = Column("age", "age", 5, lambda glance, now: int((now - glance.heartbeat) // 60), right=True)
_SPARK = Column("spark", "curve", SPARK)


def columns_at(width: int, metric: str = "") -> tuple[Column, ...]:
    """Return the columns that fit into a terminal's width, with one for `metric` if it is not empty."""
    return _with_metric(_usual_at(width), metric)


def _with_metric(columns: tuple[Column, ...], metric: str) -> tuple[Column, ...]:
    """Insert the column of a metric such as `last.N` after the quality column, which exists at every width."""
    if not metric:
        return columns
    place = columns.index(_QUALITY) + 1
    label = metric if len(metric) <= _METRIC else f"{metric[: _METRIC - 2]}.."
    shown = Column(metric, plain(label), max(_METRIC_LEAST, len(label)), sort_by(metric), right=True)
    return (*columns[:place], shown, *columns[place:])


def sort_by(key: str) -> Sort | None:
    """Return the sort key of a column or of a metric such as `best.sw_1step`; None if it is neither."""
    if key.startswith(("last.", "best.")):
        return lambda glance, now: figure(glance, key)
    return SORTED_BY.get(key)


def _usual_at(width: int) -> tuple[Column, ...]:
    more = (_AGE, _SPARK) if width >= _MORE_FROM else ()
    if width < _MIDDLE:
        return (_MARK, _SIGN, _RUN, _STEP, _LOSS, _QUALITY, *more)
    tags = (_TAGS,) if width >= _TAGS_FROM else ()
    return (_MARK, _STATE, _RUN, *tags, _STEP, _LOSS, _QUALITY, *more)


SORTED_BY = {column.key: column.sort for column in _usual_at(_TAGS_FROM) if column.sort is not None}


def in_order(glances: list[Glance], key: str, is_reversed: bool, now: float) -> list[Glance]:
    """Sort by a column. Runs without a value come last; among equal ones the newest comes first.

    Args:
        glances: the runs, oldest first.
        key: key of a sortable column, or a metric; anything else sorts by age.
        is_reversed: sort from high to low instead of low to high.
        now: the time from which ages are counted.
    """
    value = sort_by(key) or SORTED_BY["age"]
    values = [(value(glance, now), glance) for glance in reversed(glances)]
    there = sorted(
        (pair for pair in values if pair[0] is not None),
        key=lambda pair: pair[0],  # type: ignore[arg-type, return-value]
        reverse=is_reversed,
    )
    return [glance for _, glance in [*there, *(pair for pair in values if pair[0] is None)]]


def row(look: Look, columns: tuple[Column, ...], ascii: bool) -> dict[str, Text]:
    """Return the cells of a run by column key."""
    return {column.key: _CELLS.get(column.key, _metric)(look, column, ascii) for column in columns}


def fitted(text: str, width: int) -> str:
    """Cut a name in the middle, because its last four characters tell similar runs apart."""
    if len(text) <= width:  # wider characters are cut by the table
        return text
    return f"{text[: width - 6]}…{text[-5:]}" if width > 6 else text[:width]


def _mark(look: Look, column: Column, ascii: bool) -> Text:
    return cell(("*" if ascii else "★") if look.is_marked else "", "bold yellow")


def _state(look: Look, column: Column, ascii: bool) -> Text:
    sign, style = signs.sign(look.glance.state, ascii)
    return cell(sign if column.width == 1 else f"{sign} {look.glance.state}", style)


def _run(look: Look, column: Column, ascii: bool) -> Text:
    name = fitted(short(look.glance.name), column.width)
    return cell(name.translate({ord("·"): ".", ord("…"): "~"}) if ascii else name, "bold")


def _metric(look: Look, column: Column, ascii: bool) -> Text:
    return _figure(number(figure(look.glance, column.key)), column)


def _spark(look: Look, column: Column, ascii: bool) -> Text:
    return cell(signs.sparkline(look.course, ascii), "cyan")


_CELLS: dict[str, Callable[[Look, Column, bool], Text]] = {
    "mark": _mark,
    "state": _state,
    "run": _run,
    "tags": lambda look, column, ascii: cell(",".join(look.glance.written.tags), "magenta"),
    "step": lambda look, column, ascii: _figure(progress(look.glance.step, look.glance.of), column),
    "loss": lambda look, column, ascii: _figure(number(look.glance.loss), column),
    "quality": lambda look, column, ascii: _figure(
        floors.marked(number(look.glance.quality), look.glance.is_within_floor, ascii), column
    ),
    "age": lambda look, column, ascii: _figure(look.age, column),
    "spark": _spark,
}


def _figure(text: str, column: Column) -> Text:
    return cell(text.rjust(column.width))
