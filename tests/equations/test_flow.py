import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm

from cmbench.equations.oracle import GaussianMixture, flow, flow_through

WEIGHTS, MEANS, DEVIATIONS = np.array([0.3, 0.7]), np.array([-0.6, 0.4]), np.array([0.15, 0.25])


@pytest.fixture
def line():
    weights, means, deviations = map(torch.from_numpy, (WEIGHTS, MEANS, DEVIATIONS))
    return GaussianMixture(weights, means[:, None], deviations.square()[:, None, None])


def transported(x, sigma_from, sigma_to):
    """In one dimension the flow is the monotone transport: the x' of equal cumulative probability."""

    def log_tails(x, sigma):
        z = (x - MEANS) / np.sqrt(DEVIATIONS**2 + sigma**2)
        return [logsumexp(np.log(WEIGHTS) + log_tail(z)) for log_tail in (norm.logcdf, norm.logsf)]

    side = int(np.argmin(log_tails(x, sigma_from)))  # the smaller tail is the accurate one
    wanted = log_tails(x, sigma_from)[side]
    return brentq(lambda y: log_tails(y, sigma_to)[side] - wanted, -300, 300, xtol=1e-14, rtol=1e-14)


def test_flow_has_the_published_value(line):
    x = torch.tensor([[0.05]], dtype=torch.float64)
    assert flow(line.denoise, x, 0.821, 0.002).item() == pytest.approx(0.2299977493, abs=2e-10)


@pytest.mark.parametrize(("sigma_from", "sigma_to"), [(0.821, 0.002), (5.0, 0.1), (80.0, 0.002), (0.1, 3.0)])
def test_flow_on_the_line_is_the_monotone_transport(line, sigma_from, sigma_to):
    spread = math.sqrt(0.3**2 + sigma_from**2)
    x = [-1.5 * spread, -0.2 * spread, 0.4 * spread, 2 * spread]
    got = flow(line.denoise, torch.tensor(x, dtype=torch.float64)[:, None], sigma_from, sigma_to)
    expected = [transported(u, sigma_from, sigma_to) for u in x]
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-8, atol=1e-8)


W = np.array([0.5, 0.3, 0.2])
M = np.array([[0.0, 0.2], [-1.0, 0.6], [0.8, -0.5]])
C = np.array([[[0.25, 0.1], [0.1, 0.09]], [[0.04, -0.03], [-0.03, 0.06]], [[0.5, 0.3], [0.3, 0.4]]])


def slope(sigma, x):
    """dx/dsigma = -sigma grad log p_sigma(x), by inverse matrices in numpy."""
    precisions = np.linalg.inv(C + sigma**2 * np.eye(2))
    scores = -np.einsum("kde,ke->kd", precisions, x - M)
    logits = np.log(W) + 0.5 * np.log(np.linalg.det(precisions)) + 0.5 * np.einsum("kd,kd->k", scores, x - M)
    p = np.exp(logits - logits.max())
    return -sigma * (p @ scores) / p.sum()


def test_flow_in_the_plane_is_that_of_an_implicit_integrator_in_sigma():
    mixture = GaussianMixture(*map(torch.from_numpy, (W, M, C)))
    x = np.array([[2.0, -1.5], [-3.0, 0.5], [0.1, 0.3]])
    expected = [solve_ivp(slope, (3.0, 0.01), u, method="LSODA", rtol=1e-12, atol=1e-12).y[:, -1] for u in x]
    got = flow(mixture.denoise, torch.from_numpy(x), 3.0, 0.01)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


def test_flow_there_and_back_is_the_identity(line):
    x = torch.tensor([[-0.4], [0.3]], dtype=torch.float64)
    back = flow(line.denoise, flow(line.denoise, x, 0.5, 4.0), 4.0, 0.5)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("sigmas", [[5.0, 0.8, 0.1, 0.002], [3.0, 0.8, 0.79], [7.0, 80.0]])
def test_flow_through_levels_passes_where_flow_ends(line, sigmas):
    """On the line the monotone transport; the first level may be that of the start."""
    x, start = [-1.7, 0.2, 2.5], 3.0 if sigmas[0] == 3.0 else 6.0
    got = flow_through(line.denoise, torch.tensor(x, dtype=torch.float64)[:, None], start, sigmas)
    assert got.shape == (len(sigmas), 3, 1)
    for points, sigma in zip(got, sigmas, strict=True):
        expected = [transported(u, start, sigma) for u in x]
        np.testing.assert_allclose(points[:, 0], expected, rtol=1e-8, atol=1e-8)


def test_flow_of_pictures_keeps_shape_and_precision():
    """Data N(0, .5^2 I): every coordinate shrinks by the same factor."""
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    got = flow(lambda x, sigma: x * 0.25 / (0.25 + sigma.square().view(-1, 1, 1, 1)), 10 * x, 10.0, 0.002)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, 10 * x * math.sqrt((0.25 + 4e-6) / (0.25 + 100)), rtol=1e-6, atol=1e-7)


def test_flow_that_cannot_be_integrated_is_an_error():
    """dx/du = -x^2 from x = -1 reaches infinity after u = 1."""
    with pytest.raises(ArithmeticError, match="could not be integrated"):
        flow(lambda x, sigma: x + x.square(), torch.tensor([[-1.0]]), 1.0, math.exp(2))
