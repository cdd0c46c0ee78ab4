"""Patches of two photographs: no held-out pixel is ever trained on, and each patch stands in its photograph."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_sample_image

from cmbench.data import patches
from cmbench.data.patches import Config, Data
from cmbench.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return Data(Config(), CPU)


def covered(places, size):
    seen = np.zeros((427, 640), bool)
    for y, x in places:
        seen[y : y + size, x : x + size] = True
    return seen


@pytest.mark.parametrize("settings", [{}, {"size": 16, "stride": 3}, {"held_out": 0.3}, {"size": 64, "stride": 32}])
def test_no_held_out_pixel_is_trained_on(settings):
    config = Config(**settings)
    for seed in range(2):
        free, held = patches._places(config, seed)
        assert len(free)
        assert len(held)
        assert not (covered(free, config.size) & covered(held, config.size)).any()


def test_patches_are_cut_from_their_photographs(data):
    for pictures, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        for i in (0, len(pictures) // 2, len(pictures) - 1):
            photograph = load_sample_image(f"{data.names[labels[i]]}.jpg")
            windows = np.lib.stride_tricks.sliding_window_view(photograph, (32, 32), axis=(0, 1))
            corner = (windows[..., 0, 0] == pictures[i, :, 0, 0].numpy()).all(axis=-1)
            assert any(np.array_equal(windows[y, x], pictures[i].numpy()) for y, x in np.argwhere(corner))


def test_all_places_of_the_grid_are_taken(data):
    assert data.shape == (3, 32, 32)
    assert data.train.dtype == torch.uint8
    assert data.count_and_held_out == (sum(data.counts), 2 * 6 * 25)
    free, _ = patches._places(Config(), 0)
    assert data.counts[0] == len(free) > 3000
    assert (free % 8 == 0).all()


def test_labels_are_the_photographs_and_the_first_held_out_ones_are_of_both(data):
    assert data.names == ("china", "flower")
    assert data.train_labels.bincount().tolist() == list(data.counts)
    assert set(data.held_out_labels(20).tolist()) == {0, 1}
    assert data.summary == f"{sum(data.counts):,} patches, and 300 held out, of china and flower"


def test_one_photograph_is_one_class():
    data = Data(Config(pictures=["flower"]), CPU)
    assert (data.classes, data.names) == (1, ("flower",))


def test_data_are_the_same_each_time(data):
    again = Data(Config(), CPU)
    assert torch.equal(again.train, data.train)
    assert torch.equal(again.test, data.test)


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(UsageError, match=r"data\.held_out: found 0.99 with data\.size = 64, which leaves no patches"):
        Data(Config(held_out=0.99, size=64), CPU)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pictures": ["chine"]}, "pictures: found 'chine', allowed: .*; did you mean 'china'"),
        ({"pictures": []}, r"pictures: found \[\], allowed: one or more of china, flower, each once"),
        ({"pictures": ["china", "china"]}, "each once"),
        ({"size": 107}, "less than or equal to 106"),
        ({"stride": 0}, "greater than or equal to 1"),
        ({"held_out": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_make_no_patches_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config(**settings)


def test_the_recipe_knows_the_deviation(data):
    x = data.train.double() / 127.5 - 1
    assert abs(float(x.std(unbiased=False)) - 0.65) < 0.01
