import math

import pytest
import torch

from cmbench.equations import boundary


def at(sigma, dtype=torch.float64):
    return torch.tensor([sigma], dtype=dtype)


def test_denoiser_scalings_are_the_published_ones():
    c = boundary.denoiser_scalings(at(0.821), 0.5)
    expected = (0.2705507656, 0.4270390013, 1.040289893, math.log(0.821) / 4)
    assert [x.item() for x in c] == pytest.approx(expected, rel=5e-10)


@pytest.mark.parametrize(
    ("sigma", "c_skip", "c_out"),
    [(0.002, 1.0, 0.0), (0.1, 0.9630051925, 0.09609690622), (80.0, 3.906292723e-5, 0.4999777349)],
)
def test_consistency_scalings_are_the_published_ones(sigma, c_skip, c_out):
    c = boundary.consistency_scalings(at(sigma), 0.5, 0.002)
    assert (c.c_skip.item(), c.c_out.item()) == pytest.approx((c_skip, c_out), rel=5e-10, abs=0)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 80.0])
def test_input_and_time_are_scaled_as_for_the_denoiser(sigma):
    c, d = boundary.consistency_scalings(at(sigma), 0.5, 0.002), boundary.denoiser_scalings(at(sigma), 0.5)
    assert c.c_in == d.c_in
    assert c.c_noise == d.c_noise == pytest.approx(math.log(sigma) / 4)


@pytest.mark.parametrize("sigma_data", [0.25, 0.31, 0.42, 0.48, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("sigma_min", [0.001, 0.002, 0.01])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boundary_is_exact(sigma_data, sigma_min, dtype):
    c = boundary.consistency_scalings(at(sigma_min, dtype), sigma_data, sigma_min)
    assert c.c_skip.item() == 1
    assert c.c_out.item() == 0


def test_denoiser_is_the_identity_without_noise():
    c = boundary.denoiser_scalings(at(0.0), 0.5)
    assert c.c_skip.item() == 1
    assert c.c_out.item() == 0


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_denoiser_scalings_give_input_and_target_unit_variance(sigma):
    """Karras et al. 2022, app. B.6: Var[c_in x] = 1, Var[(x_0 - c_skip x) / c_out] = 1, and c_out is least."""
    c_skip, c_out, c_in, _ = boundary.denoiser_scalings(at(sigma), 0.5)
    assert (c_in**2 * (0.25 + sigma**2)).item() == pytest.approx(1)
    assert (((1 - c_skip) ** 2 * 0.25 + c_skip**2 * sigma**2) / c_out**2).item() == pytest.approx(1)
    other = 1.01 * c_skip
    assert ((1 - other) ** 2 * 0.25 + other**2 * sigma**2).item() > (c_out**2).item()


def test_consistency_scalings_without_shift_are_the_denoiser_s():
    sigma = torch.tensor([0.002, 0.3, 80.0], dtype=torch.float64)
    unshifted, denoiser = boundary.consistency_scalings(sigma, 0.5, 0.0), boundary.denoiser_scalings(sigma, 0.5)
    for got, expected in zip(unshifted, denoiser, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)
