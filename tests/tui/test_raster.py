import numpy as np
from rich.style import Style

from cmbench.tui.widgets.raster import half_blocks, ramp

BASE = Style.parse("white on black")
FOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], dtype=np.uint8)


def test_two_by_two_pixels_are_two_half_blocks():
    (line,) = half_blocks(FOUR, BASE)
    assert [segment.text for segment in line] == ["▀", "▀"]
    shown = [(tuple(s.style.color.triplet), tuple(s.style.bgcolor.triplet)) for s in line]
    assert shown == [((255, 0, 0), (0, 0, 255)), ((0, 255, 0), (255, 255, 255))]


def test_equal_cells_are_one_piece_and_an_odd_row_lies_on_the_ground():
    lines = half_blocks(np.full((3, 5, 3), 9, dtype=np.uint8), BASE)
    assert [[segment.text for segment in line] for line in lines] == [["▀" * 5]] * 2
    assert lines[0][0].style.bgcolor.triplet == (9, 9, 9)
    assert lines[1][0].style.bgcolor == BASE.bgcolor


def test_the_ramp_goes_by_brightness():
    image = np.array([[[0, 0, 0], [255, 255, 255], [0, 255, 0], [0, 0, 255]]], dtype=np.uint8)
    (dark,), (light,) = ramp(image, BASE), ramp(image, BASE, dark=False)
    assert dark[0].text == " @+."
    assert light[0].text == "@ =%"
    assert len(ramp(np.zeros((5, 2, 3), dtype=np.uint8), BASE)) == 3
