import pytest

from cmbench.tui.screens._snapshot_view import slider


@pytest.mark.parametrize(("position", "count", "column"), [(0, 5, 1), (4, 5, 18), (0, 1, 1), (2, 5, 9)])
def test_the_mark_lies_where_one_stands(position, count, column):
    line = slider(20, position, count)
    assert len(line) == 20
    assert (line[0], line[-1]) == ("├", "┤")
    assert abs(line.index("▲") - column) <= 1


def test_in_plain_characters():
    assert slider(12, 1, 2, ascii=True) == "|-------+-^|"
