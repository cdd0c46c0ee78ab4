"""The search for a second noise level, against brute force."""

import math

import numpy as np
import pytest
import torch
from test_resume import create, finish

from cmbench.engine import second_level
from cmbench.engine.asking import Place
from cmbench.engine.evaluate import Evaluation

QUIET = ["evaluate.every=0", "snapshot.every=0", "profile.every=0"]


def valley(sigma: float) -> float:
    return (math.log(sigma) - math.log(0.7)) ** 2


def two_valleys(sigma: float) -> float:
    """The narrower one is deeper."""
    u = math.log(sigma)
    return 1 - 0.8 * math.exp(-((u - 2) ** 2) / 4) - 0.95 * math.exp(-((u + 3) ** 2) / 0.6)


def at_the_edge(sigma: float) -> float:
    return -math.log(sigma)


def not_everywhere(sigma: float) -> float:
    return valley(sigma) if sigma > 0.01 else math.nan


@pytest.mark.parametrize("figure", [valley, two_valleys, at_the_edge, not_everywhere])
def test_it_finds_what_a_fine_grid_finds(figure):
    asked = []
    found = second_level.searched(lambda s: asked.append(s) or figure(s), 0.002, 80.0, 12)
    grid = np.geomspace(0.002, 80.0, 20_001)[1:-1]
    values = [figure(s) for s in grid]
    best = grid[int(np.nanargmin(values))]
    assert abs(math.log(found / best)) < 0.04
    assert figure(found) == min(figure(s) for s in asked if not math.isnan(figure(s)))
    assert len(asked) == len(set(asked)) < 40
    assert all(0.002 < s < 80 and s == second_level.rounded(s) for s in asked)


def test_with_equal_random_numbers_it_finds_the_best_of_a_trained_network(home, put_back):
    """The figure is smooth: neighbours of a fine grid lie on a line, as sets of other seeds do not."""
    run = finish(create(home, "train.steps=60", *QUIET))
    evaluation = Evaluation(Place(run, 60, "", "cpu"))
    judge = evaluation.judge(64)

    def figure(sigma: float, seed: int = 0) -> float:
        return evaluation.at_levels(judge, "energy_distance", [80.0, sigma], 64, seed, 2)["value"]

    found = second_level.searched(figure, 0.002, 80.0, 10)
    values = [figure(s) for s in np.geomspace(0.002, 80.0, 62)[1:-1].tolist()]
    bends, over_seeds = np.abs(np.diff(values, 2)), np.std([figure(0.8, seed) for seed in range(8)])
    assert np.median(bends) < over_seeds / 5
    assert figure(found) <= min(values) + 0.05 * (max(values) - min(values))
    assert figure(found) == figure(found)


def test_the_samples_are_those_of_the_sampler(home, put_back):
    """Figures of the recipe's own level equal those of two steps."""
    run = finish(create(home, "path.sigma_mid=0.6", *QUIET))
    evaluation = Evaluation(Place(run, 12, "", "cpu"))
    ((_, _, whole),) = evaluation.of_samples([("sliced_wasserstein", 2)], 32, 5, 3)
    at_level = evaluation.at_levels(evaluation.judge(32), "sliced_wasserstein", [80.0, 0.6], 32, 5, 3)
    assert at_level["values"] == whole["values"]
    assert torch.tensor(at_level["values"]).isfinite().all()
