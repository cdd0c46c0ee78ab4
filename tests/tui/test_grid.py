import numpy as np
import pytest
from rich.cells import cell_len
from rich.style import Style
from textual.color import Color
from textual.geometry import Region
from tui_host import alone, painted, picture

from cmbench.tui.widgets.grid import _NEAR, Grid, GridWidget, cut, laid_out, whole_parts

RNG = np.random.default_rng(0)


class Board(GridWidget):
    """Shows the grid that it is given."""

    def __init__(self, framed=False):
        super().__init__()
        self.framed, self.cells, self.inks = framed, {}, [Style.null(), Style(color="red")]

    def draw(self, width, height):
        grid = Grid.blank(width, height)
        for (x, y), (sign, style) in self.cells.items():
            grid.write(x, y, sign, style)
        return grid, self.inks


def covered(regions):
    return {(x, y) for region in regions for y in region.line_range for x in range(region.x, region.right)}


def test_writing_stays_within_the_edges():
    grid = Grid.blank(4, 2)
    for x, y, text in ((-2, 0, "abcdefgh"), (3, 1, "xyz"), (0, 5, "no"), (0, -1, "no"), (9, 0, "no"), (-9, 0, "no")):
        grid.write(x, y, text, 1)
    assert ["".join(row) for row in grid.characters] == ["cdef", "   x"]
    assert grid.styles.tolist() == [[1, 1, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a数é", "a数é"),
        ("ae\u0301q\u0301", "aéq?"),  # of the second letter and its mark there is no single character
        ("モデ\u30c6\u3099", "モデデ"),  # as macOS writes names
        ("\u1112\u1161\u11ab", "한"),
        ("👍🏽⚠\ufe0f", "👍?⚠"),
        ("\0a\x1b\u202e\u2066\x9b", "a????"),
        ("数" * 20, "数" * 6),
    ],
)
def test_what_stands_in_the_cells(text, shown):
    grid = Grid.blank(12, 1)
    grid.write(0, 0, text, 0)
    assert "".join(grid.characters[0]).rstrip() == shown
    assert cell_len("".join(grid.characters[0])) == 12
    assert len(laid_out(text)) >= cell_len(shown)
    grid.make_ascii()
    row = "".join(grid.characters[0])
    assert row.isascii()
    assert len(row) == 12


def test_no_half_of_a_wide_character_is_left():
    grid = Grid.blank(9, 1)
    for x, text, shown in (
        (-1, "数数", " 数      "),
        (6, "数数", " 数   数 "),
        (2, "x", "  x   数 "),
        (7, "x", "  x    x "),
        (0, "数数数", "数数数 x "),
        (1, "数", " 数 数 x "),
        (-1, "数", " 数 数 x "),
        (8, "数", " 数 数 x "),
    ):
        grid.write(x, 0, text, 0)
        assert "".join(grid.characters[0]) == shown
    assert cut(laid_out("a数b"), 1, 2) == cut(laid_out("a数b"), 2, 3) == " "


def is_cut(grid, region):
    """Whether an edge of a region lies in a wide character."""
    row = grid.characters[region.y]
    return any(0 < x < len(row) and not row[x] for x in (region.x, region.right))


@pytest.mark.parametrize("framed", [False, True])
def test_wide_characters_are_painted_whole(framed):
    async def steps(board, pilot):
        board.repaint()
        for _ in range(150):
            before, place = board._grid, (int(RNG.integers(-1, 60)), int(RNG.integers(0, 3)))
            board.cells.pop(place, None)
            board.cells[place] = ("".join(RNG.choice(list("数モab "), int(RNG.integers(1, 9)))), 0)
            with painted(board) as regions:
                board.repaint()
            after = board._grid
            assert {cell_len(row) for row in picture(board)} == {60}
            assert not any(is_cut(grid, region) for grid in (before, after) for region in regions)
            differs = zip(*np.nonzero(before.characters != after.characters), strict=True)
            assert {(int(x), int(y)) for y, x in differs} <= covered(regions)

    alone(lambda: Board(framed), steps)


def test_a_frame_has_wide_titles():
    async def steps(board, pilot):
        board.frame_title, board.frame_note = "モデル" * 9, "数" * 9
        for columns in range(1, 40):
            await pilot.resize_terminal(columns, 4)
            await pilot.pause()
            board.repaint()
            rows = picture(board)
            assert [cell_len(row) for row in rows] == [columns] * 4
            assert columns < 4 or (rows[0][0], rows[0][-1], rows[-1][0], rows[-1][-1]) == tuple("╭╮╰╯")

    alone(lambda: Board(True), steps)


def test_labels_are_written_where_they_have_room():
    grid = Grid.blank(12, 1)
    grid.write_apart(2, 0, [(0, "abc"), (3, "no"), (4, "d"), (9, "efg")], 0)
    assert "".join(grid.characters[0]) == "  abc d  efg"


@pytest.mark.parametrize("framed", [False, True])
def test_only_what_changed_is_painted_and_nothing_when_nothing_did(framed):
    async def steps(board, pilot):
        board.repaint()
        for _ in range(30):
            before, inner = picture(board), board.inner_height
            board.cells[(int(RNG.integers(0, 50)), int(RNG.integers(0, inner)))] = (chr(97 + int(RNG.integers(26))), 0)
            with painted(board) as regions:
                board.repaint()
            after = picture(board)
            changed = {(x, y) for y in range(16) for x in range(60) if before[y][x] != after[y][x]}
            assert changed <= covered(regions)
            assert len(covered(regions)) == len(changed) <= 1
            with painted(board) as regions:
                board.repaint()
            assert regions == []

    alone(lambda: Board(framed), steps)


def test_near_changes_are_one_region_and_far_ones_two():
    async def steps(board, pilot):
        for apart in (_NEAR, _NEAR + 1):
            board.cells = {(5, 2): (str(apart % 10), 0), (5 + apart, 2): (str(apart % 10), 0)}
            with painted(board) as regions:
                board.repaint()
            if apart == _NEAR:
                assert regions == [Region(5, 2, apart + 1, 1)]
        board.cells = {(5, 2): ("x", 0), (6 + _NEAR, 2): ("x", 0)}
        with painted(board) as regions:
            board.repaint()
        assert regions == [Region(5, 2, 1, 1), Region(6 + _NEAR, 2, 1, 1)]

    alone(Board, steps)


def test_a_change_of_style_is_painted_and_a_new_palette_paints_all():
    async def steps(board, pilot):
        board.cells = {(3, 3): ("x", 0)}
        board.repaint()
        board.cells = {(3, 3): ("x", 1)}
        with painted(board) as regions:
            board.repaint()
        assert regions == [Region(3, 3, 1, 1)]
        board.inks = [Style.null(), Style(color="blue")]
        with painted(board) as regions:
            board.repaint()
        assert regions == [None]

    alone(Board, steps)


def test_what_is_rendered_is_what_is_drawn():
    async def steps(board, pilot):
        board.inks = [Style.null(), Style(color="red"), Style(bgcolor="blue"), Style(color="green", bold=True)]
        signs, styles = RNG.choice(list("ab  "), (16, 60)), RNG.integers(0, 4, (16, 60))
        board.cells = {(x, y): (str(signs[y, x]), int(styles[y, x])) for y in range(16) for x in range(60)}
        board.repaint()
        for y in range(16):
            line = [(c, style) for text, style, _ in board.render_line(y) for c in text]
            assert len(line) == 60
            for x, (sign, style) in enumerate(line):
                wanted = board.rich_style + board.inks[styles[y, x]]
                assert sign == signs[y, x]
                assert style.bgcolor == wanted.bgcolor
                assert sign == " " or style == wanted  # of a space only the background shows

    alone(Board, steps)


@pytest.mark.parametrize("ascii", [False, True])
def test_a_frame_with_its_title_and_note(ascii):
    async def steps(board, pilot):
        board.frame_title, board.frame_note = "a\x1b[31mtitle° é" + "x" * 90, "note·"
        for size in ((60, 16), (6, 4), (5, 3), (4, 2), (3, 3), (2, 1), (1, 1), (30, 5)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            board.repaint()
            rows = picture(board)
            assert [len(row) for row in rows] == [size[0]] * size[1]
            assert all(c.isprintable() and (not ascii or c.isascii()) for row in rows for c in row)
            if size[0] >= 4 and size[1] >= 2:
                assert [rows[0][0], rows[0][-1], rows[-1][0], rows[-1][-1]] == list("++++" if ascii else "╭╮╰╯")
        assert rows[-1].endswith(" note- -+" if ascii else " note· ─╯")

    alone(lambda: Board(True), steps, ascii=ascii)


def test_focus_and_theme_are_shown():
    class Focusable(Board, can_focus=True):
        pass

    async def steps(board, pilot):
        corner = board.render_line(0)
        board.app.set_focus(None)
        await pilot.pause()
        assert [s.style.color for s in board.render_line(0)] != [s.style.color for s in corner]
        board.focus()
        await pilot.pause()
        assert board.render_line(0) == corner
        for theme in ("textual-light", "nord", "ansi-dark", "colour-blind"):
            board.app.theme = theme
            await pilot.pause()
            wanted = Color.parse(board.app.theme_variables["primary"]).rich_color
            assert wanted == board.style("focus").color == board.render_line(0)._segments[0].style.color

    alone(lambda: Focusable(True), steps)


def test_of_a_note_whole_parts_are_left_out():
    note = "0.041 0.047  floor 0.04  best 0.03 @3000"
    assert whole_parts(note, 99) == note
    assert whole_parts(note, len(note) - 1) == "0.041 0.047  floor 0.04"
    assert whole_parts(note, 23) == "0.041 0.047  floor 0.04"
    assert whole_parts(note, 22) == "0.041 0.047"
    assert whole_parts(note, 4) == "0.04"
    assert whole_parts("", 4) == ""
