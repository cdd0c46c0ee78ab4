import pytest
from tui_host import alone, painted, picture

from cmbench.tui.widgets.grid import PENS
from cmbench.tui.widgets.line import Lines


@pytest.mark.parametrize("title", ["", "journal"])
def test_rows_of_parts(title):
    async def steps(lines, pilot):
        lines.show([[("one ", "strong"), ("two", "")], [("\x1b[2Jthree\n", "error")], *[[("below", "")]] * 40])
        rows, at = picture(lines), int(bool(title))
        assert rows[at].strip("│").startswith("one two")
        assert rows[at + 1].strip("│").startswith("␛[2Jthree␊")
        assert all(len(row) == 60 for row in rows)
        assert not title or f" {title} " in rows[0]
        styles = {text.strip(): style for text, style, _ in lines.render_line(at)}
        assert styles["one"].bold
        assert not styles["two"].bold
        with painted(lines) as regions:
            lines.show([[("one ", "strong"), ("TWO", "")], *lines.rows[1:]])
        assert [(r.x, r.y, r.width) for r in regions] == [(4 + at, at, 3)]
        with painted(lines) as regions:
            lines.show(list(lines.rows))
        assert regions == []

    alone(lambda: Lines(title), steps)


def test_every_pen_in_every_theme_and_any_size():
    async def steps(lines, pilot):
        for theme in sorted(lines.app.available_themes):
            lines.app.theme = theme
            await pilot.pause()
            lines.show([[(pen, pen) for pen in PENS], [(f"{i}", f"line-{i}") for i in range(8)]])
        for size in ((1, 1), (3, 2), (10, 3)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert len(picture(lines)) == size[1]

    alone(lambda: Lines("t"), steps)


def test_rows_may_depend_on_the_columns():
    async def steps(lines, pilot):
        lines.show(lambda width: [[(f"{width} columns", "")]])
        assert picture(lines)[0].strip() == "60 columns"
        await pilot.resize_terminal(30, 5)
        await pilot.pause()
        assert picture(lines)[0].strip() == "30 columns"

    alone(Lines, steps)


@pytest.mark.parametrize(("whole", "row"), [(False, "12345678 0123"), (True, "12345678     ")])
def test_parts_are_cut_or_left_out(whole, row):
    async def steps(lines, pilot):
        lines.show([[("12345678", ""), (" 0123456", ""), (" 9", "")], [("a part that is too long", "")]])
        assert picture(lines)[:2] == [row, "a part that i"]

    alone(lambda: Lines(whole=whole), steps, size=(13, 3))


def test_a_wide_name_pushes_what_follows_by_its_cells():
    async def steps(lines, pilot):
        lines.show([[("日本", ""), (" next", "")]])
        assert picture(lines)[0].startswith("日本 next")

    alone(Lines, steps)
