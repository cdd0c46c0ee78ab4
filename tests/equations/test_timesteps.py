import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, norm

from cmbench.equations import timesteps
from cmbench.equations.gaussian_path import TrigFlow

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
    assert kstest(log.numpy(), norm(-1.2, 1.3).cdf).pvalue > 1e-3


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


@pytest.mark.parametrize(
    ("K", "K_prime", "s_1"), [(400_000, 50_000, 1280), (800_000, 100_000, 1280), (1000, 125, 1280), (1000, 250, 80)]
)
def test_doubling_curriculum_is_the_published_one(K, K_prime, s_1):
    """11 points at first, s_1 + 1 at last, twice the intervals every K' steps (Song & Dhariwal 2023, section 3.4)."""
    doublings = int(math.log2(s_1 // 10)) + 1
    assert K_prime == K // doublings
    for i in range(doublings):
        ends = timesteps.N_doubling(i * K_prime, K, 10, s_1), timesteps.N_doubling((i + 1) * K_prime - 1, K, 10, s_1)
        assert ends == (10 * 2**i + 1, 10 * 2**i + 1)
    assert timesteps.N_doubling(K - 1, K, 10, s_1) == s_1 + 1


def test_doubling_curriculum_at_the_published_steps():
    steps = (0, 49_999, 50_000, 100_000, 150_000, 250_000, 349_999, 350_000, 399_999)
    published = (11, 11, 21, 41, 81, 321, 641, 1281, 1281)
    assert tuple(timesteps.N_doubling(k, 400_000, 10, 1280) for k in steps) == published


def test_doubling_curriculum_of_few_steps_is_capped():
    assert [timesteps.N_doubling(k, 3, 10, 1280) for k in (0, 1, 2)] == [11, 21, 41]
    assert timesteps.N_doubling(1_000, 3, 10, 1280) == 1281
    assert timesteps.N_doubling(5, 10, 2, 2) == 3


def test_discretised_log_normal_is_the_published_one():
    p = timesteps.discretised_log_normal(timesteps.karras_grid(11, 0.002, 80.0), -1.1, 2.0)
    published = [0.0626330, 0.1817370, 0.2455014, 0.2134944, 0.1424461, 0.0806046, 0.0410799, 0.0195801, 0.0089439]
    assert p.tolist() == pytest.approx([*published, 0.0039796], abs=5e-8)
    grid = timesteps.karras_grid(1281, 0.002, 80.0)
    p = timesteps.discretised_log_normal(grid, -1.1, 2.0)
    assert p.shape == (1280,)
    assert p.argmax() == 329
    assert p.max().item() == pytest.approx(0.001955689, abs=5e-10)
    assert grid[torch.searchsorted(p.cumsum(0), 0.5)].item() == pytest.approx(0.3335370, abs=5e-8)


@pytest.mark.parametrize("N", [2, 11, 80])
def test_discretised_log_normal_is_the_normal_law_of_each_interval(N):
    grid = timesteps.karras_grid(N, 0.002, 80.0)
    p = timesteps.discretised_log_normal(grid.float(), -0.7, 1.3)
    cdf = norm.cdf(grid.log().numpy(), -0.7, 1.3)
    assert p.dtype == torch.float64
    assert p.numpy() == pytest.approx(np.diff(cdf) / (cdf[-1] - cdf[0]), rel=1e-5, abs=1e-9)
    assert p.sum().item() == pytest.approx(1, rel=1e-14)


def test_stages_are_of_one_length_and_rise_by_one():
    stages = [timesteps.ect_stage(k, 800, 8) for k in range(800)]
    assert stages == [k // 100 for k in range(800)]
    assert [timesteps.ect_stage(k, 3, 8) for k in (0, 1, 2)] == [0, 2, 5]
    assert timesteps.ect_stage(5, 5, 1) == 0


@pytest.mark.parametrize(
    ("q", "stage", "t", "r"),
    [
        (2, 0, 1, 0),
        (2, 0, 2, 0.04637662),
        (2, 0, 4, 1.712221),
        (2, 0, 10, 4.998184),
        (2, 1, 1, 0.2121172),
        (2, 1, 2, 1.023188),
        (2, 3, 0.5, 0.3743648),
        (4, 0, 1, 0.2121172),
        (4, 0, 2, 1.023188),
        (256, 0, 1, 0.9876893),
    ],
)
def test_other_end_of_the_interval_is_the_published_one(q, stage, t, r):
    got = timesteps.ect_r(torch.tensor([t], dtype=torch.float64), stage, q, 8.0, 1.0, "sigmoid")
    assert got.item() == pytest.approx(r, rel=5e-7, abs=0)


@pytest.mark.parametrize(("stage", "t"), [(0, 1.945910149), (1, 0.5108256238)])
def test_other_end_is_zero_up_to_the_published_time(stage, t):
    around = torch.tensor([0.99 * t, t, 1.01 * t], dtype=torch.float64)
    r = timesteps.ect_r(around, stage, 2.0, 8.0, 1.0, "sigmoid")
    assert r[0] == 0
    assert 0 <= r[1] < 1e-9
    assert r[2] > 0


def test_other_end_is_never_zero_from_the_third_stage_on_and_always_below_the_time():
    t = torch.logspace(-6, 2, 200, dtype=torch.float64)
    for stage in range(2, 9):
        r = timesteps.ect_r(t, stage, 2.0, 8.0, 1.0, "sigmoid")
        assert (r > 0).all()
        assert (r < t).all()


def test_constant_adjustment_shrinks_the_interval_by_q():
    t = torch.tensor([0.1, 3.0], dtype=torch.float64)
    for stage in range(4):
        r = timesteps.ect_r(t, stage, 4.0, 8.0, 1.0, "constant")
        torch.testing.assert_close((t - r) / t, torch.full_like(t, 4.0 ** -(stage + 1)), rtol=1e-12, atol=0)


def test_warm_up_is_linear_up_to_one():
    assert [timesteps.warm_up(k, 10) for k in (0, 1, 5, 10, 11, 10_000)] == [0, 0.1, 0.5, 1, 1, 1]
    assert timesteps.warm_up(0, 0) == 1


def test_edges_are_even_in_the_logarithm_and_end_at_the_range():
    edges = timesteps.log_edges(7, 0.002, 80.0)
    assert edges.shape == (8,)
    assert edges[[0, -1]].tolist() == pytest.approx([0.002, 80], rel=1e-14)
    torch.testing.assert_close(edges[1:] / edges[:-1], (edges[1] / edges[0]).expand(7), rtol=1e-12, atol=0)


def truncated_cdf(t, nu, scale, low, high):
    """Share of the density (1 + u^2 / nu)^(-(nu + 1) / 2), u = log t / scale, below t, by quadrature."""

    def mass(a, b):
        return quad(lambda u: (1 + u * u / nu) ** (-(nu + 1) / 2), a, b, epsabs=0, epsrel=1e-11, limit=200)[0]

    ends = math.log(low) / scale, math.log(high) / scale
    return mass(ends[0], math.log(t) / scale) / mass(*ends)


@pytest.mark.parametrize(("nu", "scale", "low"), [(0.01, 0.2, 1.0), (2.0, 1.0, 0.5)])
def test_quantiles_of_the_truncated_t_are_those_of_its_density(nu, scale, low):
    quantiles = timesteps.truncated_student_t(65, nu, scale, low, 80.0)
    assert quantiles[[0, -1]].tolist() == [low, 80.0]
    assert (quantiles.diff() > 0).all()
    for i in range(1, 64):
        assert truncated_cdf(quantiles[i].item(), nu, scale, low, 80.0) == pytest.approx(i / 64, abs=1e-7)


def test_median_of_the_truncated_t_is_the_published_one():
    """Of the second stage of truncated consistency training: log t = .2 T_.01 on [log 1, log 80]."""
    quantiles = timesteps.truncated_student_t(2**14 + 1, 0.01, 0.2, 1.0, 80.0)
    assert quantiles[2**13].item() == pytest.approx(1.22115, abs=5e-6)


def test_quantiles_are_met_at_their_probabilities_and_joined_by_straight_lines():
    quantiles = torch.tensor([1.0, 2.0, 10.0])
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24])
    assert timesteps.of_quantiles(quantiles, u).tolist() == pytest.approx([1, 1.5, 2, 6, 10], rel=1e-6)


def test_draws_by_quantiles_follow_their_law():
    quantiles = timesteps.truncated_student_t(2**14 + 1, 0.01, 0.2, 1.0, 80.0)
    u = torch.rand(2_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = timesteps.of_quantiles(quantiles, u).sort().values
    law = [truncated_cdf(value, 0.01, 0.2, 1.0, 80.0) for value in t[::40].tolist()]
    assert law == pytest.approx((torch.arange(0, 2_000, 40) / 2_000).tolist(), abs=1.95 / math.sqrt(2_000))


def test_times_of_scm_have_the_published_quantiles():
    """t = arctan(e^tau / sigma_data), tau ~ N(-1, 1.4^2), at the probabilities .01, .5 and .99."""
    tau = torch.tensor(norm.ppf([0.01, 0.5, 0.99], -1.0, 1.4))
    t = TrigFlow(0.5).t_of_noise_level(tau.exp()).tolist()
    assert t == [pytest.approx(0.0283, abs=5e-5), pytest.approx(0.6343243, abs=5e-8), pytest.approx(1.5185, abs=5e-5)]
