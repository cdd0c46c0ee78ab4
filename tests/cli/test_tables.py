"""Tables on the terminal."""

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmbench.cli._tables import table


@pytest.mark.parametrize("width", [12, 23, 24, 25, 26, 80])
@pytest.mark.parametrize("last", [" y ", "two\nlines"])
def test_a_table_is_richs_of_its_cells(capsys, monkeypatch, width, last):
    monkeypatch.setenv("COLUMNS", str(width))
    headers, rows = ["run", "", "note"], [["a", "1.5", "[b] 漢字 x"], ["", "-", ""], ["long name", "+20", last]]
    table(headers, rows)
    whole = Table(box=None, pad_edge=False, header_style="bold")
    for header, side in zip(headers, ("left", "right", "left"), strict=True):
        whole.add_column(header, justify=side, overflow="fold", no_wrap=header == "run")
    for row in rows:
        whole.add_row(*map(Text, row))
    found = capsys.readouterr().out
    Console().print(whole)
    assert found == capsys.readouterr().out
