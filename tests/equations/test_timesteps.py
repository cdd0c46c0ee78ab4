import math
from fractions import Fraction

import pytest
import torch
from scipy.stats import kstest

from cmbench.equations import timesteps

CURRICULUM_STEPS = (0, 1, 1_000, 10_000, 50_000, 100_000, 200_000, 400_000, 600_000)


def test_grid_of_18_is_the_published_one():
    published = [80, 57.58598, 40.78557, 28.37458, 19.35245, 12.91008, 8.400935, 5.315195, 3.256822]
    published += [1.923340, 1.088171, 0.5853481, 0.2964423, 0.1395165, 0.05994731, 0.02293452, 0.007528020, 0.002]
    assert timesteps.karras_grid(18, 0.002, 80.0).flip(0).tolist() == pytest.approx(published, rel=5e-7)


def test_grid_of_11_is_the_published_one():
    published = [0.002, 0.01672075, 0.08508720, 0.3182833, 0.9654169, 2.515219, 5.838948, 12.38158, 24.40834]
    published += [45.31373, 80]
    assert timesteps.karras_grid(11, 0.002, 80.0).tolist() == pytest.approx(published, rel=5e-7)


@pytest.mark.parametrize(
    ("index", "N", "sigma"),
    [
        (22, 40, 1.382367957),
        (17, 40, 4.365561686),
        (106, 201, 1.912843621),
        (67, 151, 3.991218613),
        (62, 151, 5.248503227),
    ],
)
def test_published_sampler_indices_mean_the_published_noise_levels(index, N, sigma):
    """openai/consistency_models counts the grid's points downwards from sigma_max."""
    assert timesteps.karras_grid(N, 0.002, 80.0).flip(0)[index].item() == pytest.approx(sigma, rel=5e-10)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_grid_is_even_in_the_rho_th_root(rho):
    roots = timesteps.karras_grid(9, 0.01, 10.0, rho=rho) ** (1 / rho)
    torch.testing.assert_close(roots.diff(), roots.diff().mean().expand(8), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_of_the_grid_are_exact(dtype):
    grid = timesteps.karras_grid(50, 0.002, 80.0, dtype=dtype)
    assert grid.dtype == dtype
    assert grid[0] == torch.tensor(0.002, dtype=dtype)
    assert grid[-1] == 80
    assert (grid.diff() > 0).all()


def test_smallest_grid_has_both_ends():
    assert timesteps.karras_grid(2, 0.002, 80.0).tolist() == [0.002, 80.0]


@pytest.mark.parametrize(
    ("K", "s_0", "s_1", "published"),
    [
        (800_000, 2, 150, (2, 3, 6, 17, 38, 54, 76, 107, 131, 151)),
        (800_000, 2, 200, (2, 3, 8, 23, 51, 72, 101, 143, 175, 201)),
        (1_000_000, 2, 150, (2, 3, 6, 16, 34, 48, 68, 96, 117, 151)),
    ],
    ids=["cifar10", "imagenet64", "lsun256"],
)
def test_number_of_grid_points_is_the_published_curriculum(K, s_0, s_1, published):
    assert tuple(timesteps.N_of_k(k, K, s_0, s_1) for k in (*CURRICULUM_STEPS, K)) == published


@pytest.mark.parametrize(("s_0", "s_1"), [(2, 150), (2, 2), (10, 80), (2, 37)])
def test_number_of_grid_points_is_the_root_rounded_up(s_0, s_1):
    """From s_0 to s_1 + 1, in exact arithmetic."""
    N = [timesteps.N_of_k(k, 1000, s_0, s_1) for k in range(1001)]
    assert (N[0], N[-1]) == (s_0, s_1 + 1)
    v = [Fraction(k, 1000) * ((s_1 + 1) ** 2 - s_0**2) + s_0**2 for k in range(1001)]
    assert all((n - 1) ** 2 < u <= n**2 for n, u in zip(N, v, strict=True))


@pytest.mark.parametrize(("k", "paper", "code"), [(0, 0.9, 0.81), (10_000, 0.9876811512, 0.9869162814)])
def test_decay_of_the_target_is_the_paper_s_and_not_that_of_the_released_code(k, paper, code):
    mu = timesteps.mu_of_k(timesteps.N_of_k(k, 800_000, 2, 150), 2, 0.9)
    assert mu == pytest.approx(paper, abs=5e-11)
    assert abs(mu - code) > 5e-4


def test_decay_of_the_target_tends_to_one():
    """mu(k)^N(k) = mu_0^s_0 whatever N."""
    assert timesteps.mu_of_k(151, 2, 0.95) ** 151 == pytest.approx(0.95**2)


def test_noise_levels_are_log_normal():
    sigma = timesteps.log_normal(50_000, -1.2, 1.3, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert sigma.shape == (50_000,)
    log = sigma.double().log()
    standard_error = 1.3 / math.sqrt(50_000)
    assert log.mean().item() == pytest.approx(-1.2, abs=4 * standard_error)
    assert log.std().item() == pytest.approx(1.3, abs=4 * standard_error / math.sqrt(2))
    assert kstest(log.numpy(), "norm", args=(-1.2, 1.3)).pvalue > 1e-3


def test_equal_generators_give_equal_noise_levels():
    one, two = (
        timesteps.log_normal(9, 0.0, 1.0, torch.Generator().manual_seed(s), torch.device("cpu")) for s in (4, 4)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("k", "K", "s_0", "s_1", "N"), [(192, 22797, 2, 150, 14), (3596, 22797, 2, 150, 60), (2805, 40397, 2, 200, 53)]
)
def test_number_of_points_is_exact_where_the_root_is_an_integer(k, K, s_0, s_1, N):
    assert Fraction(k * ((s_1 + 1) ** 2 - s_0**2), K) + s_0**2 == N**2
    assert timesteps.N_of_k(k, K, s_0, s_1) == N
