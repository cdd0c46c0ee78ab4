import math

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
