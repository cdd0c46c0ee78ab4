import numpy as np
import pytest

from cmbench.arrays import layout


@pytest.mark.parametrize(
    ("shape", "guess"),
    [
        ((9, 2), "points"),
        ((9, 28, 28), "grey"),
        ((9, 3, 32, 32), "chw"),
        ((9, 32, 32, 3), "hwc"),
        ((9, 1, 28, 28), "chw"),
        ((9, 28, 28, 1), "hwc"),
        ((9, 4, 16, 16), "chw"),
        ((9, 16, 16, 4), "hwc"),
        ((9, 8, 32, 32), "chw"),
        ((9, 32, 32, 8), "hwc"),
        ((9, 3, 20, 30), "chw"),
        ((9, 20, 30, 3), "hwc"),
        ((9, 16, 16, 16), None),
        ((9, 3, 3, 3), None),
        ((9, 3, 8, 4), None),
        ((9, 5, 6, 7), None),
        ((9, 28, 3, 3), None),
    ],
)
def test_a_layout_is_guessed_only_where_one_alone_is_likely(shape, guess):
    assert layout.guessed(shape) == guess


def test_a_layout_moves_the_channels_to_their_place():
    x = np.arange(120).reshape(2, 3, 4, 5)
    assert layout.sample_shape(x.shape, "hwc") == (5, 3, 4)
    assert layout.channels_second(x, "hwc").shape == (2, 5, 3, 4)
    assert layout.channels_second(x, "hwc")[1, 4, 2, 3] == x[1, 2, 3, 4]
    assert layout.sample_shape(x.shape, "chw") == (3, 4, 5)
    assert layout.sample_shape((2, 4, 5), "grey") == (1, 4, 5)
    assert layout.channels_second(x[0], "grey").shape == (3, 1, 4, 5)
