import numpy as np
import pytest
from tui_host import alone, picture

from cmbench.tui.widgets.stack import Stack

NAMES = ("stable", "spatial", "temporal")


def parts(*sizes):
    return [(name, np.asarray(size, float)) for name, size in zip(NAMES, sizes, strict=False)]


def columns(stack):
    """How many cells each part takes in each column."""
    rows = [row[9:-1] for row in picture(stack)[1:-2]]
    signs = "#+." if stack.ascii else "█▒░"
    return np.array([[[row[x] for row in rows].count(sign) for x in range(len(rows[0]))] for sign in signs])


@pytest.mark.parametrize("ascii", [False, True])
def test_heights_are_the_shares(ascii):
    async def steps(stack, pilot):
        stack.show(parts([1, 0, 2], [1, 0, 1], [2, 0, 1]))
        found = columns(stack)
        rows = 16 - 3
        assert found[:, 0] == pytest.approx(np.array([1, 1, 2]) / 4 * rows, abs=1)
        assert (found[:, 25] == 0).all()
        assert found[:, -1] == pytest.approx(np.array([2, 1, 1]) / 4 * rows, abs=1)
        assert found[:, 0].sum() == found[:, -1].sum() == rows
        text = "\n".join(picture(stack))
        assert all(name in text for name in NAMES)
        assert "largest sum 4" in text
        assert not ascii or text.isascii()

    alone(lambda: Stack("tangent"), steps, ascii=ascii)


def test_title_and_note_are_there_without_parts():
    async def steps(stack, pilot):
        assert " tangent " in picture(stack)[0]
        stack.note = "none yet"
        stack.show([])
        assert " tangent " in picture(stack)[0]
        assert " none yet " in picture(stack)[-1]
        stack.show(parts([1, 2]))
        assert "none yet" not in picture(stack)[-1]

    alone(lambda: Stack("tangent"), steps)


@pytest.mark.parametrize("width", [22, 60, 200])
def test_the_highest_bin_is_seen_at_any_width(width):
    async def steps(stack, pilot):
        for spike in range(0, 128, 7):
            size = np.ones(128)
            size[spike] = 50.0
            stack.show(parts(size))
            assert columns(stack)[0].max() == 13

    alone(lambda: Stack("t"), steps, size=(width, 16))


@pytest.mark.parametrize(
    "sizes",
    [
        [[np.nan, 1, 2], [1, np.nan, np.inf]],
        [[-np.inf, -3, 2]],
        [[0, 0]],
        [[np.nan, np.nan]],
        [[]],
        [[1e300, 1], [1e300, 1]],
        [[5]],
        [],
    ],
)
def test_any_numbers_in_any_size(sizes):
    async def steps(stack, pilot):
        stack.show(parts(*sizes))
        for size in ((60, 16), (1, 1), (2, 2), (10, 3), (14, 4), (13, 5), (160, 45)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            stack.show(parts(*sizes))
            assert [len(row) for row in picture(stack)] == [size[0]] * size[1]

    alone(lambda: Stack("t"), steps)


def test_what_is_no_number_counts_nothing():
    async def steps(stack, pilot):
        stack.show(parts([2, np.nan], [np.inf, 2]))
        found = columns(stack)
        assert found[:, 0].tolist() == [13, 0, 0]
        assert found[:, -1].tolist() == [0, 13, 0]

    alone(lambda: Stack("t"), steps)
