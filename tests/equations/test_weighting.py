import math

import pytest
import torch

from cmbench.equations import pf_ode, weighting
from cmbench.equations.boundary import Parameterisation
from cmbench.equations.gaussian_path import EDM, Linear
from cmbench.equations.timesteps import karras_grid

SIGMA = torch.tensor([0.002, 0.5, 3.0, 80.0], dtype=torch.float64)
R = torch.tensor([0.001, 0.25, 2.5, 60.0], dtype=torch.float64)


@pytest.mark.parametrize("sigma_data", [0.5, 0.7])
def test_edm_weight_is_one_over_the_variance_of_noise_plus_that_of_data(sigma_data):
    expected = 1 / SIGMA.square() + 1 / sigma_data**2
    torch.testing.assert_close(weighting.edm(SIGMA, sigma_data), expected, rtol=1e-13, atol=0)


def test_edm_weight_is_unit_weight_on_the_network():
    weight = weighting.edm(SIGMA, 0.5) * Parameterisation(EDM(), 0.5).of_D(SIGMA).c_out.square()
    torch.testing.assert_close(weight, torch.ones(4, dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", [1, 1, 1, 1]),
        ("edm", [250004, 8, 4 + 1 / 9, 4 + 1 / 6400]),
        ("inverse_interval", [1000, 4, 2, 0.05]),
    ],
)
def test_weight_of_a_pair_is_what_the_recipe_names(kind, expected):
    assert weighting.of_pair(kind, SIGMA, R, 0.5).tolist() == pytest.approx(expected)


def test_velocity_weight_turns_the_error_of_the_denoiser_into_that_of_the_velocity(path, t):
    generator = torch.Generator().manual_seed(0)
    x_t, D, wrong = torch.randn(3, 5, 2, dtype=torch.float64, generator=generator)
    v, off = (pf_ode.velocity_from_denoised(d, x_t, t, path) for d in (D, wrong))
    expected = weighting.velocity(t, path)[:, None] * (D - wrong).square()
    torch.testing.assert_close((v - off).square(), expected, rtol=1e-9, atol=1e-12)


def test_velocity_weight_of_the_straight_path_is_one_over_the_time_squared():
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    torch.testing.assert_close(weighting.velocity(t, Linear()), t**-2, rtol=1e-13, atol=0)


def test_weight_of_interval_is_the_published_one_on_the_grid_of_11():
    grid = karras_grid(11, 0.002, 80.0)
    weight = weighting.inverse_interval(grid[1:], grid[:-1])
    assert weight[:4].tolist() == pytest.approx([67.93131, 14.62706, 4.288237, 1.545276], rel=2e-7)
    assert weight[-1].item() == pytest.approx(0.02882985, rel=2e-7)


def test_adaptive_weight_is_least_at_the_inverse_of_the_mean_loss():
    """Zero slope in w at e^w = 1 / E[loss], and larger on both sides (Karras et al. 2024, eq. 21)."""
    loss = torch.tensor([0.2, 1.0, 3.3, 0.7], dtype=torch.float64)
    w = (-loss.mean().log()).expand(4).clone().requires_grad_()
    total = weighting.adaptive(loss, w).mean()
    assert torch.autograd.grad(total, w)[0].sum().abs().item() < 1e-14
    for step in (-0.1, 0.1):
        assert weighting.adaptive(loss, w.detach() + step).mean() > total
    assert total.item() == pytest.approx(1 + math.log(loss.mean()))


def test_adaptive_weight_scales_the_gradient_of_the_loss():
    loss = torch.tensor([0.2, 3.0], requires_grad=True)
    w = torch.tensor([0.0, math.log(2.0)])
    (gradient,) = torch.autograd.grad(weighting.adaptive(loss, w).sum(), loss)
    assert gradient.tolist() == pytest.approx([1, 2])
