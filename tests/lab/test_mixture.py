"""The closed forms of the problem against quadrature and integration that know nothing of them."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from cmbench.lab import _mixture


def density(x, n):
    return 0.3 * norm.pdf(x, -0.6, np.hypot(0.15, n)) + 0.7 * norm.pdf(x, 0.4, np.hypot(0.25, n))


def one(function, x, n):
    return function(torch.tensor(x, dtype=torch.float64), torch.tensor(n, dtype=torch.float64)).item()


@pytest.mark.parametrize("n", [0.1, 1.0])
@pytest.mark.parametrize("x", [-0.9, 0.1, 0.7])
def test_density_distribution_score_and_variance(x, n):
    assert one(_mixture.density, x, n) == pytest.approx(density(x, n), rel=1e-12)
    assert one(_mixture.distribution, x, n) == pytest.approx(
        quad(density, -9, x, (n,), points=[-0.6], limit=200)[0], rel=1e-8
    )
    slope = (np.log(density(x + 1e-5, n)) - np.log(density(x - 1e-5, n))) / 2e-5
    assert one(_mixture.score, x, n) == pytest.approx(slope, rel=1e-6)
    weights = [
        quad(lambda y, k=k: y**k * density(y, 0) * norm.pdf(x, y, n), -3, 3, points=[-0.6, 0.4], limit=200)[0]
        for k in (0, 1, 2)
    ]
    variance = weights[2] / weights[0] - (weights[1] / weights[0]) ** 2
    assert one(_mixture.posterior_variance, x, n) == pytest.approx(variance, rel=1e-6)


def test_transport_is_the_flow():
    x = _mixture.quantiles(1.0, 5)
    got = _mixture.transport(x, torch.ones_like(x), torch.full_like(x, 0.1))[:, 0]

    def dxdn(n, x):
        return -n * (np.log(density(x + 1e-5, n)) - np.log(density(x - 1e-5, n))) / 2e-5

    exact = solve_ivp(dxdn, (1.0, 0.1), x[:, 0].numpy(), rtol=1e-9, atol=1e-9).y[:, -1]
    np.testing.assert_allclose(got, exact, rtol=1e-6)


def test_quadrature_and_samples_have_the_moments():
    x_0, eps, weight = _mixture.pairs(8)
    draws = _mixture.sample(50_000, 0)
    for first, second in ((x_0, eps), draws):
        w = weight if len(first) == len(weight) else torch.full((len(first),), 1 / len(first), dtype=torch.float64)
        near = 1e-12 if w is weight else 0.01
        assert (w @ first).item() == pytest.approx(0.1, abs=near)
        assert (w @ first.square()).item() == pytest.approx(0.3 * 0.3825 + 0.7 * 0.2225, abs=near)
        assert (w @ (first * second)).item() == pytest.approx(0, abs=near)
        assert (w @ second.square()).item() == pytest.approx(1, abs=2 * near)
