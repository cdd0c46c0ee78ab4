import math

import numpy as np
import pytest
import torch

from cmbench.equations.oracle import GaussianMixture
from cmbench.evaluation.consistency_error import TrueConsistencyError

MEAN, DEVIATION = 0.3, 0.4
SIGMAS = [80.0, 10.0, 1.0, 0.1, 0.01]


def denoise(x, sigma):
    return MEAN + (x - MEAN) * (DEVIATION**2 / (DEVIATION**2 + sigma.square())).view(-1, *[1] * (x.ndim - 1))


def exact_f(epsilon):
    """Flow map of data N(.3, .4^2) from sigma down to epsilon."""

    def f(x, sigma):
        scale = math.sqrt(DEVIATION**2 + epsilon**2) / torch.sqrt(DEVIATION**2 + sigma.square())
        return MEAN + (x - MEAN) * scale.view(-1, *[1] * (x.ndim - 1))

    return f


def measure(epsilon, shape=(2,), n=64, dtype=torch.float64, seed=0):
    x_0 = MEAN + DEVIATION * torch.randn(n, *shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return TrueConsistencyError(denoise, x_0.to(dtype), SIGMAS, epsilon, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("epsilon", [0.0, 0.002])
@pytest.mark.parametrize("shape", [(2,), (1, 3, 3)])
def test_the_true_consistency_function_has_no_error(epsilon, shape):
    errors = measure(epsilon, shape).of(exact_f(epsilon))
    assert len(errors) == len(SIGMAS)
    assert max(errors) < 1e-5


@pytest.mark.parametrize("epsilon", [0.0, 0.002])
def test_a_shift_is_measured_by_its_length(epsilon):
    """(.3, .4) away from the truth is .5 away at every level."""
    shift = torch.tensor([0.3, 0.4], dtype=torch.float64)
    errors = measure(epsilon).of(lambda x, sigma: exact_f(epsilon)(x, sigma) + shift)
    assert errors == pytest.approx([0.5] * len(SIGMAS), abs=1e-5)


def test_each_level_has_its_own_error():
    """A shift of log10(sigma) in one coordinate, and the levels in the order that they were given."""
    f = exact_f(0.002)

    def shifted(x, sigma):
        return f(x, sigma) + torch.stack([sigma.log10(), torch.zeros_like(sigma)], dim=1)

    expected = [abs(math.log10(sigma)) for sigma in SIGMAS]
    assert measure(0.002).of(shifted) == pytest.approx(expected, abs=1e-5)


def test_the_identity_errs_by_what_the_flow_moves():
    """||x - f(x)|| of x ~ N(.3, .4^2 + sigma^2) in the plane: (spread - .4) times the mean of a Rayleigh law."""
    errors = measure(0.0, n=20_000).of(lambda x, sigma: x)
    for error, sigma in zip(errors, SIGMAS, strict=True):
        spread = math.sqrt(DEVIATION**2 + sigma**2) - DEVIATION
        sampling = spread * math.sqrt((2 - math.pi / 2) / 20_000)
        assert error == pytest.approx(spread * math.sqrt(math.pi / 2), abs=5 * sampling)


def test_epsilon_of_zero_is_the_limit_of_small_ones():
    """A mixture, where there is no closed form."""
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7]),
        torch.tensor([[-0.6, 0.0], [0.4, 0.1]]),
        torch.tensor([0.15, 0.25]).square()[:, None, None] * torch.eye(2),
    )
    x_0, _ = mixture.sample(32, torch.Generator().manual_seed(1))
    ends = [
        TrueConsistencyError(mixture.denoise, x_0, [80.0, 1.0], epsilon, torch.Generator().manual_seed(0)).end
        for epsilon in (0.0, 1e-5, 0.02)
    ]
    assert (ends[0] - ends[1]).abs().max() < 1e-5
    assert (ends[0] - ends[2]).abs().max() > 1e-4


def test_trajectories_are_passed_through_points_of_the_noisy_data():
    """Mean and spread of the points at each level, to four standard errors of the data and noise that were drawn."""
    truth = measure(0.0, n=20_000)
    for x, sigma in zip(truth.x, SIGMAS, strict=True):
        spread = math.sqrt(DEVIATION**2 + sigma**2)
        error = spread / math.sqrt(2 * 20_000)
        np.testing.assert_allclose(x.mean(), MEAN, atol=4 * error)
        np.testing.assert_allclose(x.std(), spread, atol=4 * error / math.sqrt(2))


def test_trajectories_follow_from_the_generator_and_keep_the_precision():
    one, two, other = (measure(0.002, dtype=torch.float32, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.end, two.end)
    assert not torch.equal(one.x, other.x)
    assert one.x.dtype == one.end.dtype == torch.float32
    assert max(one.of(exact_f(0.002))) < 1e-5


def test_measuring_records_no_graph():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    seen = []
    measure(0.0).of(lambda x, sigma: seen.append((weight * x).requires_grad) or x)
    assert seen == [False] * len(SIGMAS)
