import numpy as np
import pytest
from snapshot_runs import drive
from textual.app import App, ComposeResult

from cmbench.tui.widgets.drawing import Pixels, Points
from cmbench.tui.widgets.picture import Picture

FOUR = Pixels(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], dtype=np.uint8), None)


class PictureApp(App[None]):
    CSS = "Picture { margin: 0; }"
    ascii = False

    def compose(self) -> ComposeResult:
        yield Picture()


def lines_of(picture):
    return picture.render_lines(picture.region.reset_offset)


def shown(drawing, size, ascii=False, caption="caption"):
    """The lines of a picture in a terminal of this size."""
    found = []
    app = PictureApp()
    app.ascii = ascii

    async def steps(pilot):
        picture = pilot.app.query_one(Picture)
        picture.show(caption, drawing)
        await pilot.pause()
        found.extend(lines_of(picture))

    drive(app, steps, size)
    return found


def test_a_picture_of_its_own_size_is_shown_pixel_by_pixel():
    caption, line = shown(FOUR, (2, 2), caption="")
    assert caption.text == "  "
    assert line.text == "▀▀"
    colours = [(tuple(s.style.color.triplet), tuple(s.style.bgcolor.triplet)) for s in line]
    assert colours == [((255, 0, 0), (0, 0, 255)), ((0, 255, 0), (9, 9, 9))]


@pytest.mark.parametrize(
    ("size", "width", "height", "left"), [((40, 11), 20, 10, 10), ((8, 20), 8, 4, 0), ((21, 12), 20, 10, 0)]
)
def test_aspect_is_kept_and_the_picture_is_in_the_middle(size, width, height, left):
    drawn = [line.text for line in shown(FOUR, size) if "▀" in line.text]
    assert len(drawn) == height
    assert {line.count("▀") for line in drawn} == {width}
    assert {line.index("▀") for line in drawn} == {left}


def test_plain_characters_in_ascii_mode():
    caption, line = shown(FOUR, (9, 2), ascii=True)
    assert caption.text == "caption  "
    assert line.text.strip() == ":-"
    points = Points(np.array([[-0.8, 0.8], [0.8, -0.8]]), lost=3)
    text = "\n".join(line.text for line in shown(points, (50, 9), ascii=True))
    assert text.isascii()
    assert "+-0.8, 3 not finite" in text


@pytest.mark.parametrize("theme", ["ansi-dark", "ansi-light"])
def test_without_colours_brightness_is_told_by_characters(theme):
    found = []

    async def steps(pilot):
        pilot.app.theme = theme
        picture = pilot.app.query_one(Picture)
        picture.show("", FOUR)
        await pilot.pause()
        found.append(lines_of(picture)[1].text)

    drive(PictureApp(), steps, (2, 2))
    assert found == [":-" if theme == "ansi-dark" else "#*"]


def test_points_are_dots_in_all_the_room_there_is():
    text = [line.text for line in shown(Points(np.array([[-0.79, 0.79], [0.79, -0.79], [7.0, 0.0]]), 0), (40, 5))]
    assert text[0].startswith("caption")
    assert text[0].rstrip().endswith("±0.8, 1 outside")
    assert [line.strip() for line in text[1:]] == ["⠁", "", "", "⢀"]
    assert (text[1].index("⠁"), text[4].index("⢀")) == (16, 23)
    wide = [line.text for line in shown(Points(np.array([[3.9, 0.01], [-3.9, 0.01]]), 0), (40, 5))]
    assert len(wide[2].strip()) == 40
    assert "outside" not in wide[0]


def test_shades_of_density_and_data_behind():
    crowd = np.random.default_rng(0).normal([-0.5, 0.5], 0.02, (300, 2))
    points = Points(np.vstack([crowd, [[0.5, -0.5]]]), 0, np.array([[0.5, 0.5]]))
    lines = shown(points, (60, 21))
    assert lines[0].text.rstrip().endswith("data grey")
    crowded, alone, behind = (
        {s.style.color for line in part for s in line if s.text.strip()}
        for part in (
            [line.crop(0, 30) for line in lines[1:11]],
            lines[11:],
            [line.crop(30, 60) for line in lines[1:11]],
        )
    )
    assert len(crowded) > 1
    assert len(alone) == len(behind) == 1
    assert not behind & (crowded | alone)
    assert len(set(next(iter(behind)).triplet)) == 1  # grey


def test_without_colours_data_behind_have_a_sign_of_their_own():
    points = Points(np.array([[-0.5, 0.5]]), 0, np.array([[0.5, -0.5]]))
    found = []

    async def steps(pilot):
        pilot.app.theme = "ansi-dark"
        picture = pilot.app.query_one(Picture)
        picture.show("", points)
        await pilot.pause()
        found.extend(line.text for line in lines_of(picture))

    drive(PictureApp(), steps, (40, 9))
    assert found[0].rstrip().endswith("data ░")
    assert [line.strip() for line in found[1:] if line.strip()] == ["⠄", "░"]


def test_text_that_others_wrote_is_shown_as_it_is():
    caption, line = shown("[b]x[/b] \x1b[31m", (40, 2), caption="[red]\x1b]0;t\x07")
    assert caption.text.strip() == "[red]␛]0;t␇"
    assert line.text.strip() == "[b]x[/b] ␛[31m"


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 30), (200, 2)])
@pytest.mark.parametrize("drawing", [FOUR, Points(np.zeros((5, 2)), 1), "damaged", ""])
def test_any_size_will_do(size, drawing):
    lines = shown(drawing, size)
    assert [line.cell_length for line in lines] == [size[0]] * size[1]


def test_only_lines_that_changed_are_painted_again():
    refreshed = []

    async def steps(pilot):
        picture = pilot.app.query_one(Picture)
        picture.show("a", FOUR)
        await pilot.pause()
        refresh = picture.refresh
        picture.refresh = lambda *regions, **options: (refreshed.append(regions), refresh(*regions, **options))[1]
        picture.show("a", FOUR)
        await pilot.pause()
        assert refreshed == []
        picture.show("b", FOUR)
        assert [region.y for region in refreshed.pop()] == [0]
        lower = FOUR.image.copy()
        lower[1] = 0
        picture.show("b", Pixels(lower, None))
        assert [region.y for region in refreshed.pop()] == list(range(6, 11))

    drive(PictureApp(), steps, (40, 11))
