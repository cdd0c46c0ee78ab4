import dataclasses
import time

import pytest
from fake_runs import fake_run

from cmbench.rundir.overview import Overview
from cmbench.tui.widgets.run_cells import SORTED_BY, Look, columns_at, fitted, in_order, row


@pytest.fixture
def glances(tmp_path):
    fake_run(tmp_path, "b_run", age=500, step=3, loss=None, sw=0.2, tags=["z"])
    fake_run(tmp_path, "A_run", age=400, step=9, loss=-1.0, sw=None)
    fake_run(tmp_path, "d_run", age=300, step=3, loss=0.5, sw=0.1, state="stopped", tags=["a"])
    fake_run(tmp_path, "c_run", age=200, step=1, loss=0.5, sw=None, state="diverged")
    return Overview(tmp_path).read()


@pytest.mark.parametrize(
    ("key", "up", "down"),
    [
        ("run", "Abcd", "dcbA"),
        ("state", "cAbd", "dAbc"),
        ("step", "cdbA", "Adbc"),
        ("loss", "Acdb", "cdAb"),  # equals the newest first, either way
        ("quality", "dbcA", "bdcA"),
        ("tags", "dbcA", "bdcA"),
        ("age", "cdAb", "bAdc"),
    ],
)
def test_what_is_missing_comes_last_in_either_order(glances, key, up, down):
    orders = [in_order(glances, key, is_reversed, time.time()) for is_reversed in (False, True)]
    assert ["".join(glance.name[0] for glance in order) for order in orders] == [up, down]


def test_every_column_but_mark_and_curve_sorts():
    assert set(SORTED_BY) == {column.key for column in columns_at(160)} - {"mark", "spark"}


@pytest.mark.parametrize("width", [60, 80, 99, 100, 139, 140, 300])
def test_each_width_has_columns_with_room_for_the_name(width):
    columns = columns_at(width)
    keys = [column.key for column in columns]
    assert {"mark", "state", "run", "step", "loss", "quality"} <= set(keys)
    table = width - 44 if width >= 140 else width
    assert table - sum(column.width + 2 for column in columns) - 1 >= (20 if width >= 80 else 8)


@pytest.mark.parametrize("width", [76, 80, 99, 100, 160])
def test_an_age_stands_where_a_curve_does(width):
    assert [column.key for column in columns_at(width)][-2:] == ["age", "spark"]


def test_names_are_cut_in_their_middle():
    assert fitted("short·a3f9", 10) == "short·a3f9"
    assert fitted("a_long_name·a3f9", 12) == "a_long…·a3f9"
    assert fitted("a_long_name·a3f9", 4) == "a_lo"


def test_no_cell_is_wider_than_its_column(glances):
    large = dataclasses.replace(glances[0], step=123_456_789_012, of=987_654_321_098, loss=-1.23456e-30)
    cells = row(Look(large, "99999d", True, (1.0,) * 10), columns_at(160), False)
    for column in columns_at(160):
        if column.width and column.key != "age":
            assert cells[column.key].cell_len <= column.width


def test_a_row_in_ascii_is_ascii(glances):
    glance = dataclasses.replace(
        glances[0], run=type(glances[0].run)(glances[0].run.path / "ct_edm-20261122-221503-a3f9")
    )
    columns = [dataclasses.replace(column, width=column.width or 8) for column in columns_at(160)]
    cells = row(Look(glance, "now", True, (1.0, 2.0)), tuple(columns), True)
    assert all(cell.plain.isascii() for cell in cells.values())
    assert cells["run"].plain == "ct~.a3f9"
