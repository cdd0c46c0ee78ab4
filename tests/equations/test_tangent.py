import numpy as np
import pytest
import torch
from torch import nn

from cmbench.equations import pf_ode, tangent
from cmbench.equations.gaussian_path import TrigFlow
from cmbench.errors import NoDerivativeError


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


class Smooth(nn.Module):
    """A closed form of two arguments, and labels that do not move; the weight has a gradient."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, c, labels=None):
        shift = 0.0 if labels is None else labels[:, None]
        return self.dropout(torch.sin(self.weight * x * c[:, None]) + shift)


def point(n=6, seed=0):
    x, v = torch.randn(2, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    c, w = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    return x, v, c, w


METHODS = ["jvp", "finite_difference"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("moves", [(True, True), (True, False), (False, True)])
def test_derivative_is_that_of_the_closed_form_along_what_moves(method, moves):
    x, v, c, w = point()
    labels = torch.arange(6)
    tangents = (v if moves[0] else None, w if moves[1] else None, None)
    F, dF = tangent.value_and_derivative(Smooth(), (x, c, labels), tangents, method, h=1e-5)
    v, w = v * moves[0], w * moves[1]
    angle = 1.5 * x * c[:, None]
    torch.testing.assert_close(F, angle.sin() + labels[:, None], rtol=1e-14, atol=1e-14)
    expected = angle.cos() * 1.5 * (v * c[:, None] + x * w[:, None])
    exact = method == "jvp"
    torch.testing.assert_close(dF, expected, rtol=1e-13 if exact else 1e-7, atol=1e-13 if exact else 1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_value_is_recorded_for_backward_and_derivative_is_not(method):
    x, v, c, w = point()
    network = Smooth()
    F, dF = tangent.value_and_derivative(network, (x, c, None), (v, w, None), method)
    assert not dF.requires_grad
    F.sum().backward()
    expected = (torch.cos(1.5 * x * c[:, None]) * x * c[:, None]).sum()
    torch.testing.assert_close(network.weight.grad, expected, rtol=1e-12, atol=0)


def test_a_function_without_forward_derivative_is_refused_with_the_ways_out():
    x = torch.ones(2, 2)
    with pytest.raises(NoDerivativeError, match=r'^no derivative by torch\.func\.jvp: .*cdist.*"dual" or "finite_diff'):
        tangent.value_and_derivative(lambda x: torch.cdist(x, x + 1), (x,), (x,), "jvp")


def test_central_difference_is_of_second_order():
    x, v, c, w = point()
    exact = tangent.value_and_derivative(Smooth(), (x, c), (v, w), "jvp")[1]
    errors = [
        (tangent.value_and_derivative(Smooth(), (x, c), (v, w), "finite_difference", h)[1] - exact).abs().max().item()
        for h in (2e-3, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=1e-2)


def test_default_step_of_the_difference_suits_float32():
    """It errs by a few ten-thousandths of the derivative, mostly by rounding."""
    x, v, c, w = (part.float() for part in point(200))
    network = Smooth().float()
    exact = tangent.value_and_derivative(network, (x, c), (v, w), "jvp")[1]
    got = tangent.value_and_derivative(network, (x, c), (v, w), "finite_difference")[1]
    assert ((got - exact).norm() / exact.norm()).item() < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_value_and_derivative_are_of_one_dropout_mask(method):
    """And that is the mask which a plain pass from the same state of the generator draws, which it leaves alike."""
    x, v, c, w = point(400)
    network = Smooth(dropout=0.5)
    torch.manual_seed(3)
    plain = network(x, c)
    after = torch.random.get_rng_state()
    torch.manual_seed(3)
    F, dF = tangent.value_and_derivative(network, (x, c), (v, w), method, h=1e-5)
    assert torch.equal(torch.random.get_rng_state(), after)
    assert torch.equal(F, plain)
    whole = tangent.value_and_derivative(network.eval(), (x, c), (v, w), "jvp")[1]
    kept = plain != 0
    assert 0.4 < kept.double().mean() < 0.6
    torch.testing.assert_close(dF, 2 * whole * kept, rtol=1e-7, atol=1e-7)


SIGMA_DATA = 0.5
T = torch.tensor([0.05, 0.4, 0.9, 1.2, 1.5, 1.56], dtype=torch.float64)


def raw(y, t):
    return torch.sin(2 * y + t[:, None]) + y * t[:, None].square()


def f_of(x_t, t):
    return t.cos()[:, None] * x_t - SIGMA_DATA * t.sin()[:, None] * raw(x_t / SIGMA_DATA, t)


def on_trigflow(seed=0):
    x_0, z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    path = TrigFlow(SIGMA_DATA)
    return path, x_0, z, path.x_t(x_0, z, T), path.conditional_velocity(x_0, z, T)


def g_of(r):
    _, _, _, x_t, v = on_trigflow()
    cos_sin = T.cos() * T.sin()
    tangents = (cos_sin[:, None] * v / SIGMA_DATA, cos_sin)
    F, cos_sin_dF = tangent.value_and_derivative(raw, (x_t / SIGMA_DATA, T), tangents, "jvp")
    return tangent.trigflow(F, cos_sin_dF, x_t, v, T, SIGMA_DATA, r)


def test_tangent_of_scm_is_cos_t_times_the_derivative_of_f_along_the_path():
    """By central differences of f(x_t, t) in t, at r = 1."""
    path, x_0, z, _, _ = on_trigflow()
    h = 1e-5
    ends = [f_of(path.x_t(x_0, z, T + step), T + step) for step in (h, -h)]
    dfdt = (ends[0] - ends[1]) / (2 * h)
    torch.testing.assert_close(g_of(1.0), T.cos()[:, None] * dfdt, rtol=1e-8, atol=1e-8)


def test_warm_up_of_scm_is_on_the_whole_second_term():
    """Linear in r, and at r = 0 the residual of the velocity alone: nothing of x_t and nothing of dF/dt."""
    _, _, _, x_t, v = on_trigflow()
    residual = -T.cos()[:, None].square() * (SIGMA_DATA * raw(x_t / SIGMA_DATA, T) - v)
    assert torch.equal(g_of(0.0), residual)
    torch.testing.assert_close(g_of(0.3), 0.7 * g_of(0.0) + 0.3 * g_of(1.0), rtol=1e-12, atol=1e-12)


def test_stable_part_is_the_tangent_of_a_network_that_does_not_change():
    """cos(t) d/dt [cos t x_t - sigma_d sin t F] at dF/dt = 0."""
    _, _, _, x_t, v = on_trigflow()
    F = raw(x_t / SIGMA_DATA, T)
    cos, sin = T.cos()[:, None], T.sin()[:, None]
    expected = cos * (-sin * x_t + cos * v - SIGMA_DATA * cos * F)
    torch.testing.assert_close(tangent.trigflow_stable(F, x_t, v, T, SIGMA_DATA), expected, rtol=1e-12, atol=1e-12)
    zero = torch.zeros_like(F)
    for r in (0.0, 0.4, 1.0):
        stable = tangent.trigflow_stable(F, x_t, v, T, SIGMA_DATA, r)
        assert torch.equal(tangent.trigflow(F, zero, x_t, v, T, SIGMA_DATA, r), stable)


def gaussian_on_trigflow(x_t, t, mean=0.3, deviation=0.4):
    """Consistency function and velocity of the PF-ODE for data N(mean, deviation^2)."""
    cos, sin = t.cos()[:, None], t.sin()[:, None]
    spread = torch.sqrt((deviation * cos).square() + (SIGMA_DATA * sin).square())
    z = (x_t - mean * cos) / spread
    slope = cos * sin * (SIGMA_DATA**2 - deviation**2) / spread
    return mean + deviation * z, -mean * sin + slope * z


def test_tangent_of_the_true_consistency_function_is_zero_along_the_true_velocity():
    """Data N(.3, .4^2): f is constant on every trajectory, so that g vanishes at r = 1 and not at r = 0."""
    _, _, _, x_t, _ = on_trigflow()
    v = gaussian_on_trigflow(x_t, T)[1]

    def exact_raw(y, t):
        x_t = SIGMA_DATA * y
        f = gaussian_on_trigflow(x_t, t)[0]
        return (t.cos()[:, None] * x_t - f) / (SIGMA_DATA * t.sin()[:, None])

    cos_sin = T.cos() * T.sin()
    tangents = (cos_sin[:, None] * v / SIGMA_DATA, cos_sin)
    F, cos_sin_dF = tangent.value_and_derivative(exact_raw, (x_t / SIGMA_DATA, T), tangents, "jvp")
    assert tangent.trigflow(F, cos_sin_dF, x_t, v, T, SIGMA_DATA, 1.0).abs().max() < 1e-13
    assert tangent.trigflow(F, cos_sin_dF, x_t, v, T, SIGMA_DATA, 0.0).abs().max() > 1e-2


def test_velocity_of_the_gaussian_is_that_of_its_denoiser():
    _, _, _, x_t, _ = on_trigflow()

    def denoise(x, sigma):
        return 0.3 + (x - 0.3) * (0.16 / (0.16 + sigma.square()))[:, None]

    v = pf_ode.velocity(denoise, TrigFlow(SIGMA_DATA))(x_t, T)
    torch.testing.assert_close(v, gaussian_on_trigflow(x_t, T)[1], rtol=1e-9, atol=1e-12)


G = torch.tensor([[[[3.0, 0.0], [0.0, -4.0]]], [[[0.1, 0.2], [0.2, 0.0]]]], dtype=torch.float64)


def test_normalised_tangents_are_the_published_ones():
    """||g|| = 5 and .3 over four elements, so that the root mean squares are 2.5 and .15."""
    of = {how: tangent.normalised(G, how, 0.1) for how in ("l2", "rms", "clip", "none")}
    for i, (size, rms) in enumerate([(5.0, 2.5), (0.3, 0.15)]):
        torch.testing.assert_close(of["l2"][i], G[i] / (size + 0.1), rtol=1e-14, atol=0)
        torch.testing.assert_close(of["rms"][i], G[i] / (rms + 0.1), rtol=1e-14, atol=0)
    assert of["clip"].flatten().tolist() == [1, 0, 0, -1, 0.1, 0.2, 0.2, 0]
    assert torch.equal(of["none"], G)


def test_normalised_tangent_of_nothing_is_nothing():
    zero = torch.zeros(2, 3)
    for how in ("l2", "rms", "clip", "none"):
        assert torch.equal(tangent.normalised(zero, how, 0.1), zero)
