import math

import numpy as np
import pytest
import torch

from cmbench.evaluation.sliced_wasserstein import sliced_wasserstein


def draws(n, *shape, seed=0):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_equal_sets_in_any_order_have_no_distance():
    x = draws(50, 3)
    assert sliced_wasserstein(x, x[torch.randperm(50)]) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("shift", [0.0, 0.3, -2.0])
def test_a_shift_on_the_line_is_its_own_distance(shift):
    x = draws(100, 1)
    assert sliced_wasserstein(x, x + shift) == pytest.approx(abs(shift), rel=1e-12)


def test_on_the_line_it_is_the_distance_of_the_quantiles():
    """For Gaussians of equal quantile levels z: sqrt(mean((dm + ds z)^2)), whatever the order of the samples."""
    z = draws(200, 1)
    x, y = 0.3 + 0.4 * z, -0.5 + 1.1 * z[torch.randperm(200)]
    expected = (0.8 - 0.7 * z).square().mean().sqrt().item()
    assert sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)


def test_it_is_the_second_wasserstein_distance_and_not_the_first():
    """One of two points moves by one: W2 = sqrt(1/2), W1 = 1/2."""
    assert sliced_wasserstein(torch.tensor([[0.0], [5.0]]), torch.tensor([[0.0], [6.0]])) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(("n", "m"), [(3, 4), (10, 15), (7, 1), (12, 36)])
def test_sets_of_unequal_size_are_compared_as_if_repeated_to_equal_size(n, m):
    x, y = draws(n, 4), draws(m, 4, seed=1)
    whole = math.lcm(n, m)
    expected = sliced_wasserstein(x.repeat(whole // n, 1), y.repeat(whole // m, 1))
    assert sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-12)


def test_sets_of_unequal_size_on_the_line_integrate_the_quantile_functions():
    x, y = np.sort(draws(5, 1)[:, 0].numpy()), np.sort(draws(8, 1, seed=1)[:, 0].numpy())
    levels = (np.arange(40_000) + 0.5) / 40_000
    difference = x[(levels * 5).astype(int)] - y[(levels * 8).astype(int)]
    expected = math.sqrt((difference**2).mean())
    got = sliced_wasserstein(torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None])
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("d", [2, 5])
def test_a_shift_in_space_counts_its_mean_square_projection(d):
    """E (u . delta)^2 = |delta|^2 / d; (u . delta)^2 / |delta|^2 has variance 2 (d - 1) / (d^2 (d + 2))."""
    x, delta = draws(20, d), torch.arange(1.0, d + 1)
    got = sliced_wasserstein(x, x + delta, projections=20_000) ** 2 * d / delta.square().sum().item()
    error = math.sqrt(2 * (d - 1) / (d + 2) / 20_000)
    assert got == pytest.approx(1, abs=4 * error)


def test_it_is_a_distance():
    x, y, z = (draws(30, 2, seed=s) * (s + 1) for s in range(3))
    assert sliced_wasserstein(x, y) == pytest.approx(sliced_wasserstein(y, x), rel=1e-12)
    assert sliced_wasserstein(x, z) <= sliced_wasserstein(x, y) + sliced_wasserstein(y, z)
    assert sliced_wasserstein(x, y) > 0


def test_it_grows_with_the_scale_and_ignores_a_common_shift():
    x, y = draws(30, 2), draws(40, 2, seed=1)
    distance = sliced_wasserstein(x, y)
    assert sliced_wasserstein(3 * x, 3 * y) == pytest.approx(3 * distance, rel=1e-12)
    assert sliced_wasserstein(x + 7, y + 7) == pytest.approx(distance, rel=1e-10)


def test_pictures_are_compared_as_vectors():
    x, y = draws(10, 1, 3, 3), draws(10, 1, 3, 3, seed=1)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x.flatten(1), y.flatten(1))


def test_directions_follow_from_the_seed():
    x, y = draws(10, 2), draws(10, 2, seed=1)
    torch.manual_seed(5)
    one = sliced_wasserstein(x, y, projections=8)
    torch.manual_seed(6)
    assert one == sliced_wasserstein(x, y, projections=8)
    assert one != sliced_wasserstein(x, y, projections=8, seed=1)


def test_directions_are_uniform():
    """A set spread along one axis is seen alike whichever axis it is."""
    line = draws(50, 1)
    sets = [torch.nn.functional.pad(line, (i, 2 - i)) for i in range(3)]
    distances = [sliced_wasserstein(s, torch.zeros(50, 3), projections=20_000) for s in sets]
    assert distances == pytest.approx([line.square().mean().div(3).sqrt().item()] * 3, rel=0.03)
