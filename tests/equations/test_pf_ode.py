import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from cmbench.equations import pf_ode
from cmbench.equations.gaussian_path import EDM, Linear
from cmbench.equations.timesteps import karras_grid

MEAN, DEVIATION = 0.3, 0.4
WEIGHTS, MEANS, DEVIATIONS = np.array([0.3, 0.7]), np.array([-0.6, 0.4]), np.array([0.15, 0.25])


def gaussian_denoiser(x, sigma):
    """E[x_0 | x] of N(.3, .4^2)."""
    return MEAN + DEVIATION**2 / (DEVIATION**2 + sigma[:, None].square()) * (x - MEAN)


def gaussian_flow(x, n_from, n_to):
    """Exact flow of the EDM path for N(.3, .4^2): the standardised coordinate is constant."""
    return MEAN + (x - MEAN) * math.sqrt((DEVIATION**2 + n_to**2) / (DEVIATION**2 + n_from**2))


def posterior(x_t, s, sigma):
    """Nodes x_0, quadrature weights of p(x_0 | x_t) and log p(x_t), for the two-component mixture."""
    x_0 = np.linspace(-3, 3, 60_001)
    prior = sum(w * np.exp(-(((x_0 - m) / d) ** 2) / 2) / d for w, m, d in zip(WEIGHTS, MEANS, DEVIATIONS, strict=True))
    exponent = -(((x_t - s * x_0) / sigma) ** 2) / 2
    joint = prior * np.exp(exponent - exponent.max())
    return x_0, joint / joint.sum(), math.log(joint.sum()) + exponent.max()


def on_path(path, t, x=(-0.9, -0.3, 0.1, 0.5, 1.2)):
    """Points of the path whose rescaled EDM points are near the data, (5, 1)."""
    x = torch.tensor(x, dtype=torch.float64)
    return (path.s(t) * x + 0.7 * path.sigma(t))[:, None]


def conditional_means(path, x_t, t):
    """E[x_0 | x_t] and E[dx_t/dt | x_t] by quadrature, each (5, 1)."""
    means, velocities = [], []
    for x, u in zip(x_t[:, 0].tolist(), t[:, None], strict=True):
        s, sigma, ds, dsigma = (f(u).item() for f in (path.s, path.sigma, path.ds, path.dsigma))
        x_0, p, _ = posterior(x, s, sigma)
        means.append(p @ x_0)
        velocities.append(p @ (ds * x_0 + dsigma * (x - s * x_0) / sigma))
    return torch.tensor(means)[:, None], torch.tensor(velocities)[:, None]


def test_marginal_velocity_is_the_conditional_expectation_of_the_conditional_velocity(path, t):
    x_t = on_path(path, t)
    mean, velocity = conditional_means(path, x_t, t)
    torch.testing.assert_close(pf_ode.velocity_from_denoised(mean, x_t, t, path), velocity, rtol=1e-9, atol=1e-9)


def test_velocity_takes_a_denoiser_of_the_edm_path_to_any_path(path, t):
    """The denoiser is asked at x_t / s and sigma / s; its answer is quadrature's."""
    x_t = on_path(path, t)

    def denoiser(x, sigma):
        return torch.tensor([[p @ x_0] for x_0, p, _ in map(posterior, x[:, 0].tolist(), [1.0] * 5, sigma.tolist())])

    _, velocity = conditional_means(path, x_t, t)
    torch.testing.assert_close(pf_ode.velocity(denoiser, path)(x_t, t), velocity, rtol=1e-8, atol=1e-8)


def test_score_is_the_gradient_of_the_log_density(path, t):
    x_t = on_path(path, t)
    mean, _ = conditional_means(path, x_t, t)
    score = pf_ode.score_from_denoised(mean, x_t, t, path)
    for x, s, sigma, got in zip(x_t[:, 0].tolist(), path.s(t).tolist(), path.sigma(t).tolist(), score, strict=True):
        h = 1e-4 * (sigma + 0.1 * s)
        difference = (posterior(x + h, s, sigma)[2] - posterior(x - h, s, sigma)[2]) / (2 * h)
        assert got.item() == pytest.approx(difference, rel=2e-6, abs=1e-6)


def test_velocity_from_score_is_that_from_the_denoised(path, t):
    x_t = on_path(path, t)
    denoised = gaussian_denoiser(x_t / path.s(t)[:, None], path.noise_level(t))
    score = pf_ode.score_from_denoised(denoised, x_t, t, path)
    torch.testing.assert_close(
        pf_ode.velocity_from_score(score, x_t, t, path),
        pf_ode.velocity_from_denoised(denoised, x_t, t, path),
        rtol=1e-11,
        atol=1e-12,
    )


def test_velocity_and_score_of_a_gaussian_are_the_closed_forms(path, t):
    """x_t ~ N(s m, s^2 d^2 + sigma^2), so v = s' m + (x_t - s m) d(log deviation)/dt."""
    x_t, s, sigma = on_path(path, t), path.s(t)[:, None], path.sigma(t)[:, None]
    variance = s**2 * DEVIATION**2 + sigma**2
    half_growth = s * path.ds(t)[:, None] * DEVIATION**2 + sigma * path.dsigma(t)[:, None]
    expected = path.ds(t)[:, None] * MEAN + (x_t - s * MEAN) * half_growth / variance
    torch.testing.assert_close(pf_ode.velocity(gaussian_denoiser, path)(x_t, t), expected, rtol=1e-10, atol=1e-11)
    denoised = gaussian_denoiser(x_t / s, path.noise_level(t))
    score = pf_ode.score_from_denoised(denoised, x_t, t, path)
    torch.testing.assert_close(score, -(x_t - s * MEAN) / variance, rtol=1e-9, atol=1e-11)


def test_flows_of_all_paths_agree_after_the_change_of_scale_and_clock(path):
    n = torch.tensor([3.0, 0.1], dtype=torch.float64)
    t, v = path.t_of_noise_level(n), pf_ode.velocity(gaussian_denoiser, path)

    def dxdt(time, x):
        return v(torch.from_numpy(x)[:, None], torch.full((len(x),), time, dtype=torch.float64))[:, 0].numpy()

    start = np.array([-4.0, 0.2, 2.5])
    end = solve_ivp(dxdt, t.tolist(), path.s(t)[0].item() * start, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(end / path.s(t)[1].item(), gaussian_flow(start, 3.0, 0.1), rtol=1e-8)


def error_after(step, path, n_steps, n_from=2.0, n_to=0.3):
    """Error of so many equal steps in t on the exact Gaussian flow."""
    ends = path.t_of_noise_level(torch.tensor([n_from, n_to], dtype=torch.float64))
    times = torch.linspace(*ends.tolist(), n_steps + 1, dtype=torch.float64)
    v = pf_ode.velocity(gaussian_denoiser, path)
    x = torch.tensor([[1.7]], dtype=torch.float64)
    x_t = path.s(times[0]) * x
    for t, r in zip(times[:-1, None], times[1:, None], strict=True):
        x_t = step(v, x_t, t, r)
    return abs((x_t / path.s(times[-1])).item() - gaussian_flow(1.7, n_from, n_to))


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_global_order_of_the_solver(path, solver, order):
    coarse, fine = (error_after(pf_ode.SOLVERS[solver], path, n) for n in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize(("solver", "order"), [("euler", 2), ("heun", 3)])
def test_local_order_of_the_solver(path, solver, order):
    t = path.t_of_noise_level(torch.tensor([0.5], dtype=torch.float64))
    errors = []
    for h in (0.004, 0.002):
        r = t * (1 - h)
        x_t = pf_ode.SOLVERS[solver](pf_ode.velocity(gaussian_denoiser, path), path.s(t)[:, None] * 1.1, t, r)
        exact = gaussian_flow(1.1, 0.5, path.noise_level(r).item())
        errors.append(abs((x_t / path.s(r)[:, None]).item() - exact))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize(("N", "error"), [(5, 0.758), (9, 0.139), (18, 0.0276), (40, 0.00489), (79, 0.00119)])
def test_heun_on_the_karras_grid_has_the_published_errors_on_a_gaussian(N, error):
    """From x = 80 at sigma 80 to sigma .002, data N(0, .5^2)."""
    v = pf_ode.velocity(lambda x, sigma: 0.25 / (0.25 + sigma[:, None].square()) * x, EDM())
    grid, x = karras_grid(N, 0.002, 80.0).flip(0)[:, None], torch.tensor([[80.0]], dtype=torch.float64)
    for t, r in pairwise(grid):
        x = pf_ode.heun_step(v, x, t, r)
    exact = 80 * math.sqrt((0.25 + 0.002**2) / (0.25 + 80**2))
    assert abs(x.item() - exact) == pytest.approx(error, rel=5e-3)


@pytest.mark.parametrize("straight", [EDM(), Linear()])
def test_one_euler_step_with_the_conditional_score_stays_on_the_same_noise(straight):
    """The step from x_0 + t_n eps with score -(x_t - s x_0) / sigma^2 ends at x_0 + t_{n-1} eps.

    Song et al. 2023, section 5.
    """
    g = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 4, 3, dtype=torch.float64, generator=g)
    t, r = torch.tensor([0.9, 0.5, 0.3, 0.1]).double(), torch.tensor([0.6, 0.4, 0.002, 0.01]).double()

    def v(x_t, t):
        s, sigma = straight.s(t)[:, None], straight.sigma(t)[:, None]
        return pf_ode.velocity_from_score(-(x_t - s * x_0) / sigma**2, x_t, t, straight)

    x_r = pf_ode.euler_step(v, straight.x_t(x_0, eps, t), t, r)
    torch.testing.assert_close(x_r, straight.x_t(x_0, eps, r), rtol=1e-12, atol=1e-12)


def test_heun_asks_for_the_slope_at_both_ends_and_averages_them():
    asked = []

    def v(x, t):
        asked.append((x.item(), t.item()))
        return x * t[:, None]

    x, t, r = torch.tensor([[2.0]]), torch.tensor([1.0]), torch.tensor([0.5])
    assert pf_ode.heun_step(v, x, t, r).item() == pytest.approx(2 - 0.5 * (2 + 0.5) / 2)
    assert asked == [(2.0, 1.0), (1.0, 0.5)]
