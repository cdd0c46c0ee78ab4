import numpy as np
import pytest
import torch

from cmbench.engine.snapshot import grid
from cmbench.tui.widgets.tiles import fit, join, scale, split

RNG = np.random.default_rng(0)


def as_png(x):
    return (grid(x).permute(1, 2, 0) * 255 + 0.5).clamp(0, 255).byte().numpy()


@pytest.mark.parametrize(("n", "side", "shape"), [(64, 8, (8, 8)), (16, 32, (4, 4)), (9, 28, (3, 3)), (10, 8, (4, 3))])
def test_a_grid_is_taken_apart_into_its_samples(n, side, shape):
    x = torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(n)) * 2 - 1
    tiles = split(as_png(x))
    assert tiles.shape == (*shape, side, side, 3)
    samples = ((x * 0.5 + 0.5) * 255 + 0.5).byte().permute(0, 2, 3, 1).numpy()
    assert (tiles.reshape(-1, side, side, 3)[:n] == samples).all()


def test_what_is_no_grid_stays_whole():
    image = RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    assert split(image) is None
    assert split(np.pad(image, ((2, 2), (2, 2), (0, 0)))) is None
    assert split(np.zeros((50, 50, 3), dtype=np.uint8)) is None
    assert split(np.zeros((1, 1, 3), dtype=np.uint8)) is None


def test_joined_samples_have_a_line_around_each():
    image = join(np.full((2, 3, 4, 5, 3), 200, dtype=np.uint8))
    assert image.shape == (2 * 5 + 1, 3 * 6 + 1, 3)
    assert (image[::5] == 64).all()
    assert (image[:, ::6] == 64).all()
    assert (image[1:5, 1:6] == 200).all()


def test_enlarging_is_by_a_whole_factor():
    image = RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    large = scale(image, 10, 9)
    assert large.shape == (6, 9, 3)
    assert (large[::3, ::3] == image).all()
    assert (large == large[::3, ::3].repeat(3, 0).repeat(3, 1)).all()


@pytest.mark.parametrize("room", [(20, 20), (7, 30), (30, 3), (1, 1), (39, 29)])
def test_shrinking_keeps_aspect_and_brightness(room):
    small = scale(np.full((30, 40, 3), 77, dtype=np.uint8), *room)
    height, width = small.shape[:2]
    assert width <= room[0]
    assert height <= room[1]
    assert abs(width - height * 4 / 3) < 4 / 3 or (width, height) == (1, 1)
    assert (small == 77).all()


def test_a_grid_without_room_shows_its_first_rows_and_columns():
    tiles = RNG.integers(0, 256, (8, 8, 8, 8, 3), dtype=np.uint8)
    image = join(tiles)
    whole = fit(image, tiles, 80, 80)
    assert (whole.shown, whole.of) == (64, 64)
    assert (whole.image == image).all()
    part = fit(image, tiles, 79, 40)
    assert (part.shown, part.of) == (32, 64)
    assert (part.image == image[:37]).all()


def test_a_grid_that_would_show_few_samples_is_shrunk():
    tiles = RNG.integers(0, 256, (8, 8, 32, 32, 3), dtype=np.uint8)
    small = fit(join(tiles), tiles, 64, 64)
    assert (small.shown, small.of) == (64, 64)
    assert small.image.shape == (64, 64, 3)


def test_a_few_samples_are_better_than_nothing_legible():
    tiles = RNG.integers(0, 256, (8, 8, 8, 8, 3), dtype=np.uint8)
    assert fit(join(tiles), tiles, 80, 18).shown == 8
    nothing = fit(join(tiles), tiles, 6, 6)
    assert (nothing.shown, nothing.image.shape) == (64, (6, 6, 3))
