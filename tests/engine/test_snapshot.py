"""Pictures of samples, read back from their PNG."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cmbench.engine import snapshot
from cmbench.rundir.layout import RunDir


def opened(x):
    return np.asarray(Image.open(io.BytesIO(snapshot.to_png(x))))


def test_pictures_stand_in_a_grid_with_black_at_minus_one_and_white_at_one():
    x = torch.full((4, 1, 32, 32), -1.0)
    x[3] = 1.0
    pixels = opened(x)
    assert pixels.shape == (70, 70, 3)
    assert (pixels[2:34, 2:34] == 0).all()
    assert (pixels[36:68, 36:68] == 255).all()


def test_small_pictures_are_enlarged_by_a_whole_factor():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 2, 5] = 1.0
    tile = opened(x)[:, :, 0]
    white = np.argwhere(tile == 255)
    assert len(white) == 16
    assert (white.max(axis=0) - white.min(axis=0) == 3).all()


def test_points_are_drawn_where_they_are_with_the_second_coordinate_upwards():
    pixels = opened(torch.tensor([[0.75, 1.2]]))
    inked = np.argwhere(pixels.min(axis=2) < 255).mean(axis=0)
    assert pixels.shape == (384, 384, 3)
    assert inked == pytest.approx([(1.5 - 1.2) / 3 * 384, (0.75 + 1.5) / 3 * 384], abs=3)


@pytest.mark.parametrize(
    "x", [torch.full((5, 2), torch.nan), torch.full((5, 2), 9.0), torch.linspace(-1, 1, 7)[:, None]]
)
def test_points_that_are_far_or_not_finite_or_on_a_line_are_no_error(x):
    assert opened(x).shape == (384, 384, 3)


def test_points_are_kept_beside_what_they_are_to_be_like_and_pictures_are_not(tmp_path):
    run, x, data = RunDir(tmp_path), torch.rand(5, 2), torch.rand(7, 2)
    assert snapshot.write(run, 3, {1: x}, data) == ["00000003_1step.png"]
    kept = load_file(run.snapshots / "00000003_1step.safetensors")
    assert torch.equal(kept["samples"], x)
    assert torch.equal(kept["data"], data)
    snapshot.write(run, 4, {1: torch.zeros(4, 1, 8, 8)}, data)
    assert sorted(path.name for path in run.snapshots.glob("00000004*")) == ["00000004_1step.png"]
