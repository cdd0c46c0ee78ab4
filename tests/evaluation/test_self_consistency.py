import math
from itertools import pairwise

import pytest
import torch

from cmbench.evaluation.self_consistency import SelfConsistencyError

MEAN, DEVIATION = 0.3, 0.4
SIGMAS = [80.0, 10.0, 1.0, 0.1]


def denoise(x, sigma):
    """D of N(.3, .4^2)."""
    assert x.dtype == sigma.dtype
    return MEAN + (x - MEAN) * (DEVIATION**2 / (DEVIATION**2 + sigma.square()))[:, None]


def exact_f(x, sigma):
    return MEAN + (x - MEAN) * (DEVIATION / (DEVIATION**2 + sigma.square()).sqrt())[:, None]


def measure(dtype=torch.float64, seed=0):
    x_0 = MEAN + DEVIATION * torch.randn(40, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return SelfConsistencyError(denoise, x_0.to(dtype), SIGMAS, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_exact_consistency_function_is_constant(dtype):
    errors = measure(dtype).each(exact_f)
    assert errors.shape == (3, 40)
    assert errors.max() < 1e-4


def test_a_constant_error_is_not_seen_and_a_change_is_by_its_length():
    """f + (3, 4) log10(sigma) / 10 moves by .5 |log10(sigma / sigma')| from level to level."""
    step = torch.tensor([0.3, 0.4], dtype=torch.float64)
    assert measure().each(lambda x, sigma: exact_f(x, sigma) + step).max() < 1e-4
    errors = measure().each(lambda x, sigma: exact_f(x, sigma) + sigma.log10()[:, None] * step)
    expected = [0.5 * math.log10(a / b) for a, b in pairwise(SIGMAS)]
    assert errors.mean(dim=1).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_sum_bounds_the_distance_to_the_end():
    truth = measure()

    def f(x, sigma):
        return exact_f(x, sigma) + 0.1 * torch.sin(x + sigma[:, None].log())

    ends = [f(x, x.new_full((len(x),), s)) for x, s in zip(truth.x, SIGMAS, strict=True)]
    assert (truth.each(f).sum(dim=0) >= (ends[0] - ends[-1]).norm(dim=1) - 1e-12).all()


def test_trajectories_follow_from_the_generator():
    assert torch.equal(measure(seed=1).x, measure(seed=1).x)
    assert not torch.equal(measure(seed=1).x, measure(seed=2).x)
