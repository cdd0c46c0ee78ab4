"""Tables on the terminal."""

import random

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmbench.cli import _screen
from cmbench.cli._screen import table

WORDS = ["", "-", "1", "2.5", "+2.04e+08", "[b] 漢字", " y ", "a word", "at 256000000 images", "longer-than-others"]


def drawn(capsys, draw) -> str:
    capsys.readouterr()
    draw()
    return capsys.readouterr().out


def cell_by_cell(headers, rows) -> None:
    whole = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for i, header in enumerate(headers):
        numbers = all(row[i] in ("", "-", "1", "2.5", "+2.04e+08") for row in rows)
        whole.add_column(header, justify="right" if numbers else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        whole.add_row(*map(Text, row))
    Console(markup=False).print(whole)


@pytest.mark.parametrize("seed", range(20))
def test_a_table_is_richs_of_its_cells(capsys, monkeypatch, seed):
    monkeypatch.setattr(_screen, "is_terminal", lambda: True)
    chance = random.Random(seed)
    columns = [chance.sample(WORDS, 3) for _ in range(chance.randint(1, 6))]
    headers = [chance.choice(WORDS) for _ in columns]
    rows = [[chance.choice(column) for column in columns] for _ in range(chance.randint(0, 6))]
    for width in range(12, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        assert drawn(capsys, lambda: table(headers, rows)) == drawn(capsys, lambda: cell_by_cell(headers, rows)), width


@pytest.mark.parametrize("seed", range(3))
def test_so_is_one_of_many_rows(capsys, monkeypatch, seed):
    chance = random.Random(seed)
    monkeypatch.setenv("COLUMNS", "100")
    columns = [chance.sample(WORDS, 3) for _ in range(4)]
    headers = [chance.choice(["", "a word", " y ", "漢字"]) for _ in columns]
    rows = [[chance.choice(column) for column in columns] for _ in range(300)]
    assert drawn(capsys, lambda: table(headers, rows)) == drawn(capsys, lambda: cell_by_cell(headers, rows))


def test_a_line_break_in_a_cell_is_shown(capsys):
    rows = [["a", "two\nlines"], ["b", "one"]]
    lines = drawn(capsys, lambda: table(["run", "note"], rows)).splitlines()
    assert [line.split() for line in lines] == [["run", "note"], ["a", "two␊lines"], ["b", "one"]]


@pytest.mark.parametrize("columns", [None, "20"])
def test_what_is_no_terminal_gets_each_row_on_a_line(capsys, monkeypatch, columns):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    rows = [["a" * 150, "b" * 150, "c" * 5], ["d", "e", "f"]]
    lines = drawn(capsys, lambda: table(["run", "note", "tag"], rows, spare=2)).splitlines()
    assert [line.split() for line in lines] == [["run", "note", "tag"], *rows]
