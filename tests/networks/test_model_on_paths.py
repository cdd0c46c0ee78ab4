"""A model with any parameterisation on any path: the same function on the EDM path, and derivatives along the path."""

import pytest
import torch
from torch import nn

from cmbench.equations import boundary
from cmbench.equations.gaussian_path import EDM, VP, Linear, TrigFlow, like
from cmbench.model import Model
from cmbench.networks import mlp

PATHS = {"edm": EDM(), "vp": VP(), "trigflow": TrigFlow(0.5), "linear": Linear()}
FORMS = [("edm", "sigma_min"), ("trigflow", "sigma_min"), ("edm", "zero"), ("trigflow", "zero"), ("linear", "zero")]
NOISES = ["identity", "angle", "log"]
SIGMA = torch.tensor([0.05, 0.5, 3.0, 40.0], dtype=torch.float64)
X_0, EPS = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Wave(nn.Module):
    """Smooth in x and in each of its times, in double precision; keeps what it was given."""

    def forward(self, x, c_noise, labels):
        self.given = x, c_noise, labels
        first, *others = c_noise[:, None].unbind(1) if c_noise.ndim == 1 else c_noise.unbind(1)
        out = torch.sin(1.3 * x + 0.4 * first[:, None]) + 0.3 * x.square() * torch.cos(first)[:, None]
        for c in others:
            out = out + torch.sin(0.7 * c)[:, None] * x
        return out


def model(name, scalings="edm", boundary_at="sigma_min", noise="log", times=1, net=None, **more):
    net = net or Wave()
    return Model(net, (3,), PATHS[name], 0.5, 0.002, 80.0, "float32", scalings, noise, boundary_at, times, **more)


def random_mlp(times=1):
    torch.manual_seed(0)
    net = mlp.Network(mlp.Config(width=16, embedding_channels=8), (3,), 0, times).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return net


@pytest.mark.parametrize(("scalings", "boundary_at"), FORMS)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", PATHS)
def test_a_model_on_the_edm_path_is_the_same_function(name, noise, scalings, boundary_at):
    m = model(name, scalings, boundary_at, noise)
    t = m.path.t_of_noise_level(SIGMA)
    x_t, x, labels = m.path.x_t(X_0, EPS, t), X_0 + SIGMA[:, None] * EPS, torch.arange(4)
    moved = m.on_edm_path()
    torch.testing.assert_close(moved(x, SIGMA, labels), m(x_t, t, labels), rtol=1e-11, atol=1e-12)
    assert m.F_theta.given[2] is labels
    torch.testing.assert_close(moved.denoise(x, SIGMA, labels), m.denoise(x_t, t, labels), rtol=1e-11, atol=1e-12)
    assert m.F_theta.given[2] is labels


@pytest.mark.parametrize(("scalings", "boundary_at"), FORMS)
@pytest.mark.parametrize("name", PATHS)
def test_one_network_is_the_same_on_every_path_where_it_is_told_the_same_time(name, scalings, boundary_at):
    x = X_0 + SIGMA[:, None] * EPS
    for noise in ("log", "angle"):  # functions of the noise level alone
        mine, of_edm = (model(path, scalings, boundary_at, noise).on_edm_path() for path in (name, "edm"))
        torch.testing.assert_close(mine(x, SIGMA), of_edm(x, SIGMA), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(mine.denoise(x, SIGMA), of_edm.denoise(x, SIGMA), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PATHS)
def test_f_is_the_identity_at_zero_where_the_boundary_is_zero(name):
    """And then f is the denoiser, at every time."""
    for scalings in ("edm", "trigflow", "linear"):
        m = model(name, scalings, "zero", "identity")
        x = m.path.x_t(X_0, EPS, torch.zeros(4, dtype=torch.float64))
        torch.testing.assert_close(m(x, torch.zeros(4, dtype=torch.float64)), x, rtol=1e-15, atol=0)
        t = m.path.t_of_noise_level(SIGMA)
        assert torch.equal(m(x, t), m.denoise(x, t))


def central(function, h):
    return (function(h) - function(-h)) / (2 * h)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("scalings", ["edm", "linear"])
@pytest.mark.parametrize("name", PATHS)
def test_derivative_of_the_network_is_its_central_difference_along_the_direction(name, scalings, noise, times):
    """Every coefficient moves with t; the second time r stays where it is."""
    for net in (Wave(), random_mlp(times)):
        m = model(name, scalings, "zero", noise, times, net)
        t = m.path.t_of_noise_level(SIGMA)
        r = 0.4 * t if times == 2 else None
        x_t, dx = m.path.x_t(X_0, EPS, t), m.path.conditional_velocity(X_0, EPS, t)
        dt = torch.linspace(0.5, 1.5, 4, dtype=torch.float64) * torch.minimum(t, m.path.t_of_noise_level(2 * SIGMA) - t)
        dx = like(dt, dx) * dx  # a fraction of the time itself, so that one step suits all times
        F, dF = m.F_and_derivative(x_t, t, dx, dt, r=r, method="jvp")
        with torch.no_grad():
            torch.testing.assert_close(F, m.F(x_t, t, r=r), rtol=1e-12, atol=1e-12)
            expected = central(lambda h, m=m, x_t=x_t, t=t, dx=dx, dt=dt, r=r: m.F(x_t + h * dx, t + h * dt, r=r), 1e-5)
        torch.testing.assert_close(dF, expected, rtol=1e-6, atol=1e-6 * dF.abs().max().item())
        assert dF.abs().max() > 1e-3


@pytest.mark.parametrize("times", [1, 2])
def test_derivative_by_differences_agrees_with_the_exact_one(times):
    m = model("trigflow", "trigflow", "zero", "identity", times, random_mlp(times))
    t = m.path.t_of_noise_level(SIGMA)
    x_t, dx = m.path.x_t(X_0, EPS, t), m.path.conditional_velocity(X_0, EPS, t)
    exact, near = (
        m.F_and_derivative(x_t, t, dx, torch.ones_like(t), method=method, h=1e-5)[1]
        for method in ("jvp", "finite_difference")
    )
    torch.testing.assert_close(near, exact, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("scalings", "boundary_at"), FORMS)
@pytest.mark.parametrize("noise", ["identity", "log"])
@pytest.mark.parametrize("name", PATHS)
def test_derivative_of_f_along_the_path_is_the_sum_of_its_terms(name, noise, scalings, boundary_at):
    """c_skip' x_t + c_out' F + c_skip dx/dt + c_out dF/dt against f(x_{t+h}, t + h), x_t = s x_0 + sigma eps."""
    m = model(name, scalings, boundary_at, noise)
    p, t = m.parameterisation, m.path.t_of_noise_level(SIGMA)
    x_t, dxdt = m.path.x_t(X_0, EPS, t), m.path.conditional_velocity(X_0, EPS, t)
    F, dF = m.F_and_derivative(x_t, t, dxdt, torch.ones_like(t), method="jvp")
    dfdt = boundary.combined(p.d_of_f(t), x_t, F) + boundary.combined(p.of_f(t), dxdt, dF)

    def f(h):
        later = t + h * step
        return m(m.path.x_t(X_0, EPS, later), later)

    step = torch.minimum(t, m.path.t_of_noise_level(2 * SIGMA) - t)
    expected = central(f, 1e-5) / step[:, None]
    torch.testing.assert_close(dfdt, expected, rtol=1e-6, atol=1e-9 * dfdt.abs().max().item())


def test_a_network_of_two_times_is_given_both_and_f_calls_it_with_the_second_at_zero():
    m = model("linear", "linear", "zero", "identity", times=2)
    t, r = torch.tensor([0.9, 0.5, 0.4, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.5, 0.0, 0.1]).double()
    m.F(X_0, t, r=r)
    assert torch.equal(m.F_theta.given[1], torch.stack([t, t - r], dim=1))
    f = m(X_0, t)
    assert torch.equal(m.F_theta.given[1], torch.stack([t, t], dim=1))
    torch.testing.assert_close(f, X_0 - t[:, None] * m.F(X_0, t), rtol=1e-14, atol=1e-14)  # z - t u(z, 0, t)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("time_dtype", [torch.float32, torch.float64])
def test_times_have_the_precision_that_was_asked_for(name, time_dtype):
    m = model(name, noise="log", time_dtype=time_dtype)
    assert m.time(torch.ones(2)).dtype == time_dtype
    assert m.time(torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    moved = m.on_edm_path()
    for function in (moved, moved.denoise):
        got = function(x, SIGMA.float())
        assert got.dtype == torch.float32
        assert m.F_theta.given[0].dtype == torch.float32
        assert m.F_theta.given[1].dtype == time_dtype
        exact = function(x.double(), SIGMA)
        torch.testing.assert_close(got, exact.float(), rtol=2e-4, atol=2e-4)


def test_double_times_keep_the_digits_that_single_ones_lose():
    """c_noise of the VP path at sigma = .002, where t is the root of a small number."""
    sigma = torch.full((3,), 0.002)
    told = {}
    for dtype in (torch.float32, torch.float64):
        m = model("vp", noise="log", time_dtype=dtype)
        m.on_edm_path()(torch.ones(3, 3), sigma)
        told[dtype] = (m.F_theta.given[1].double() - 0.25 * sigma.double().log()).abs().max().item()
    assert told[torch.float64] < 1e-9
    assert told[torch.float64] < 0.1 * told[torch.float32]


def test_the_pass_that_is_recorded_is_kept_in_training_alone():
    """Its gradient is that of the loss at the output of F_theta; passes without gradient are no passes."""
    m = model("trigflow", "trigflow", "zero", "identity", net=random_mlp().train())
    t = m.path.t_of_noise_level(SIGMA)
    f = m(X_0, t)
    recorded = m.last_F
    with torch.no_grad():
        m(X_0, t)
    assert m.last_F is recorded
    f.square().sum().backward()
    expected = 2 * f * -0.5 * t.sin()[:, None]  # c_out = -sigma_data sin t
    torch.testing.assert_close(recorded.grad, expected.detach(), rtol=1e-10, atol=1e-12)
    m.last_F = None
    m.eval()(X_0, t)
    assert m.last_F is None
    m.train().F_and_derivative(X_0, t, X_0, torch.ones_like(t), method="jvp")[0].sum().backward()
    assert torch.equal(m.last_F.grad, torch.ones(4, 3, dtype=torch.float64))
