"""What f answered, drawn: strips that fit, planes with their wrong cells, and files that are damaged or not there."""

import numpy as np
import pytest
from rich.style import Style
from safetensors.numpy import load_file, save_file
from snapshot_runs import SIGMAS, SnapshotsApp, add_answers, captions, drive, make_run, pictures, screen_text
from tui_host import until

from cmbench.rundir.snapshots import AlbumReader
from cmbench.tui.colours import DARK, LIGHT
from cmbench.tui.widgets import film

COLOURS = film.mode_colours(DARK, True)


@pytest.fixture
def run(tmp_path):
    made = make_run(tmp_path, "ring-20261122-221503-a3f9", [10, 20], [1])
    for step, wrong in ((10, 8), (20, 1)):
        add_answers(made, step, wrong)
    return made


def of_pictures(n=3, side=8):
    x, f = (np.full((6, n, side, side, 3), value, np.uint8) for value in (50, 200))
    f[:, 1] = 220
    return film.Film("exact", False, SIGMAS.astype(float), x, f, None, None)


def of_points(run):
    return film.load_film(AlbumReader(run).read().films[20])


def test_rows_of_a_strip_are_pictures_of_x_above_those_of_f():
    made = film.strip(of_pictures(), 6 * 9 + 1, 2 * 9 * 2 + 1, COLOURS)
    assert made.latents == 2
    assert made.image.shape == (37, 55, 3)
    assert [made.image[y, 4, 0] for y in (4, 13, 22, 31)] == [50, 200, 50, 220]
    assert [sigma for _, sigma in made.labels] == SIGMAS.astype(float).tolist()
    for i, (middle, _) in enumerate(made.labels):
        assert 9 * i < middle < 9 * (i + 1)


@pytest.mark.parametrize("size", [(130, 80), (79, 38), (55, 20), (20, 10), (9, 4), (3, 2)])
@pytest.mark.parametrize("side", [0, 8, 32])
def test_a_strip_fits_and_shows_its_first_and_last_level(run, size, side):
    made = film.strip(of_pictures(side=side) if side else of_points(run), *size, COLOURS)
    assert made.image.shape[0] <= size[1]
    assert made.image.shape[1] <= size[0]
    assert 1 <= made.latents <= 3
    assert made.labels[0][1] == pytest.approx(80)
    assert len(made.labels) == 1 or made.labels[-1][1] == pytest.approx(0.002)


def test_an_answer_has_the_colour_of_its_mode_and_stands_where_it_is(run):
    made = film.strip(of_points(run), 6 * 13, 2 * 2 * 13 + 1, COLOURS)
    assert made.latents == 2
    last = made.image[14:26, 66:78]
    assert np.argwhere((last == COLOURS[0]).all(axis=2)).mean(axis=0) == pytest.approx([5.5, 10.5], abs=1)
    upper = made.image[40:52, 66:78]
    assert np.argwhere((upper == COLOURS[1]).all(axis=2)).mean(axis=0) == pytest.approx([0.5, 5.5], abs=1)


@pytest.mark.parametrize("size", [(130, 39), (79, 19), (55, 10), (20, 5), (9, 2), (3, 1)])
def test_without_colours_points_are_signs_and_f_the_letter_of_its_mode(run, size):
    lines, latents, labels = film.characters(of_points(run), *size)
    assert len(lines) <= size[1]
    assert all(len(line) <= size[0] for line in lines)
    assert 1 <= latents <= 3
    assert all(0 <= middle <= size[0] for middle, _ in labels)
    if size[0] > 50:
        text = "".join(lines)
        assert text.count("o") == len(labels) * latents
        assert {letter: text.count(letter) for letter in "abc"[:latents]} == dict.fromkeys("abc"[:latents], len(labels))
        assert "+" not in text  # f is where it should be
        assert text.count(".") > len(labels)


@pytest.mark.parametrize("theme", [DARK, LIGHT])
def test_modes_have_colours_of_their_own(theme):
    colours = film.mode_colours(theme, theme == DARK)
    assert len({tuple(colour) for colour in colours.tolist()}) == 24


@pytest.mark.parametrize("size", [(8, 4), (16, 8), (30, 20), (2, 1), (7, 30)])
def test_a_plane_fills_the_largest_square_and_marks_what_is_wrong(run, size):
    plane = film.load_plane(AlbumReader(run).read().planes[20], False)
    lines = film.plane_lines(plane, *size, Style(), COLOURS)
    side = max(1, min(size[1], size[0] // 2))
    assert len(lines) == side
    assert all(len(line) == side and all(len(cell.text) == 2 for cell in line) for line in lines)
    if side % 4 == 0:
        wrong = {(y, x) for y, line in enumerate(lines) for x, cell in enumerate(line) if cell.text == "x "}
        assert wrong == {(y, x) for y in range(side // 4) for x in range(side // 4)}
        assert lines[-1][0].style.bgcolor.triplet == tuple(COLOURS[2])


def test_without_colours_modes_are_letters_and_wrong_ones_capitals():
    plane = film.Plane(np.uint8([[0, 2], [255, 3]]), np.uint8([[0, 1], [2, 3]]))
    lines = film.plane_lines(plane, 4, 2, Style(), None)
    assert ["".join(cell.text for cell in line) for line in lines] == ["a C ", "? d "]
    assert [bool(cell.style.reverse) for line in lines for cell in line] == [False, True, True, False]


def test_a_key_shows_samples_film_and_plane_in_turn(run):
    async def steps(pilot):
        await until(pilot, lambda: captions(pilot) and captions(pilot)[0].startswith("1-step"))
        await pilot.press("V")
        await until(pilot, lambda: "exact trajectory above f(x_t, t), its end grey" in screen_text(pilot))
        assert "film strip" in screen_text(pilot).splitlines()[0]
        assert "sigma 80" in screen_text(pilot)
        await pilot.press("V")
        await until(pilot, lambda: "6.25 % of cells wrong: x" in screen_text(pilot))
        assert len(pictures(pilot)) == 2
        assert captions(pilot)[1].endswith("the exact map")
        await pilot.press("left")
        await until(pilot, lambda: "50 % of cells wrong: x" in screen_text(pilot))
        await pilot.press("V")
        await until(pilot, lambda: captions(pilot)[0].startswith("1-step"))

    for size in ((160, 45), (80, 24)):
        drive(SnapshotsApp(run), steps, size)


def test_what_no_file_tells_is_not_offered_and_what_is_damaged_has_a_line(tmp_path):
    old = make_run(tmp_path, "old", [10], [1])
    digits = make_run(tmp_path, "digits", [10, 20], [1])
    add_answers(digits, 20, pictures=True)

    async def of_old(pilot):
        await until(pilot, lambda: captions(pilot))
        await pilot.press("V")
        await until(pilot, lambda: "no film strip was recorded" in screen_text(pilot))
        assert captions(pilot)[0].startswith("1-step")

    async def of_digits(pilot):
        await until(pilot, lambda: captions(pilot))
        await pilot.press("V")
        await until(pilot, lambda: "sigma 80" in screen_text(pilot))
        await pilot.press("left")
        await until(pilot, lambda: "no film strip of step 10" in screen_text(pilot))
        await pilot.press("right", "V")
        await until(pilot, lambda: captions(pilot)[0].startswith("1-step"))  # there is no plane
        (digits.snapshots / "00000020_film.safetensors").write_bytes(b"torn")
        await pilot.press("V")
        await until(pilot, lambda: "00000020_film.safetensors cannot be read" in screen_text(pilot))

    drive(SnapshotsApp(old), of_old)
    drive(SnapshotsApp(digits), of_digits)


@pytest.mark.parametrize(
    "fixed",
    [
        {},
        {"trajectory": np.uint8([7])},
        {"x": np.zeros((6, 2, 2), np.float32)},
        {"x": np.zeros((6, 3), np.float32)},
        {"sigmas": np.zeros((2, 2), np.float32)},
        {"exact": np.zeros((3, 3), np.uint8)},
        {"exact": np.zeros(4, np.uint8)},
    ],
)
def test_files_of_other_shapes_have_a_line(run, fixed):
    path = run.snapshots / "fixed.safetensors"
    save_file({**load_file(path), **fixed} if fixed else {}, path)
    album = AlbumReader(run).read()
    found = film.load_plane(album.planes[20], False) if "exact" in fixed else film.load_film(album.films[20])
    assert isinstance(found, str)
    assert found.startswith("00000020_")


def test_plain_characters(run):
    async def steps(pilot):
        await until(pilot, lambda: captions(pilot))
        for key, last in (("V", "sigma 80"), ("V", "the exact map")):
            await pilot.press(key)
            await until(pilot, lambda last=last: last in screen_text(pilot))
            below = "\n".join(screen_text(pilot).splitlines()[1:-1])
            assert below.isascii(), [c for c in below if not c.isascii()]

    drive(SnapshotsApp(run, ascii=True), steps, (80, 24))
