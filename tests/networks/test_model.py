import math

import pytest
import torch
from torch import nn

from cmbench.equations.gaussian_path import EDM, VP, Linear, TrigFlow
from cmbench.model import Model
from cmbench.networks import mlp, unet

PATHS = {"edm": EDM(), "vp": VP(), "trigflow": TrigFlow(0.5), "linear": Linear()}
SIGMA = torch.tensor([0.002, 0.05, 0.5, 3.0, 80.0], dtype=torch.float64)
X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Wave(nn.Module):
    """A closed form in double precision that keeps what it was given."""

    def forward(self, x, c_noise, labels):
        self.given = x, c_noise, labels
        return torch.sin(3 * x) + 0.4 * torch.cos(c_noise)[:, None]


def model(path=PATHS["edm"], F=None, shape=(3,), sigma_data=0.5, precision="float32"):
    return Model(F or Wave(), shape, path, sigma_data, 0.002, 80.0, precision)


def random_network(kind):
    torch.manual_seed(0)
    if kind == "mlp":
        net, shape = mlp.Network(mlp.Config(width=32), (2,), 0), (2,)
    else:
        net, shape = unet.Network(unet.Config(width=8, depth=1, attention=(4,)), (1, 8, 8), 0), (1, 8, 8)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net, shape


@pytest.mark.parametrize("kind", ["mlp", "unet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_f_is_the_identity_at_sigma_min_bit_for_bit(kind, precision):
    net, shape = random_network(kind)
    f = model(F=net, shape=shape, precision=precision)
    x = 100 * torch.randn(4, *shape)
    at_minimum = f(x, torch.full((4,), 0.002))
    assert at_minimum.dtype == torch.float32
    assert torch.equal(at_minimum, x)
    assert not torch.equal(f(x, torch.full((4,), 0.0021)), x)


@pytest.mark.parametrize("name", PATHS)
def test_f_is_the_rescaled_point_at_sigma_min_on_every_path(name):
    """Exact up to the rounding of the noise level, which the other paths compute."""
    path = PATHS[name]
    t = path.t_of_noise_level(torch.full((5,), 0.002, dtype=torch.float64))
    torch.testing.assert_close(model(path)(X, t), X / path.s(t)[:, None], rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["mlp", "unet"])
def test_denoiser_tends_to_the_identity_without_noise(kind):
    net, shape = random_network(kind)
    x = torch.randn(4, *shape)
    error = [(model(F=net, shape=shape).denoise(x, torch.full((4,), s)) - x).abs().max() for s in (1e-2, 1e-3, 1e-4)]
    assert error[0] > 1e-3
    assert error[2] < 0.02 * error[0]


@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
def test_f_and_the_denoiser_hold_the_same_network(sigma_data):
    """Solving either for F gives F_theta(x / sqrt(sigma^2 + sigma_data^2), ln(sigma) / 4)."""
    m = model(sigma_data=sigma_data)
    x, sigma = X * SIGMA[:, None], SIGMA[:, None]
    root = torch.sqrt(sigma**2 + sigma_data**2)
    expected = torch.sin(3 * x / root) + 0.4 * torch.cos(sigma.log() / 4)
    D, f = m.denoise(x, SIGMA), m(x, SIGMA)
    from_D = (D - sigma_data**2 / root**2 * x) * root / (sigma * sigma_data)
    torch.testing.assert_close(from_D, expected, rtol=1e-11, atol=1e-11)
    shifted = sigma[1:] - 0.002
    skip = sigma_data**2 / (shifted**2 + sigma_data**2) * x[1:]
    torch.testing.assert_close((f[1:] - skip) * root[1:] / (shifted * sigma_data), expected[1:], rtol=1e-10, atol=1e-10)


def test_trigflow_s_f_is_that_of_the_edm_denoiser():
    """cos t x_t - sigma_d sin t F(x_t / sigma_d), Lu & Song 2024, section 3, with F's sign turned, is D."""
    path, t = TrigFlow(0.5), torch.tensor([0.01, 0.3, 0.9, 1.2, 1.56], dtype=torch.float64)
    F = torch.sin(3 * X / 0.5) + 0.4 * torch.cos((0.5 * t.tan()).log() / 4)[:, None]
    expected = t.cos()[:, None] * X + 0.5 * t.sin()[:, None] * F
    torch.testing.assert_close(model(path).denoise(X, t), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("method", ["forward", "denoise"])
def test_every_path_gives_what_the_edm_path_gives_at_its_scale_and_clock(name, method):
    path, edm = PATHS[name], getattr(model(), method)
    t = path.t_of_noise_level(SIGMA)
    x = X * (1 + SIGMA)[:, None]
    x_t = path.s(t)[:, None] * x
    torch.testing.assert_close(getattr(model(path), method)(x_t, t), edm(x, SIGMA), rtol=1e-10, atol=1e-12)


def test_network_is_given_unit_variance_input_quarter_log_sigma_and_the_labels():
    m, labels = model(), torch.arange(5)
    m(X, SIGMA, labels)
    x, c_noise, given = m.F_theta.given
    torch.testing.assert_close(x, X / torch.sqrt(SIGMA**2 + 0.25)[:, None], rtol=1e-14, atol=0)
    torch.testing.assert_close(c_noise, SIGMA.log() / 4, rtol=1e-14, atol=0)
    assert given is labels
    m.denoise(X, SIGMA, labels + 1)
    assert m.F_theta.given[2].tolist() == [1, 2, 3, 4, 5]


def test_double_precision_is_kept():
    assert model()(X, SIGMA).dtype == model().denoise(X, SIGMA).dtype == torch.float64


@pytest.mark.parametrize("method", ["forward", "denoise"])
def test_bfloat16_is_used_inside_the_network_alone(method):
    net, shape = random_network("mlp")
    x, t, seen = torch.randn(64, 2), torch.full((64,), 0.5), []
    net.output.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    half = getattr(model(F=net, shape=shape, precision="bfloat16"), method)(x, t)
    full = getattr(model(F=net, shape=shape), method)(x, t)
    assert seen == [torch.bfloat16, torch.float32]
    assert half.dtype == torch.float32
    relative = (half - full).norm() / full.norm()
    assert 0 < relative < 0.05


def test_scalings_stay_in_single_precision_around_a_bfloat16_network():
    net, shape = random_network("mlp")
    x, sigma, seen = torch.randn(64, 2), torch.full((64,), 0.7), []
    net.output.register_forward_hook(lambda module, args, out: seen.append(out.float()))
    got = model(F=net, shape=shape, precision="bfloat16")(x, sigma)
    shifted, root = 0.7 - 0.002, math.sqrt(0.74)
    torch.testing.assert_close(got, 0.25 / (shifted**2 + 0.25) * x + 0.5 * shifted / root * seen[0])


def test_least_noise_level_is_finite_in_single_precision_on_every_path():
    for path in PATHS.values():
        t = path.t_of_noise_level(torch.full((2,), 0.002))
        assert model(path)(torch.ones(2, 3), t).isfinite().all()
        assert math.isclose(path.noise_level(t)[0].item(), 0.002, rel_tol=1e-3)
