import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from cmbench.tui.widgets.drawing import Pixels, Points, load


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "00000500_1step.png"
    Image.new("RGBA", (3, 2), (10, 20, 30, 255)).save(path)
    return path


def test_a_picture(png):
    drawing = load(png, None)
    assert isinstance(drawing, Pixels)
    assert drawing.tiles is None
    assert (drawing.image == (10, 20, 30)).all()
    assert drawing.image.shape == (2, 3, 3)
    assert load(png, None) is drawing


@pytest.mark.parametrize(
    ("samples", "xy", "lost"),
    [
        (np.array([[0.5, -1.0], [np.nan, 0.0], [0.0, np.inf]]), [[0.5, -1.0]], 2),
        (np.array([[0.1, 0.2, 9.0]]), [[0.1, 0.2]], 0),
        (np.array([[3.0], [1.0]]), [[3.0, 0.5], [1.0, -0.5]], 0),
        (np.arange(8.0).reshape(1, 2, 2, 2), [[0.0, 1.0]], 0),
    ],
)
def test_points_lie_beside_the_picture(png, samples, xy, lost):
    save_file({"samples": samples}, png.with_suffix(".safetensors"))
    drawing = load(png, png.with_suffix(".safetensors"))
    assert isinstance(drawing, Points)
    assert drawing.xy == pytest.approx(np.array(xy))
    assert drawing.lost == lost


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}"])
def test_without_readable_points_the_picture_is_shown(png, content):
    points = png.with_suffix(".safetensors")
    points.write_bytes(content)
    assert isinstance(load(png, points), Pixels)
    assert isinstance(load(png, png.with_name("gone.safetensors")), Pixels)


def test_what_cannot_be_read_is_one_line(png):
    Image.effect_noise((50, 50), 100).save(png)
    whole = png.read_bytes()
    assert load(png.with_name("gone.png"), None) == "gone.png is missing"
    for name, content in {"text.png": b"hello", "empty.png": b"", "gif.png": b"GIF89a" + bytes(20)}.items():
        png.with_name(name).write_bytes(content)
        assert load(png.with_name(name), None) == f"{name} is not a PNG"
    png.with_name("torn.png").write_bytes(whole[: len(whole) // 2])
    assert load(png.with_name("torn.png"), None).startswith("torn.png cannot be read: ")


def test_a_bomb_is_refused(png):
    Image.new("1", (20_000, 20_000)).save(png)
    assert load(png, None).startswith(f"{png.name} cannot be read: ")
    Image.new("1", (9_000, 10_000)).save(png)
    assert "too many" in load(png, None, "written again")


def test_data_beside_the_samples_are_told_where_they_make_sense(tmp_path):
    samples = np.zeros((3, 2), np.float32)
    for i, (data, told) in enumerate(
        [
            (np.ones((5, 2), np.float32), (5, 2)),
            (np.full((5, 2), np.nan, np.float32), None),
            (np.ones((5, 0), np.float32), None),
        ]
    ):
        path = tmp_path / f"{i}.safetensors"
        save_file({"samples": samples, "data": data}, path)
        drawing = load(tmp_path / f"{i}.png", path)
        assert isinstance(drawing, Points)
        assert (drawing.data is None) == (told is None)
        assert told is None or drawing.data.shape == told
