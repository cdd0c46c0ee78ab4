"""`cmbench edit`: each task on pictures and points, the user's own files, and what is refused."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench.engine import build, edit, weights

TASKS = ["inpaint", "upscale", "stroke", "interpolate", "denoise"]


def save(path: Path, x: np.ndarray) -> Path:
    Image.fromarray(x.astype(np.uint8)).save(path)
    return path


def tiles(path: Path, rows: int, columns: int, size: int = 8) -> np.ndarray:
    """Read a grid of pictures, (rows, columns, size, size, 3)."""
    with Image.open(path) as image:
        x = np.asarray(image.convert("RGB"))
    side = 32  # smaller pictures are enlarged to it, with two pixels between them
    assert x.shape == (rows * 34 + 2, columns * 34 + 2, 3)
    step = side // size
    cells = [
        [x[2 + 34 * i : 34 * i + 34 : step, 2 + 34 * j : 34 * j + 34 : step] for j in range(columns)]
        for i in range(rows)
    ]
    return np.array(cells)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_edits_held_out_pictures(cmbench, grey, home, task):
    done = cmbench(
        "edit", "--task", task, "--n", 2, "--out", "x.png", "--steps", 1 if task in ("denoise", "interpolate") else 3
    )
    assert (done.code, done.err) == (0, "")
    results = {"interpolate": 7, "denoise": 1}.get(task, 3)
    found = tiles(home / "x.png", 2, results + 2)
    held_out = edit.as_bytes(build.data(build.of_run(grey), torch.device("cpu")).held_out(4))
    if task == "interpolate":
        assert np.array_equal(found[:, [0, -1], ..., :1], held_out.reshape(2, 2, 8, 8, 1))
    else:
        assert np.array_equal(found[:, 0, ..., :1], held_out[:2])
    assert f"{task}, from the left: " in done.out
    assert done.out.splitlines()[-1].endswith(": x.png")
    assert not grey.samples.exists()


@pytest.mark.parametrize(("width", "side"), [(100, 8), (80, 8), (46, 8), (30, 4), (12, 1)])
def test_rows_are_made_smaller_until_they_fit_a_terminal(cmbench, grey, monkeypatch, width, side):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = cmbench("edit", "--n", 1, "--steps", 1).out.splitlines()[:-2]
    assert len(lines) == -(-side // 2)
    assert {len(line) for line in lines} == {5 * side + 4}
    assert 5 * side + 4 <= width


def test_known_pixels_of_the_user_s_picture_stay(cmbench, grey, home):
    rng = np.random.default_rng(0)
    picture, mask = rng.integers(0, 256, (8, 8)), np.zeros((8, 8))
    mask[2:5, 3:8] = 255
    save(home / "p.png", picture)
    save(home / "m.png", mask)
    done = cmbench(
        "edit", "--picture", "p.png", "--mask", "m.png", "--steps", 3, "--variations", 2, "--out", "x.png", "--json"
    )
    shown = json.loads(done.out)
    assert (shown["task"], shown["n"], shown["variations"], len(shown["sigmas"])) == ("inpaint", 1, 2, 3)
    assert (shown["columns"], shown["files"]) == (["original", "input", "result", "result"], ["x.png"])
    (row,) = tiles(home / "x.png", 1, 4)[..., 0]
    known = mask == 0
    for result in row[[0, 2, 3]]:
        assert np.abs(result.astype(int) - picture)[known].max() <= 1  # torchvision cuts where we round
    assert (np.abs(row[1].astype(int) - 127)[~known] <= 1).all()
    assert not np.array_equal(row[2][~known], row[3][~known])


def test_what_is_transparent_in_a_mask_is_known(cmbench, grey, home, monkeypatch):
    """As when white strokes are drawn on a new layer."""
    seen, own = [], edit.edit
    monkeypatch.setattr(edit, "edit", lambda *given: seen.append(given[3]) or own(*given))
    layer = np.full((8, 8, 4), 255)
    layer[..., 3] = 255 * np.eye(8)
    save(home / "m.png", layer)
    assert cmbench("edit", "--mask", "m.png", "--steps", 1, "--n", 1, "--out", "x.png").code == 0
    assert torch.equal(seen[0][0, 0], torch.eye(8, dtype=torch.bool))


def test_a_place_that_cannot_be_written_is_known_before_anything_is_drawn(cmbench, grey, home, monkeypatch):
    monkeypatch.setattr(edit, "edit", lambda *_: pytest.fail("it has drawn"))
    for place in ("runs", "tiny.toml/x.png"):
        done = cmbench("edit", "--out", place)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert f"--out {place}: cannot be written" in done.err


def test_a_grey_picture_is_coloured_and_keeps_its_luminance(cmbench, colour, home):
    save(home / "p.png", np.random.default_rng(0).integers(100, 150, (8, 8)))
    done = cmbench(
        "edit", "--task", "colourise", "--picture", "p.png", "--label", "china", "--steps", 2, "--out", "x.png"
    )
    assert done.code == 0, done.err
    (row,) = tiles(home / "x.png", 1, 5)
    assert np.array_equal(row[0], row[1])
    assert (row[2].std(axis=-1) > 0).any()


def test_a_small_picture_is_enlarged(cmbench, grey, home):
    small = np.random.default_rng(0).integers(0, 256, (4, 4))
    save(home / "p.png", small)
    assert cmbench("edit", "--task", "upscale", "--picture", "p.png", "--steps", 2, "--out", "x.png").code == 0
    given = tiles(home / "x.png", 1, 5)[0, 1, ..., 0].astype(int)
    assert np.abs(given - small.repeat(2, 0).repeat(2, 1)).max() <= 1


def test_a_conditional_run_takes_the_labels_of_held_out_pictures_or_the_given_one(cmbench, colour, monkeypatch):
    seen, forward = [], weights.Model.forward
    monkeypatch.setattr(
        weights.Model, "forward", lambda self, x, t, labels: seen.append(labels) or forward(self, x, t, labels)
    )
    own = build.data(build.of_run(colour), torch.device("cpu")).held_out_labels(4)
    assert cmbench("edit", "--steps", 1, "--variations", 1).code == 0
    assert cmbench("edit", "--steps", 1, "--variations", 1, "--label", "flower").code == 0
    assert [each.tolist() for each in seen] == [own.tolist(), [1] * 4]


def test_what_is_asked_for_in_another_way_has_another_file(cmbench, grey, home):
    save(home / "p.png", np.zeros((8, 8)))
    save(home / "m.png", np.eye(8) * 255)
    ways = [[], ["--n", 2], ["--seed", 1], ["--task", "upscale"], ["--task", "upscale", "--factor", 4]]
    ways += [["--mask", "m.png"], ["--picture", "p.png"], ["--steps", 3], ["--variations", 2], ["--ema", "none"]]
    files = [json.loads(cmbench("edit", "--steps", 2, *way, "--json").out)["files"][0] for way in ways]
    assert len(set(files)) == len(ways)
    before = Path(files[0]).read_bytes()
    assert json.loads(cmbench("edit", "--steps", 2, "--json").out)["files"] == [files[0]]
    assert Path(files[0]).read_bytes() == before


def test_a_variation_does_not_depend_on_their_number(cmbench, grey, home):
    for count in (1, 3):
        assert cmbench("edit", "--steps", 3, "--n", 1, "--variations", count, "--out", f"{count}.png").code == 0
    one, three = tiles(home / "1.png", 1, 3), tiles(home / "3.png", 1, 5)
    assert np.array_equal(one[0], three[0, :3])


def test_a_result_does_not_depend_on_the_pictures_beside_it(cmbench, grey, home):
    for count in (1, 3):
        assert cmbench("edit", "--steps", 3, "--n", count, "--variations", 2, "--out", f"{count}.png").code == 0
    one, three = tiles(home / "1.png", 1, 4).astype(int), tiles(home / "3.png", 3, 4).astype(int)
    assert np.abs(one[0] - three[0]).max() <= 1  # the arithmetic of another batch
    assert not np.array_equal(three[0, 2], three[0, 3])
    assert not np.array_equal(three[1, 2], three[2, 2])


@pytest.mark.parametrize("task", ["inpaint", "interpolate", "denoise"])
def test_points_are_edited_too(cmbench, trained, home, task, monkeypatch):
    seen, own = [], edit.edit
    monkeypatch.setattr(edit, "edit", lambda *given: seen.append(own(*given)) or seen[-1])
    done = cmbench("edit", "--task", task, "--n", 5, "--out", "x.png")
    assert (done.code, done.err) == (0, "")
    assert (home / "x.png").read_bytes().startswith(b"\x89PNG")
    (edited,) = seen
    if task == "inpaint":  # the first coordinate is known
        assert torch.equal(edited.results[..., 0], edited.original[:, None, 0].expand(5, 3))
        assert (edited.results[..., 1] != edited.original[:, None, 1]).all()


def test_a_diffusion_model_edits_by_the_flow_of_its_ode(cmbench, teacher, monkeypatch):
    """Its f of a point is Heun's way down from that point's noise level."""
    trained = weights.load(teacher, torch.device("cpu"))
    f, x = edit.consistency(trained, None), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    grid = [0.002 ** (1 / 7) + i / 17 * (2 ** (1 / 7) - 0.002 ** (1 / 7)) for i in range(18)]
    levels, D = [level**7 for level in reversed(grid)], trained.model.on_edm_path().denoise
    at = 2 * x
    for high, low in pairwise(levels):
        slope = (at - D(at, torch.full((3,), high))) / high
        then = at + (low - high) * slope
        at = at + (low - high) * (slope + (then - D(then, torch.full((3,), low))) / low) / 2
    torch.testing.assert_close(
        f(2 * x, torch.tensor([2.0]).expand(3)), D(at, torch.full((3,), 0.002)), rtol=1e-3, atol=1e-4
    )
    assert json.loads(cmbench("edit", "--task", "interpolate", "--json").out)["sigmas"] == [80.0]


def test_results_that_are_not_finite_are_announced(cmbench, grey, monkeypatch):
    monkeypatch.setattr(weights.Model, "forward", lambda self, x, t, labels=None: x * float("nan"))
    assert cmbench("edit", "--steps", 1, "--json").err == "cmbench: some results are not finite\n"


WITHOUT_A_RUN = {
    "task": (["--task", "paint"], ["--task", "'paint'", "inpaint, colourise", "did you mean 'inpaint'?"]),
    "mask of another task": (["--task", "upscale", "--mask", "m.png"], ["--mask", "upscale", "inpaint takes one"]),
    "factor of another task": (["--factor", "2"], ["--factor", "found 2", "upscale takes one"]),
    "n with a picture": (["--picture", "p.png", "--n", "2"], ["--n", "found 2", "--picture"]),
    "one picture to interpolate": (["--task", "interpolate", "--picture", "p.png"], ["--picture", "found 1", "2, or"]),
    "steps of denoise": (["--task", "denoise", "--steps", "2"], ["--steps", "found 2", "denoise: 1"]),
    "steps beyond the range": (["--steps", "1001"], ["--steps", "1000"]),
    "variations of denoise": (["--task", "denoise", "--variations", "2"], ["--variations", "found 2", "denoise: 1"]),
    "one picture between": (["--task", "interpolate", "--variations", "1"], ["--variations", "found 1", "at least 2"]),
    "label below zero": (["--label", "-1"], ["--label", "-1"]),
}
OF_GREY = {
    "colour": (["--task", "colourise"], ["--task", "colourise", "grey pictures", "inpaint, upscale, stroke,"]),
    "picture of another size": (["--picture", "wide.png"], ["--picture wide.png", "9x8 pixels", "allowed: 8x8"]),
    "small picture of another size": (
        ["--task", "upscale", "--picture", "wide.png"],
        ["--picture wide.png", "9x8 pixels", "allowed: 8x8 or 4x4"],
    ),
    "mask of another size": (["--mask", "wide.png"], ["--mask wide.png", "9x8 pixels", "allowed: 8x8"]),
    "black mask": (["--mask", "black.png"], ["--mask black.png", "no white"]),
    "text for a picture": (["--picture", "tiny.toml"], ["--picture tiny.toml", "cannot be read", "no picture"]),
    "folder for a picture": (["--picture", "runs"], ["--picture runs", "cannot be read"]),
    "picture that is not there": (["--picture", "no.png"], ["--picture no.png", "cannot be read", "No such file"]),
    "mask that is not there": (["--mask", "no.png"], ["--mask no.png", "cannot be read", "No such file"]),
    "factor that does not divide": (["--task", "upscale", "--factor", "3"], ["--factor", "found 3", "8x8: 2, 4, 8"]),
    "more than are held out": (["--n", "1000"], ["--n", "found 1000", "up to 360"]),
    "sigmas that ascend": (["--sigmas", "1,2"], ["--sigmas", "1,2", "descending", "up to 80"]),
    "sigmas beyond the range": (["--sigmas", "81"], ["--sigmas", "81", "up to 80"]),
    "sigmas of denoise": (["--task", "denoise", "--sigmas", "2,1"], ["--sigmas", "found 2", "denoise: 1"]),
    "label of an unconditional run": (["--label", "1"], ["--label", "unconditional"]),
    "unknown average": (["--ema", "0.7"], ["--ema", "'0.7'"]),
    "out that is a folder": (["--out", "runs"], ["--out runs", "cannot be written"]),
}
OF_POINTS = {
    "task": (["--task", "stroke"], ["--task", "stroke", "points of 2 numbers", "inpaint, interpolate, denoise"]),
    "picture": (["--picture", "black.png"], ["--picture", "points of 2 numbers"]),
    "mask": (["--mask", "black.png"], ["--mask", "points of 2 numbers"]),
}


@pytest.fixture
def complains(cmbench, home):
    save(home / "wide.png", np.full((8, 9), 200))
    save(home / "black.png", np.zeros((8, 8)))

    def check(*arguments: object, mentions: list[str], code: int = 2) -> None:
        before = sorted(home.rglob("*"))
        done = cmbench("edit", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (code, "", 1), done
        assert [text for text in mentions if text not in done.err] == [], done.err
        assert sorted(home.rglob("*")) == before

    return check


@pytest.mark.parametrize("case", WITHOUT_A_RUN)
def test_a_mistake_that_needs_no_run(complains, case):
    arguments, mentions = WITHOUT_A_RUN[case]
    complains(*arguments, mentions=mentions)


@pytest.mark.parametrize("case", OF_GREY)
def test_a_mistake_with_a_run_of_grey_pictures(complains, grey, case):
    arguments, mentions = OF_GREY[case]
    complains(*arguments, mentions=mentions)


@pytest.mark.parametrize("case", OF_POINTS)
def test_a_mistake_with_a_run_of_points(complains, trained, case):
    arguments, mentions = OF_POINTS[case]
    complains(*arguments, mentions=mentions)


def test_a_conditional_run_wants_the_class_of_a_picture(complains, colour):
    complains("--picture", "black.png", mentions=["--label: found none", "conditional"])
    complains("--task", "interpolate", mentions=["--label: found none", "conditional"])
    complains("--label", "5", mentions=["--label: found 5", "0 to 1", "china"])


def test_no_run_is_the_usual_message(complains):
    complains("nobody", code=4, mentions=["nobody", "no such run"])
