import math
from itertools import pairwise

import pytest
import torch

from cmbench.equations import sampling
from cmbench.equations.gaussian_path import Linear, TrigFlow
from cmbench.equations.timesteps import karras_grid

MEAN, DEVIATION, SIGMA_MIN = 0.3, 0.4, 0.002


def exact_f(x, sigma):
    """Consistency function of N(.3, .4^2) down to sigma_min."""
    scale = math.sqrt(DEVIATION**2 + SIGMA_MIN**2) / torch.sqrt(DEVIATION**2 + sigma.square())
    return MEAN + (x - MEAN) * scale[:, None]


def denoiser(x, sigma):
    return MEAN + (x - MEAN) * (DEVIATION**2 / (DEVIATION**2 + sigma.square()))[:, None]


def noise(n, d=1, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigmas", [[80.0], [80.0, 0.8], [80.0, 5.0, 0.8, 0.1]])
def test_multistep_is_the_published_algorithm(sigmas):
    """Song et al. 2023, algorithm 1, for one number at a time."""
    eps = noise(4, 3)
    got = sampling.multistep_consistency(exact_f, eps, sigmas, SIGMA_MIN, torch.Generator().manual_seed(7))

    def f(x, tau):
        top, bottom = math.sqrt(DEVIATION**2 + SIGMA_MIN**2), math.sqrt(DEVIATION**2 + tau**2)
        return MEAN + (x - MEAN) * top / bottom

    generator = torch.Generator().manual_seed(7)
    x = [[f(80.0 * e, 80.0) for e in row] for row in eps.tolist()]
    for tau in sigmas[1:]:
        z = torch.randn(4, 3, dtype=torch.float64, generator=generator).tolist()
        spread = math.sqrt(tau**2 - SIGMA_MIN**2)
        x = [[f(a + spread * b, tau) for a, b in zip(*rows, strict=True)] for rows in zip(x, z, strict=True)]
    torch.testing.assert_close(got, torch.tensor(x, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigmas", [[80.0], [80.0, 1.0], [80.0, 3.0, 0.5, 0.05]])
def test_samples_of_an_exact_consistency_function_have_the_moments_of_the_data(sigmas):
    """Steps that start from exact samples keep them exact; tolerances are four standard errors."""
    n = 100_000
    x = sampling.multistep_consistency(exact_f, noise(n), sigmas, SIGMA_MIN, torch.Generator().manual_seed(1))
    error = DEVIATION / math.sqrt(n)
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * error + MEAN * DEVIATION / 80)
    assert x.std().item() == pytest.approx(DEVIATION, abs=4 * error / math.sqrt(2))


def test_multistep_forgets_its_first_sample_at_much_noise():
    """From one and the same latent, renoising at sigma_max gives independent samples of the right spread."""
    n = 50_000
    x = sampling.multistep_consistency(
        exact_f, torch.full((n, 1), 3.0, dtype=torch.float64), [80.0, 80.0], SIGMA_MIN, torch.Generator().manual_seed(2)
    )
    assert x.std().item() == pytest.approx(DEVIATION, abs=4 * DEVIATION / math.sqrt(2 * n))


def test_samplers_carry_no_gradient():
    eps = noise(2).requires_grad_()
    assert not sampling.multistep_consistency(exact_f, eps, [80.0], SIGMA_MIN, torch.Generator()).requires_grad
    assert not sampling.heun_ode(denoiser, eps, [80.0, 1.0]).requires_grad


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_sigmas_of_a_sampler_are_the_grid_without_its_lowest_level(steps):
    sigmas = sampling.consistency_sigmas(steps, 0.002, 80.0)
    assert len(sigmas) == steps
    assert sigmas[0] == 80
    root = [s ** (1 / 7) for s in [*sigmas, 0.002]]
    gaps = [a - b for a, b in pairwise(root)]
    assert gaps == pytest.approx([gaps[0]] * steps)


def heun_error(N):
    eps = noise(3)
    got = sampling.heun_ode(denoiser, eps, karras_grid(N, SIGMA_MIN, 80.0).flip(0).tolist())
    exact = MEAN + (80 * eps - MEAN) * DEVIATION / math.sqrt(DEVIATION**2 + 80**2)
    return (got - exact).abs().max().item()


def test_heun_sampler_converges_to_the_exact_flow_with_second_order():
    """In steps of the grid; the last one, Euler's to zero, errs by about sigma_min^2."""
    assert math.log2(heun_error(41) / heun_error(81)) == pytest.approx(2, abs=0.1)
    assert heun_error(161) < 1e-3


def test_heun_sampler_with_one_level_is_the_denoiser():
    eps = noise(3)
    expected = denoiser(5 * eps, torch.full((3,), 5.0, dtype=torch.float64))
    torch.testing.assert_close(sampling.heun_ode(denoiser, eps, [5.0]), expected)


def test_heun_sampler_evaluates_the_denoiser_twice_a_step_and_once_at_the_end():
    asked = []

    def counting(x, sigma):
        asked.append(sigma[0].item())
        return denoiser(x, sigma)

    sampling.heun_ode(counting, noise(2), [80.0, 2.0, 0.1])
    assert asked == [80.0, 2.0, 2.0, 0.1, 0.1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_between_steps_is_the_same_on_a_gpu():
    def drawn(device):
        noise = torch.ones(4, 2, device=device)
        generator = torch.Generator().manual_seed(0)
        return sampling.multistep_consistency(lambda x, sigma: x, noise, [2.0, 1.0, 0.5], 0.1, generator).cpu()

    torch.testing.assert_close(drawn("cuda"), drawn("cpu"))


def carried(z, t, r):
    """The flow of the straight path for data N(.3, .4^2): every z keeps its distance from the mean in deviations."""
    mean_t, mean_r = MEAN * (1 - t), MEAN * (1 - r)
    spread_t, spread_r = (torch.sqrt((DEVIATION * (1 - u)) ** 2 + u**2) for u in (t, r))
    return mean_r + spread_r / spread_t * (z - mean_t)


def exact_u(z, t, r):
    """Its average velocity, (z_t - z_r) / (t - r) (Geng et al. 2025, eq. 3)."""
    return (z - carried(z, t[:, None], r[:, None])) / (t - r)[:, None]


@pytest.mark.parametrize(("z", "r", "t", "u"), [(0.8, 0.0, 1.0, 0.18), (-1.0, 0.2, 0.7, -1.321692284)])
def test_average_velocity_of_a_gaussian_is_the_published_one(z, r, t, u):
    z, t, r = (torch.tensor([value], dtype=torch.float64) for value in (z, t, r))
    assert exact_u(z[:, None], t, r).item() == pytest.approx(u, rel=5e-10)


@pytest.mark.parametrize("levels", [[1e4], [80.0, 1.0], [80.0, 3.0, 0.5, 0.05]])
def test_average_velocity_takes_exact_steps_of_any_length(levels):
    """With the exact u any number of steps ends where the flow does."""
    path, eps = Linear(), noise(4, 3)
    times = [path.t_of_noise_level(torch.tensor([sigma], dtype=torch.float64)) for sigma in levels]
    z = path.sigma(times[0]) * eps
    got = sampling.average_velocity(exact_u, eps, times, path)
    torch.testing.assert_close(got, carried(z, times[0], torch.zeros(1, dtype=torch.float64)), rtol=1e-12, atol=1e-12)


def test_average_velocity_is_asked_from_time_to_time_and_to_zero_at_last():
    asked = []

    def u(z, t, r):
        asked.append((t.tolist(), r.tolist()))
        return torch.zeros_like(z)

    eps = noise(2).requires_grad_()
    got = sampling.average_velocity(u, eps, [torch.tensor([0.9]), torch.tensor([0.4])], Linear())
    half = pytest.approx([0.4, 0.4])
    assert asked == [(pytest.approx([0.9, 0.9]), half), (half, [0, 0])]
    assert not got.requires_grad
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, 0.9 * eps.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", [Linear(), TrigFlow(0.5)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_even_sigmas_are_even_in_the_time_of_the_path(path, steps):
    sigmas = sampling.even_sigmas(steps, 80.0, path)
    assert len(sigmas) == steps
    assert sigmas[0] == pytest.approx(80, rel=1e-12)
    times = path.t_of_noise_level(torch.tensor([*sigmas, 0.0], dtype=torch.float64))
    torch.testing.assert_close(-times.diff(), (times[0] / steps).expand(steps), rtol=1e-9, atol=0)
