"""Pictures as arrays: the arithmetic of the versions before, and of sizes that are not square."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cmbench.pictures import shape
from cmbench.pictures.decode import RefusedError
from cmbench.pictures.shape import Shaping


def array_of(source, shaping):
    return shaping.array_of("a", source)


def saved(path, height, width, channels=3):
    size = (height, width, 3) if channels == 3 else (height, width)
    Image.fromarray(np.random.default_rng(height * width).integers(0, 256, size, dtype=np.uint8)).save(path)
    return path


SIDES = [
    (8, 8),
    (9, 8),
    (8, 9),
    (31, 17),
    (17, 31),
    (64, 33),
    (5, 300),
    (300, 5),
    (101, 100),
    (1, 7),
    (12, 12),
    (13, 26),
]


@pytest.mark.parametrize(("height", "width"), SIDES)
@pytest.mark.parametrize("size", [1, 7, 8, 12, 32])
def test_squares_are_those_of_torchvision_bit_for_bit(tmp_path, height, width, size):
    """Earlier versions resized and cropped by torchvision; their runs go on with the same pixels."""
    path = saved(tmp_path / "a.png", height, width)
    before = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    for reader in ("cmbench", "torchvision"):
        x, _ = array_of(path, Shaping(size, size, reader=reader))
        assert np.array_equal(x, before(Image.open(path).convert("RGB")).numpy())


@pytest.mark.parametrize(("height", "width"), SIDES)
@pytest.mark.parametrize("sides", [(8, 12), (12, 8), (3, 40), (1, 1), (32, 31)])
def test_other_sizes_are_covered_and_cropped_at_the_centre(tmp_path, height, width, sides):
    path = saved(tmp_path / "a.png", height, width)
    x, _ = array_of(path, Shaping(*sides))
    assert x.shape == (3, *sides)
    scale = max(sides[0] / height, sides[1] / width)
    high, wide = (
        side if side == round(scale * own, 9) else int(scale * own + 1e-9)
        for side, own in zip(sides, (height, width), strict=True)
    )
    resized = (
        Image.open(path).resize((wide, high), Image.Resampling.BILINEAR)
        if (high, wide) != (height, width)
        else Image.open(path)
    )
    expected = v2.functional.center_crop(v2.functional.pil_to_tensor(resized), list(sides))
    assert np.array_equal(x, expected.numpy())


def test_a_wide_picture_keeps_its_proportions(tmp_path):
    """A disc stays one."""
    y, x = np.mgrid[:80, :200]
    Image.fromarray(np.where((y - 39.5) ** 2 + (x - 99.5) ** 2 < 30**2, 255, 0).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    seen, _ = array_of(tmp_path / "a.png", Shaping(20, 40, channels=1))
    inside = seen[0] > 127
    high, wide = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert high == wide
    assert abs(high - 15) <= 1


def test_one_channel_is_the_luma_of_colours_and_leaves_grey_as_it_is(tmp_path):
    x, _ = array_of(saved(tmp_path / "g.png", 8, 8, 1), Shaping(8, 8, 1))
    assert np.array_equal(x[0], np.asarray(Image.open(tmp_path / "g.png")))
    colours = np.asarray(Image.open(saved(tmp_path / "c.png", 8, 8)), float)
    x, _ = array_of(tmp_path / "c.png", Shaping(8, 8, 1))
    np.testing.assert_allclose(x[0], colours @ [0.299, 0.587, 0.114], atol=0.51)


def test_content_is_read_as_a_file_is(tmp_path):
    path = saved(tmp_path / "a.png", 9, 8)
    for reader in ("cmbench", "torchvision"):
        of_file, of_bytes = (array_of(source, Shaping(4, 4, reader=reader))[0] for source in (path, path.read_bytes()))
        assert np.array_equal(of_file, of_bytes)


@pytest.mark.parametrize(("content", "why"), [(b"", "empty"), (b"text", "no picture"), (b"\x89PNG\r\n\x1a\n", ".")])
def test_content_that_is_no_picture_is_refused(content, why):
    with pytest.raises(RefusedError, match=why):
        array_of(content, Shaping(4, 4))


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path):
    Image.new("L", (60000, 1)).save(tmp_path / "a.png")
    with pytest.raises(RefusedError, match="absurdly long: 60000x1"):
        array_of(tmp_path / "a.png", Shaping(64, 64))
    x, _ = array_of(tmp_path / "a.png", Shaping(1, 64))
    assert x.shape == (3, 1, 64)


def test_the_worker_modules_load_no_torch():
    """A worker is started for decoding alone."""
    import subprocess
    import sys

    script = "import sys, cmbench.pictures.workers, cmbench.pictures.prepare; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
    assert torch is not None
    assert shape.Source
