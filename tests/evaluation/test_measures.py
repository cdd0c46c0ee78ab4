"""Each measure against a closed form or an independent implementation."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from cmbench.evaluation import _distances
from cmbench.evaluation.coverage import coverage
from cmbench.evaluation.density import density
from cmbench.evaluation.energy_distance import energy_distance
from cmbench.evaluation.frechet_distance import frechet_distance
from cmbench.evaluation.kernel_mmd import kernel_mmd
from cmbench.evaluation.nearest_neighbour import nearest_neighbour
from cmbench.evaluation.precision import precision
from cmbench.evaluation.recall import recall
from cmbench.evaluation.sliced_wasserstein import sliced_wasserstein
from cmbench.measures import OF_SAMPLES

SIZES = [(40, 40), (60, 25), (25, 60)]


def draws(n, *shape, seed=0, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, *shape, dtype=torch.float64, generator=generator)


def pair(sizes, d=3):
    return draws(sizes[0], d), draws(sizes[1], d, seed=1, scale=1.4, shift=0.3)


def quantiles(n, mean, deviation):
    """The normal distribution as n equally likely points, (n, 1)."""
    return torch.from_numpy(stats.norm.ppf((np.arange(n) + 0.5) / n, mean, deviation))[:, None]


def test_wasserstein_of_gaussians_on_the_line():
    """W2^2 = (m_1 - m_2)^2 + (s_1 - s_2)^2 (Dowson & Landau 1982), up to the tails that 20,000 points leave out."""
    found = sliced_wasserstein(quantiles(20_000, 0.3, 0.4), quantiles(20_000, -0.5, 1.1), projections=4)
    assert found == pytest.approx(math.hypot(0.8, 0.7), rel=1e-3)


def test_frechet_of_gaussians_on_the_line():
    found = frechet_distance(quantiles(20_000, 0.3, 0.4), quantiles(20_000, -0.5, 1.1))
    assert found == pytest.approx(0.8**2 + 0.7**2, rel=1e-3)


def test_frechet_of_independent_coordinates_is_the_sum_over_them():
    """Exactly so for coordinates that are uncorrelated in the samples: the corners of boxes."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    s_x, s_y, shift = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.3, 2.5, 0.5]), torch.tensor([0.2, -1.0, 0.0])
    expected = shift.square().sum() + (s_x - s_y).square().sum() * 8 / 7  # the unbiased variance of eight corners
    assert frechet_distance(s_x * corners, s_y * corners + shift) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_frechet_as_by_scipys_root_of_the_product(sizes):
    """Of correlated coordinates, whose covariances do not commute."""
    x, y = pair(sizes)
    x, y = x @ draws(3, 3, seed=5), y @ draws(3, 3, seed=6)
    C_x, C_y = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    crossed = np.trace(linalg.sqrtm(C_x @ C_y).real)
    square = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(C_x) + np.trace(C_y) - 2 * crossed
    assert frechet_distance(x, y) == pytest.approx(square, rel=1e-9)


def test_frechet_stands_fewer_samples_than_dimensions():
    x = draws(5, 12)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 12, rel=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_energy_on_the_line_is_scipys(sizes):
    x, y = pair(sizes, d=1)
    assert energy_distance(x, y) == pytest.approx(stats.energy_distance(x[:, 0], y[:, 0]), rel=1e-7)


@pytest.mark.parametrize("sizes", SIZES)
def test_energy_in_space_by_brute_force(sizes):
    x, y = (z.numpy() for z in pair(sizes))
    square = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert energy_distance(*map(torch.from_numpy, (x, y))) == pytest.approx(math.sqrt(square), rel=1e-7)


@pytest.mark.parametrize("sizes", SIZES)
def test_mmd_by_loops_over_pairs(sizes):
    x, y = (z.numpy() for z in pair(sizes))
    between = [np.linalg.norm(y[i] - y[j]) for i in range(len(y)) for j in range(i)]
    h = sorted(between)[(len(between) - 1) // 2]

    def mean_kernel(a, b, same):
        k = [math.exp(-np.sum((p - q) ** 2) / (2 * h**2)) for i, p in enumerate(a) for j, q in enumerate(b)
             if not (same and i == j)]  # fmt: skip
        return sum(k) / len(k)

    expected = mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False)
    assert kernel_mmd(*map(torch.from_numpy, (x, y))) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_one_distribution_is_zero_on_average():
    """The unbiased estimate: the mean of 40 is zero to three of its standard errors, and some are below zero."""
    found = [kernel_mmd(draws(30, 2, seed=2 * i), draws(30, 2, seed=2 * i + 1)) for i in range(40)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(40)
    assert min(found) < 0


def test_energy_and_mmd_see_a_difference():
    for measure in (energy_distance, kernel_mmd):
        assert measure(draws(200, 2), draws(200, 2, seed=1)) < 0.3 * measure(draws(200, 2), draws(200, 2, shift=1))


def reach(points, k):
    return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, k]


@pytest.mark.parametrize("sizes", SIZES)
def test_manifold_measures_by_loops(sizes):
    """Definitions of Kynkäänniemi et al. 2019, equation 2, and Naeem et al. 2020, equations 4 and 5."""
    x, y = (z.numpy() for z in pair(sizes))
    x = x + 2.5
    far = cdist(x, y)

    def inside(radii, of_real):
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y))]
        return [(i, j) for i, j in pairs if far[i, j] <= radii[j if of_real else i]]

    a, b = map(torch.from_numpy, (x, y))
    assert precision(a, b) == len({i for i, _ in inside(reach(y, 3), True)}) / len(x)
    assert recall(a, b) == len({j for _, j in inside(reach(x, 3), False)}) / len(y)
    assert density(a, b) == pytest.approx(len(inside(reach(y, 5), True)) / (5 * len(x)), rel=1e-12)
    assert coverage(a, b) == len({j for _, j in inside(reach(y, 5), True)}) / len(y)
    assert nearest_neighbour(a, b) == pytest.approx(far.min(axis=1).mean(), rel=1e-9)
    assert 0 < precision(a, b) < 1  # the case tells the measures apart
    assert 0 < coverage(a, b) < 1


def test_what_samples_of_the_data_come_to():
    """Density 1, coverage 1 - (n - 1)...(n - k) / ((2n - 1)...(2n - k)), whatever they are (Naeem et al., eq. 9)."""
    n, k, runs = 60, 5, 40
    pairs = [(draws(n, 2, seed=2 * i), draws(n, 2, seed=2 * i + 1)) for i in range(runs)]
    densities, coverages = ([measure(*p) for p in pairs] for measure in (density, coverage))
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    assert np.mean(densities) == pytest.approx(1, abs=4 * np.std(densities) / math.sqrt(runs))
    assert np.mean(coverages) == pytest.approx(expected, abs=4 * np.std(coverages) / math.sqrt(runs))


def test_a_dropped_mode_costs_recall_and_a_false_one_precision():
    one, two = draws(50, 2), torch.cat([draws(50, 2, seed=1), draws(50, 2, seed=2, shift=50)])
    assert (precision(one, two) > 0.9, recall(one, two) < 0.55) == (True, True)
    assert (precision(two, one) < 0.55, recall(two, one) > 0.9) == (True, True)


def test_copies_of_the_training_set_are_at_no_distance():
    train = draws(50, 4)
    assert nearest_neighbour(train[:10], train) < 1e-6
    assert nearest_neighbour(train[:10] + torch.tensor([0.0, 0.01, 0.0, 0.0]), train) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_parts_and_pictures_change_nothing(name, monkeypatch):
    """However few distances fit into memory, and in whatever shape samples come."""
    measure = getattr(import_module(f"cmbench.evaluation.{name}"), name)
    x, y = draws(30, 1, 2, 2), draws(20, 1, 2, 2, seed=1)
    whole = measure(x, y)
    assert math.isfinite(whole)
    monkeypatch.setattr(_distances, "_AT_ONCE", 45)
    assert measure(x.flatten(1), y.flatten(1)) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_too_few_samples_are_not_a_number_or_still_measured(name):
    measure = getattr(import_module(f"cmbench.evaluation.{name}"), name)
    found = measure(draws(1, 2), draws(1, 2, seed=1))
    assert math.isnan(found) == (name not in ("sliced_wasserstein", "energy_distance", "nearest_neighbour"))
