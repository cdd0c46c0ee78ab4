import numpy as np
import pytest
import torch

from cmbench.equations import tangent


def exact_f(x, sigma):
    """Consistency function of N(0, .5^2) down to sigma = 0."""
    return x * 0.5 / torch.sqrt(0.25 + sigma[:, None].square())


def test_tangent_tends_to_the_derivative_along_the_trajectory():
    """d/dt [(x_0 + t eps) g(t)] = eps g + x_t g', g = .5 (.25 + t^2)^(-1/2)."""
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 6, 3, dtype=torch.float64, generator=g)
    t = torch.linspace(0.1, 2, 6, dtype=torch.float64)
    x_t = x_0 + t[:, None] * eps
    scale = 0.5 / torch.sqrt(0.25 + t.square())[:, None]
    exact = eps * scale - x_t * t[:, None] * scale / (0.25 + t.square())[:, None]
    errors = []
    for h in (1e-3, 5e-4):
        r = t - h
        got = tangent.finite_difference(exact_f(x_t, t), exact_f(x_0 + r[:, None] * eps, r), t, r)
        errors.append((got - exact).abs().max().item())
    assert errors[1] < 5e-3
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.05)


def test_tangent_of_a_linear_function_of_time_is_its_slope():
    t, r = torch.tensor([0.5, 2.0]), torch.tensor([0.25, 0.5])
    pictures = torch.ones(2, 1, 2, 2)
    slope = tangent.finite_difference(3 * t.view(2, 1, 1, 1) * pictures, 3 * r.view(2, 1, 1, 1) * pictures, t, r)
    assert torch.equal(slope, 3 * pictures)


def test_norm_is_euclidean_over_each_sample():
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    expected = [np.sqrt((row**2).sum()) for row in x]
    np.testing.assert_allclose(tangent.norm(torch.from_numpy(x)), expected, rtol=1e-14)
