import math

import pytest
import torch

from cmbench.equations import boundary
from cmbench.equations.boundary import Parameterisation, Scalings
from cmbench.equations.gaussian_path import EDM, Linear, TrigFlow, like

SCALINGS = ["edm", "trigflow", "linear"]
SHIFTED = [("edm", 0.0), ("trigflow", 0.0), ("linear", 0.0), ("edm", 0.002), ("trigflow", 0.002)]
NOISES = ["identity", "angle", "log", "log_1000"]
SIGMA = torch.tensor([0.002, 0.05, 0.5, 3.0, 80.0], dtype=torch.float64)


def at(sigma, dtype=torch.float64):
    return torch.tensor([sigma], dtype=dtype)


def edm(sigma_data=0.5, epsilon=0.0, noise="log"):
    return Parameterisation(EDM(), sigma_data, "edm", epsilon, noise)


def test_denoiser_scalings_are_the_published_ones():
    c = edm().of_D(at(0.821))
    assert [x.item() for x in c] == pytest.approx((0.2705507656, 0.4270390013, 1.040289893), rel=5e-10)
    assert edm().c_noise(at(0.821)).item() == pytest.approx(math.log(0.821) / 4, rel=1e-14)


@pytest.mark.parametrize(
    ("sigma", "c_skip", "c_out"),
    [(0.002, 1.0, 0.0), (0.1, 0.9630051925, 0.09609690622), (80.0, 3.906292723e-5, 0.4999777349)],
)
def test_consistency_scalings_are_the_published_ones(sigma, c_skip, c_out):
    c = edm(epsilon=0.002).of_f(at(sigma))
    assert (c.c_skip.item(), c.c_out.item()) == pytest.approx((c_skip, c_out), rel=5e-10, abs=0)


def test_shifted_consistency_scalings_are_those_of_released_easy_consistency_tuning():
    """ECMPrecond of locuslab/ect shifts by .003 in evaluation and not in training; sigma = .821."""
    train, evaluation = edm().of_f(at(0.821)), edm(epsilon=0.003).of_f(at(0.821))
    assert (train.c_skip.item(), train.c_out.item()) == pytest.approx((0.2705508, 0.4270390), rel=2e-7)
    assert (evaluation.c_skip.item(), evaluation.c_out.item()) == pytest.approx((0.2719981, 0.4254786), rel=2e-7)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 80.0])
def test_input_is_scaled_as_for_the_denoiser(sigma):
    p = edm(epsilon=0.002)
    assert p.of_f(at(sigma)).c_in == p.of_D(at(sigma)).c_in == p.c_in(at(sigma))


@pytest.mark.parametrize("scalings", ["edm", "trigflow"])
@pytest.mark.parametrize("sigma_data", [0.25, 0.31, 0.42, 0.48, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("sigma_min", [0.001, 0.002, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boundary_is_exact(scalings, sigma_data, sigma_min, dtype):
    c = Parameterisation(EDM(), sigma_data, scalings, sigma_min).of_f(at(sigma_min, dtype))
    assert c.c_skip.item() == 1
    assert c.c_out.item() == 0


@pytest.mark.parametrize(
    ("dtype", "skip", "out"), [(torch.float32, 6e-8, 1e-8), (torch.float64, 1.2e-16, 2e-17)], ids=str
)
def test_f_at_epsilon_is_the_identity_to_a_rounding_and_on_the_edm_path_exactly(path, dtype, skip, out):
    """What `of_f` says of float32 and float64, at the noise levels that recipes have."""
    for epsilon in (0.002, 0.003, 0.02, 0.1):
        t = path.t_of_noise_level(at(epsilon, dtype))
        c = Parameterisation(path, 0.5, "edm", epsilon).of_f(t)
        exact = isinstance(path, EDM)
        assert abs((c.c_skip * path.s(t)).item() - 1) <= (0 if exact else skip)
        assert abs(c.c_out.item()) <= (0 if exact else out)


@pytest.mark.parametrize("scalings", ["edm", "trigflow"])
def test_boundary_of_every_path_is_the_clean_scale(path, scalings):
    """f = x_t / s at noise level epsilon, up to the rounding of the noise level."""
    t = path.t_of_noise_level(at(0.002))
    c = Parameterisation(path, 0.5, scalings, 0.002).of_f(t)
    torch.testing.assert_close(c.c_skip, 1 / path.s(t), rtol=1e-14, atol=0)
    assert c.c_out.abs().item() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scalings", SCALINGS)
@pytest.mark.parametrize("sigma_data", [0.25, 0.31, 0.5, 1.0])
def test_denoiser_and_unshifted_f_are_the_identity_without_noise(path, scalings, dtype, sigma_data):
    """c_skip = 1 and c_out = 0 at t = 0 on every path: to the last bit with sigma_data a power of two."""
    p = Parameterisation(path, sigma_data, scalings)
    for c in (p.of_D(at(0.0, dtype)), p.of_f(at(0.0, dtype))):
        exact = sigma_data in (0.25, 0.5, 1.0)
        assert c.c_skip.item() == pytest.approx(1, abs=0 if exact else 2 * torch.finfo(dtype).eps)
        assert c.c_out.item() == 0


def test_linear_scalings_have_no_shifted_form():
    with pytest.raises(ValueError, match="identity at 0"):
        Parameterisation(EDM(), 0.5, "linear", 0.002)


@pytest.mark.parametrize("scalings", ["edm", "trigflow"])
@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
def test_denoiser_scalings_give_input_and_target_unit_variance(path, t, scalings, sigma_data):
    """Karras et al. 2022, app. B.6: Var[c_in x] = 1, Var[(x_0 - c_skip x) / c_out] = 1, and c_out is least."""
    c_skip, c_out, c_in = Parameterisation(path, sigma_data, scalings).of_D(t)
    s, sigma = path.s(t), path.sigma(t)
    one = torch.ones_like(t)
    torch.testing.assert_close(c_in**2 * ((s * sigma_data) ** 2 + sigma**2), one)
    error = lambda skip: (1 - skip * s) ** 2 * sigma_data**2 + skip**2 * sigma**2  # noqa: E731
    torch.testing.assert_close(error(c_skip), c_out**2, rtol=1e-10, atol=0)
    assert (error(1.01 * c_skip) > c_out**2).all()
    assert (error(0.99 * c_skip) > c_out**2).all()


def test_consistency_scalings_without_shift_are_the_denoiser_s(path, t):
    for scalings in SCALINGS:
        p = Parameterisation(path, 0.5, scalings)
        for got, expected in zip(p.of_f(t), p.of_D(t), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_trigflow_is_the_published_one_on_its_own_path():
    """D = cos t x_t - sigma_d sin t F(x_t / sigma_d, t) (Lu & Song 2024, section 3)."""
    t = torch.tensor([0.0, 0.01, 0.3, math.pi / 4, 1.2, math.pi / 2], dtype=torch.float64)
    p = Parameterisation(TrigFlow(0.4), 0.4, "trigflow", noise="identity")
    c = p.of_D(t)
    torch.testing.assert_close(c.c_skip, t.cos(), rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(c.c_out, -0.4 * t.sin(), rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(c.c_in, torch.full_like(t, 1 / 0.4), rtol=1e-13, atol=0)
    assert torch.equal(p.c_noise(t), t)


def test_linear_is_the_velocity_of_the_straight_path_on_its_own_path():
    """x_0 = x_t - t v with the bare x_t as input (Lipman et al. 2023)."""
    t = torch.tensor([0.0, 0.1, 0.5, 0.97], dtype=torch.float64)
    c = Parameterisation(Linear(), 0.5, "linear", noise="identity").of_D(t)
    torch.testing.assert_close(c.c_skip, torch.ones_like(t), rtol=1e-15, atol=0)
    torch.testing.assert_close(c.c_out, -t, rtol=1e-15, atol=0)
    torch.testing.assert_close(c.c_in, torch.ones_like(t), rtol=1e-15, atol=0)


def F_of_D(D, x_t, t, to):  # noqa: N802
    """Return the F that makes the denoiser D in the parameterisation `to`."""
    c_skip, c_out, _ = (like(c, x_t) for c in to.of_D(t))
    return (D - c_skip * x_t) / c_out


def data_and_noise():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("scalings", ["trigflow", "linear"])
def test_f_of_the_true_denoiser_is_the_velocity_that_the_scalings_are_named_for(scalings):
    """With D = x_0 known, F is dx_t/dt of the named path: v / sigma_data for trigflow, v for linear."""
    x_0, eps = data_and_noise()
    path, unit = {"trigflow": (TrigFlow(0.5), 0.5), "linear": (Linear(), 1.0)}[scalings]
    t = path.t_of_noise_level(SIGMA)
    F = F_of_D(x_0, path.x_t(x_0, eps, t), t, Parameterisation(path, 0.5, scalings))
    torch.testing.assert_close(F, path.conditional_velocity(x_0, eps, t) / unit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scalings", SCALINGS)
def test_one_network_is_the_same_denoiser_on_every_path(path, scalings):
    """At equal noise level the network's input is the same, and x_t / s of one path is that of another."""
    x = data_and_noise()[0]
    F, t = torch.sin(x), path.t_of_noise_level(SIGMA)
    mine, of_edm = Parameterisation(path, 0.5, scalings), Parameterisation(EDM(), 0.5, scalings)
    x_t = path.s(t)[:, None] * x
    c_in, edm_c_in = mine.c_in(t)[:, None], of_edm.c_in(SIGMA)[:, None]
    torch.testing.assert_close(c_in * x_t, edm_c_in * x, rtol=1e-11, atol=0)
    D = boundary.combined(mine.of_D(t), x_t, F)
    torch.testing.assert_close(D, boundary.combined(of_edm.of_D(SIGMA), x, F), rtol=1e-11, atol=1e-13)


def test_edm_is_trigflow_with_the_sign_of_f_turned(path, t):
    """Exactly: the two differ in the sign of c_out alone, shifted or not."""
    for epsilon in (0.0, 0.002):
        pair = [Parameterisation(path, 0.5, scalings, epsilon) for scalings in ("edm", "trigflow")]
        for one, other in ([p.of_D(t) for p in pair], [p.of_f(t) for p in pair], [p.d_of_f(t) for p in pair]):
            assert torch.equal(one.c_skip, other.c_skip)
            assert torch.equal(one.c_out, -other.c_out)
            assert torch.equal(one.c_in, other.c_in)


@pytest.mark.parametrize("end", SCALINGS)
@pytest.mark.parametrize("start", SCALINGS)
def test_f_to_denoiser_and_back_through_another_parameterisation(path, start, end):
    """Relative to the largest element of a sample, for where c_out is small D holds few digits of F."""
    x, F = data_and_noise()
    t = path.t_of_noise_level(SIGMA.clamp_min(0.05))
    first, second = (Parameterisation(path, 0.5, scalings) for scalings in (start, end))
    x_t = path.s(t)[:, None] * (1 + SIGMA)[:, None] * x
    D = boundary.combined(first.of_D(t), x_t, F)
    through = F_of_D(D, x_t, t, second)
    again = boundary.combined(second.of_D(t), x_t, through)
    back = F_of_D(again, x_t, t, first)
    scale = max(F.abs().max().item(), through.abs().max().item())
    torch.testing.assert_close(back, F, rtol=0, atol=1e-12 * scale)


def derivative(function, t):
    t = t.clone().requires_grad_()
    return torch.autograd.grad(function(t).sum(), t)[0]


@pytest.mark.parametrize(("scalings", "epsilon"), SHIFTED)
@pytest.mark.parametrize("sigma_data", [0.5, 0.8])
def test_derivatives_of_the_scalings_are_autograd_s(path, t, scalings, epsilon, sigma_data):
    """To 1e-12 of the terms that it is a sum of: those of c_out on the EDM path at sigma = 80 cancel to 4e-5."""
    p = Parameterisation(path, sigma_data, scalings, epsilon)
    rate = path.dsigma(t) / path.sigma(t) + path.ds(t).abs() / path.s(t)
    for name in Scalings._fields:
        got, value = getattr(p.d_of_f(t), name), getattr(p.of_f(t), name)
        expected = derivative(lambda t, name=name: getattr(p.of_f(t), name), t)
        assert ((got - expected).abs() <= 1e-12 * (rate * value.abs() + expected.abs())).all(), name
    assert torch.equal(p.dc_in(t), p.d_of_f(t).c_in)


@pytest.mark.parametrize("noise", NOISES)
def test_derivative_of_what_the_network_is_told_of_the_time_is_autograd_s(path, t, noise):
    p = Parameterisation(path, 0.5, noise=noise)
    torch.testing.assert_close(p.dc_noise(t), derivative(p.c_noise, t), rtol=1e-12, atol=0)


def test_what_the_network_is_told_of_the_time(path):
    t = path.t_of_noise_level(SIGMA)
    told = {noise: Parameterisation(path, 0.5, noise=noise).c_noise(t) for noise in NOISES}
    assert torch.equal(told["identity"], t)
    torch.testing.assert_close(told["angle"], torch.atan(SIGMA / 0.5), rtol=1e-12, atol=0)
    torch.testing.assert_close(told["log"], SIGMA.log() / 4, rtol=1e-11, atol=0)
    torch.testing.assert_close(told["log_1000"], 250 * SIGMA.log(), rtol=1e-11, atol=0)


@pytest.mark.parametrize(
    ("sigma", "t"), [(80.0, 1.564546408), (0.5, math.pi / 4), (0.821, 1.023775674), (0.9823798286, 1.1)]
)
def test_angle_is_the_published_time_of_trigflow(sigma, t):
    assert edm(noise="angle").c_noise(at(sigma)).item() == pytest.approx(t, rel=5e-10)


def test_angle_is_defined_where_the_scale_is_zero():
    assert Parameterisation(TrigFlow(0.5), 0.5, noise="angle").c_noise(at(math.pi / 2)).item() == math.pi / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_combined_is_of_the_type_of_x(dtype):
    x = torch.ones(1, 2, dtype=dtype)
    c = edm().of_D(at(0.5))
    got = boundary.combined(c, x, torch.full((1, 2), 3.0, dtype=torch.bfloat16))
    assert got.dtype == dtype
    assert got[0, 0].item() == pytest.approx(0.5 + 3 * 0.5 / math.sqrt(2), rel=1e-6)
