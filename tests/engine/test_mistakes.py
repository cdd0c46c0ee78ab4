"""The usual mistakes of published figures: each is found, and sound pictures are left alone."""

import numpy as np
import pytest
import torch

from cmbench.engine import mistakes

MEANS = (0.1, -0.05, -0.2)  # of channels, about those of CIFAR-10


@pytest.fixture
def pictures() -> torch.Tensor:
    noise = np.random.default_rng(0).normal(size=(64, 3, 8, 8)) * 0.5
    return torch.from_numpy(noise + np.array(MEANS)[:, None, None]).clamp(-1, 1).float()


def found(x: torch.Tensor, means: tuple[float, ...] = MEANS, shape: tuple[int, ...] = (3, 8, 8)) -> list[str]:
    return [line.partition(":")[0] for line in mistakes.of_pictures(x, means, shape)]


def test_sound_pictures_are_left_alone(pictures):
    assert found(pictures) == []
    assert found(pictures, (), ()) == []
    assert found(pictures * 1.2) == []  # samples may go a little beyond
    assert found(pictures[:, :1], (0.1,), (1, 8, 8)) == []
    assert found(torch.randn(50, 2), (), (2,)) == []


def test_values_of_another_range_are_found(pictures):
    assert found((pictures + 1) / 2) == ["wrong range"]
    assert "wrong range" in found((pictures + 1) * 127.5)
    assert found((pictures + 1) / 2, ()) == ["wrong range"]
    assert found(pictures.abs(), (0.4, 0.4, 0.4)) == []  # bright pictures, as the real ones are


def test_another_order_of_colours_is_found(pictures):
    assert found(pictures.flip(1)) == ["wrong order of colours"]
    assert found(pictures.flip(1), ()) == []


def test_pictures_of_another_size_are_found(pictures):
    assert found(pictures, shape=(3, 16, 16)) == ["other sizes"]


@pytest.mark.parametrize(
    ("n", "real", "says"),
    [
        (50_000, 50_000, []),
        (50_000, 0, []),
        (49_999, 0, ["biased upwards by the number of samples: 49,999, while published figures take 50,000"]),
        (50_000, 1000, ["too few real samples: of 1,000, their covariance has not full rank in 2,048 dimensions"]),
    ],
)
def test_too_few_samples_are_found(n, real, says):
    assert mistakes.of_size(n, 2048, real) == says


def test_fewer_samples_than_dimensions_are_found():
    first, second = mistakes.of_size(2048, 2048)
    assert first.startswith("too few samples: of 2,048, their covariance has not full rank")
    assert second.startswith("biased upwards")
