import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from cmbench.equations import ema


class Pair(nn.Module):
    def __init__(self, weight, count):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.scalar = nn.Parameter(torch.tensor(2 * weight[0]))
        self.register_buffer("count", torch.tensor(count))


@pytest.mark.parametrize("mu", [0.0, 0.25, 0.9, 0.9999])
def test_update_is_the_weighted_mean(mu):
    average, model = Pair([1.0, -2.0], 3), Pair([5.0, 4.0], 7)
    ema.Follower(average, model).update(mu)
    expected = [mu * a + (1 - mu) * b for a, b in ((1.0, 5.0), (-2.0, 4.0))]
    assert average.weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert average.scalar.item() == pytest.approx(mu * 2 + (1 - mu) * 10, rel=1e-6)


def test_update_copies_buffers_and_leaves_the_model_alone():
    average, model = Pair([1.0, -2.0], 3), Pair([5.0, 4.0], 7)
    ema.Follower(average, model).update(0.9)
    assert average.count.item() == 7
    assert model.weight.tolist() == [5.0, 4.0]
    assert not average.weight.grad_fn


def test_decay_zero_copies_bit_for_bit():
    average, model = Pair([0.1, 0.3], 0), Pair([1 / 3, 1e-7], 1)
    ema.Follower(average, model).update(0.0)
    assert torch.equal(average.weight, model.weight)


@pytest.mark.parametrize(("sigma_rel", "gamma"), [(0.05, 16.9722), (0.1, 6.9372), (0.01, 96.995)])
def test_gamma_of_the_power_profile_is_the_published_one(sigma_rel, gamma):
    assert ema.power_gamma(sigma_rel) == pytest.approx(gamma, rel=1e-5)


def test_decay_of_the_power_profile_is_the_published_one():
    assert ema.power_mu(100, ema.power_gamma(0.05)) == pytest.approx(0.8347470, abs=5e-8)


def test_first_step_of_the_power_profile_forgets_the_initial_weights():
    assert ema.power_mu(1, 6.9) == 0


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_power_profile_has_the_width_that_it_is_named_for(sigma_rel):
    """The weights that 5,000 updates give to the steps have that standard deviation over the steps taken."""
    K, gamma = 5_000, ema.power_gamma(sigma_rel)
    weights = np.zeros(K)
    for k in range(1, K + 1):
        mu = ema.power_mu(k, gamma)
        weights *= mu
        weights[k - 1] = 1 - mu
    assert weights.sum() == pytest.approx(1)
    u = np.arange(1, K + 1) / K
    mean = weights @ u
    assert math.sqrt(weights @ (u - mean) ** 2) == pytest.approx(sigma_rel, rel=2e-3)


@pytest.mark.parametrize("half_life", [1_000.0, 500_000.0])
def test_after_a_half_life_half_of_the_weight_is_left(half_life):
    assert ema.half_life_mu(125, half_life) ** (half_life / 125) == pytest.approx(0.5)


def test_ramp_up_is_that_of_edms_training_loop():
    """There `cur_nimg` counts the images before the step."""
    for step in range(1, 200):
        cur_nimg, batch_size = (step - 1) * 512, 512
        ema_halflife_nimg = min(500 * 1000, cur_nimg * 0.05)
        ema_beta = 0.5 ** (batch_size / max(ema_halflife_nimg, 1e-8))
        assert ema.half_life_mu(512, 500_000, cur_nimg, 0.05) == pytest.approx(ema_beta, abs=1e-12)


def density(s, t, gamma):
    return np.where(s <= t, (gamma + 1) * s**gamma / t ** (gamma + 1), 0)


def test_inner_products_are_the_integrals_of_the_products():
    profiles = ema.Profiles.of_widths([40.0, 100.0, 100.0], [0.1, 0.05, 0.2])
    s = (np.arange(2_000_000) + 0.5) * 100 / 2_000_000
    drawn = [density(s, t, g) for t, g in zip(profiles.t.tolist(), profiles.gamma.tolist(), strict=True)]
    expected = [[float((a * b).mean() * 100) for b in drawn] for a in drawn]
    assert profiles.inner(profiles).tolist() == [pytest.approx(row, rel=1e-5) for row in expected]


def test_the_combination_is_that_of_the_published_code():
    """solve_posthoc_coefficients of NVlabs/edm2, training/phema.py, with these inputs."""
    kept = ema.Profiles.of_widths([50, 100, 50, 100], [0.05, 0.05, 0.1, 0.1])
    x, _ = ema.combination(kept, ema.Profiles.of_widths([100], [0.08]))
    assert x[:, 0].tolist() == pytest.approx([0.000183, 0.258129, -0.002505, 0.744193], abs=1e-6)


def test_an_average_that_is_kept_is_found_again():
    kept = ema.Profiles.of_widths([50, 100, 50, 100], [0.05, 0.05, 0.1, 0.1])
    x, errors = ema.combination(kept, kept)
    np.testing.assert_allclose(x.numpy(), np.eye(4), atol=1e-9)
    assert errors.max() < 1e-6


def true_average(theta, sigma_rel):
    """Return the average after each step, (K + 1, d), by its recursion."""
    gamma, found = ema.power_gamma(sigma_rel), [np.zeros(theta.shape[1])]
    for k in range(1, len(theta) + 1):
        mu = ema.power_mu(k, gamma)
        found.append(mu * found[-1] + (1 - mu) * theta[k - 1])
    return np.stack(found)


WIDTHS = [0.02, 0.03, 0.06, 0.075, 0.09, 0.15, 0.2, 0.25]


@pytest.mark.parametrize("n", [8, 16, 32])
def test_what_is_reconstructed_is_as_near_as_the_profiles_are(n):
    """Of a walk of weights: no further from the true average than Cauchy and Schwarz allow, and than a few percent.

    The walk's size is its deviation from its own mean over the profile, as the weights' noise would be.
    """
    K = 960
    theta = np.random.default_rng(0).standard_normal((K, 500)).cumsum(axis=0)
    kept = [(K * (i + 1) // n, width) for width in (0.05, 0.1) for i in range(n)]
    taken = {width: true_average(theta, width) for width in (0.05, 0.1)}
    profiles = ema.Profiles.of_widths(*zip(*kept, strict=True))
    wanted = ema.Profiles.of_widths([K] * len(WIDTHS), WIDTHS)
    x, errors = ema.combination(profiles, wanted)
    assert x.sum(dim=0).tolist() == pytest.approx([1] * len(WIDTHS))
    found = x.numpy().T @ np.stack([taken[width][t] for t, width in kept])
    norms = wanted.inner(wanted).diagonal().sqrt().numpy()
    for j, width in enumerate(WIDTHS):
        distance = np.abs(found[j] - true_average(theta, width)[K])
        bound = float(errors[j]) * norms[j] * np.sqrt(((theta - theta.mean(axis=0)) ** 2).sum(axis=0))
        assert (distance <= bound).all()
        if n == 32:
            assert np.linalg.norm(distance) < 0.02 * np.linalg.norm(theta[-1] - true_average(theta, width)[K])


def test_more_copies_make_it_better_as_long_as_numbers_are_exact():
    wanted = ema.Profiles.of_widths([100] * 3, [0.02, 0.075, 0.2])
    errors = []
    for n in (4, 8, 16, 32, 64):
        times = [100 * (i + 1) / n for i in range(n)]
        errors.append(ema.combination(ema.Profiles.of_widths(times * 2, [0.05] * n + [0.1] * n), wanted)[1])
    assert all((later < earlier / 2).all() for earlier, later in pairwise(errors[1:]))


def test_the_reach_grows_with_the_copies_and_its_ends_are_near_enough():
    reaches = []
    for n in (8, 16, 32):
        kept = ema.Profiles.of_widths([100 * (i + 1) / n for i in range(n)] * 2, [0.05] * n + [0.1] * n)
        low, high = ema.reachable(kept, 100, 0.1)
        errors = ema.combination(kept, ema.Profiles.of_widths([100] * 4, [low, high, low / 1.1, high * 1.03]))[1]
        assert (errors <= 0.1).tolist() == [True, True, False, False]
        reaches.append((low, high))
    assert reaches[0][0] > reaches[1][0] > reaches[2][0]
    assert reaches[0][1] < reaches[1][1] < reaches[2][1]


def test_nothing_is_in_reach_of_averages_that_are_long_past():
    assert ema.reachable(ema.Profiles.of_widths([10, 10], [0.05, 0.1]), 100, 0.1) is None
