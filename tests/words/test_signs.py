import math

import numpy as np
import pytest

from cmbench.words import signs


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([None], ""),
        ([3.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([1.0, None, -1.0], "█ ▁"),
        ([1000.0, 100.0, 10.0, 1.0], "█▆▃▁"),  # by the logarithm
        ([10.0, 5.0, 1.0], "█▄▁"),
        ([1e308, 0.0, -1e308], "█▅▁"),
        ([math.inf, 1.0, 0.0, math.nan], " █▁ "),
    ],
)
def test_a_sparkline_goes_from_low_to_high(values, text):
    assert signs.sparkline(values) == text


def test_plain_terminals_get_plain_characters():
    assert signs.sparkline([0.0, 1.0], ascii=True).isascii()
    for state in (
        "starting",
        "running",
        "paused",
        "finished",
        "stopped",
        "diverged",
        "failed",
        "crashed",
        "lost",
        "odd",
    ):
        assert signs.sign(state, ascii=True)[0].isascii()
        assert len(signs.sign(state)[0]) == len(signs.sign(state, ascii=True)[0]) == 1


@pytest.mark.parametrize("ascii", [False, True])
def test_a_spark_rises_as_the_values_do(ascii):
    line = signs.spark(np.arange(100.0), 20, ascii)
    blocks = "_.,-~=*#" if ascii else "▁▂▃▄▅▆▇█"
    places = [blocks.index(c) for c in line]
    assert places == sorted(places)
    assert (places[0], places[-1], len(line)) == (0, len(blocks) - 1, 20)
    assert signs.spark(np.array([1.0, np.nan, np.nan, 2.0]), 4, ascii) == f"{blocks[0]}  {blocks[-1]}"
    assert signs.spark(np.full(3, 7.0), 10, ascii) == blocks[0] * 3
    assert signs.spark(np.empty(0), 10) == signs.spark(np.full(9, np.inf), 10) == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ct_edm-20261122-221503-a3f9", "ct_edm·a3f9"),
        ("my-run-20261122-221503-a3f9", "my-run·a3f9"),
        ("copied", "copied"),
        ("a-b-c-d", "a-b-c-d"),
    ],
)
def test_short_names_leave_out_the_date(name, expected):
    assert signs.short(name) == expected
