import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from cmbench.equations.gaussian_path import EDM, VP, Linear, TrigFlow, like, named


def derivative(f, t):
    """Five-point central difference."""
    h = 1e-3 * t
    return (8 * (f(t + h) - f(t - h)) - (f(t + 2 * h) - f(t - 2 * h))) / (12 * h)


def vp_scale(t):
    integral, _ = quad(lambda u: 0.1 + u * (20 - 0.1), 0, t, epsabs=1e-13)
    return math.exp(-integral / 2)


S = {
    "edm": lambda t: 1.0,
    "vp": vp_scale,
    "trigflow": math.cos,
    "trigflow_unit": math.cos,
    "linear": lambda t: 1 - t,
}
SIGMA = {
    "edm": lambda t: t,
    "vp": lambda t: math.sqrt(1 - vp_scale(t) ** 2),
    "trigflow": lambda t: 0.5 * math.sin(t),
    "trigflow_unit": math.sin,
    "linear": lambda t: t,
}


def test_scale_and_noise_are_the_published_functions(name, path, t):
    np.testing.assert_allclose(path.s(t), [S[name](u) for u in t.tolist()], rtol=1e-12)
    np.testing.assert_allclose(path.sigma(t), [SIGMA[name](u) for u in t.tolist()], rtol=1e-11)


def test_derivatives_are_those_of_scale_and_noise(path, t):
    torch.testing.assert_close(path.ds(t), derivative(path.s, t), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.dsigma(t), derivative(path.sigma, t), rtol=1e-9, atol=1e-9)


def test_noise_level_is_noise_over_scale(path, t):
    torch.testing.assert_close(path.noise_level(t), path.sigma(t) / path.s(t), rtol=1e-11, atol=0)


def test_time_of_noise_level_inverts_noise_level(path, t):
    torch.testing.assert_close(path.t_of_noise_level(path.noise_level(t)), t, rtol=1e-11, atol=0)
    n = torch.tensor([0.0, 0.002, 1.0, 80.0], dtype=torch.float64)
    torch.testing.assert_close(path.noise_level(path.t_of_noise_level(n)), n, rtol=1e-10, atol=0)


@pytest.mark.parametrize("other", [EDM(), VP(), TrigFlow(0.5), Linear()], ids=lambda p: type(p).__name__)
def test_a_point_goes_to_another_path_and_back(path, other):
    """x_t and t of one path as those of another, at noise levels of the whole published range and beyond."""
    n = torch.logspace(-4, 3, 1001, dtype=torch.float64)
    t, u = path.t_of_noise_level(n), other.t_of_noise_level(n)
    x_t = torch.randn(len(n), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_u = like(other.s(u) / path.s(t), x_t) * x_t
    back = path.t_of_noise_level(other.noise_level(u))
    torch.testing.assert_close(back, t, rtol=1e-12, atol=0)
    torch.testing.assert_close(like(path.s(back) / other.s(u), x_u) * x_u, x_t, rtol=1e-12, atol=0)


def test_time_of_no_noise_is_zero(path):
    assert path.t_of_noise_level(torch.zeros(1)).item() == 0


def test_point_is_scaled_data_plus_scaled_noise(name, path, t):
    x_0, eps = torch.full((5, 2, 3), 2.0, dtype=torch.float64), torch.full((5, 2, 3), -3.0, dtype=torch.float64)
    expected = [S[name](u) * 2.0 - SIGMA[name](u) * 3.0 for u in t.tolist()]
    x_t = path.x_t(x_0, eps, t)
    assert x_t.shape == (5, 2, 3)
    np.testing.assert_allclose(x_t[:, 1, 2], expected, rtol=1e-10, atol=1e-12)


def test_conditional_velocity_is_the_time_derivative_of_the_point(path, t):
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 5, 3, 2, dtype=torch.float64, generator=g)
    h = 1e-3 * t
    x = {k: path.x_t(x_0, eps, t + k * h) for k in (-2, -1, 1, 2)}
    difference = (8 * (x[1] - x[-1]) - (x[2] - x[-2])) / (12 * like(h, x_0))
    torch.testing.assert_close(path.conditional_velocity(x_0, eps, t), difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_kept(path, t, dtype):
    t = t.to(dtype)
    of_time = (path.s, path.ds, path.sigma, path.dsigma, path.noise_level, path.t_of_noise_level)
    assert {f(t).dtype for f in of_time} == {dtype}
    x = torch.ones(5, 2, dtype=dtype)
    assert path.x_t(x, x, t).dtype == path.conditional_velocity(x, x, t).dtype == dtype


def test_vp_preserves_variance():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    torch.testing.assert_close(VP().s(t).square() + VP().sigma(t).square(), torch.ones_like(t), rtol=1e-14, atol=0)


def test_vp_with_other_betas_solves_its_equation():
    """s'/s = -beta(t) / 2."""
    path, t = VP(beta_min=0.5, beta_max=7.0), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    torch.testing.assert_close(path.ds(t) / path.s(t), -0.5 * (0.5 + 6.5 * t), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vp_noise_level_is_accurate_at_small_times(dtype):
    """n^2 = B + B^2 / 2 + ..., B = .1 t + 9.95 t^2."""
    t = torch.tensor([1e-6], dtype=dtype)
    B = 0.1 * 1e-6 + 9.95 * 1e-12
    expected = torch.tensor([math.sqrt(B + B * B / 2)], dtype=dtype)
    torch.testing.assert_close(VP().noise_level(t), expected, rtol=10 * torch.finfo(dtype).eps, atol=0)
    torch.testing.assert_close(VP().sigma(t), expected * math.exp(-B / 2), rtol=10 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    ("sigma", "t"),
    [(80, 1.564546408), (0.5, math.pi / 4), (0.821, 1.023775674), (0.9823798286, 1.1), (1.801051224, 1.3)],
)
def test_trigflow_times_are_the_published_ones(sigma, t):
    path = TrigFlow(0.5)
    assert path.t_of_noise_level(torch.tensor(sigma, dtype=torch.float64)).item() == pytest.approx(t, abs=6e-10)
    assert path.noise_level(torch.tensor(t, dtype=torch.float64)).item() == pytest.approx(sigma, rel=1e-5)


def test_trigflow_keeps_the_variance_of_the_data():
    t = torch.linspace(0, 1.5, 7, dtype=torch.float64)
    path = TrigFlow(0.7)
    variance = path.s(t).square() * 0.7**2 + path.sigma(t).square()
    torch.testing.assert_close(variance, torch.full_like(t, 0.49), rtol=1e-14, atol=0)


def test_paths_are_found_by_the_names_of_recipes():
    found = [named(kind, 0.3) for kind in ("edm", "vp", "trigflow", "linear")]
    assert found == [EDM(), VP(), TrigFlow(0.3), Linear()]


def test_like_lines_up_time_with_the_batch():
    assert like(torch.ones(4), torch.ones(4, 3, 2, 2)).shape == (4, 1, 1, 1)
    assert like(torch.ones(4), torch.ones(4)).shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("of_time", [torch.float32, torch.float64])
def test_time_of_any_precision_leaves_data_in_their_own(path, t, dtype, of_time):
    x, t = torch.ones(5, 2, dtype=dtype), t.to(of_time)
    assert like(t, x).dtype == dtype
    assert path.x_t(x, x, t).dtype == path.conditional_velocity(x, x, t).dtype == dtype


def test_only_the_vp_path_ends_and_at_its_noise_level_of_time_one():
    one = torch.ones(1, dtype=torch.float64)
    assert VP().largest_noise_level == pytest.approx(VP().noise_level(one).item(), rel=1e-12)
    assert VP().largest_noise_level == pytest.approx(math.sqrt(math.exp(10.05) - 1))
    assert [path.largest_noise_level for path in (EDM(), TrigFlow(), Linear())] == [math.inf] * 3
