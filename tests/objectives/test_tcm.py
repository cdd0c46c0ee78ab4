import math

import numpy as np
import pytest
import torch
import toy
from scipy.stats import kstest, t

from cmbench.errors import UsageError
from cmbench.objectives import tcm

STAGE_1 = (0.9, 0.8, -0.3, 0.2, 0.0)


@pytest.fixture
def build(tiny_model):
    """Build the objective for a model; its first stage is a toy of other weights."""

    def of(model, **settings):
        first = tiny_model(*STAGE_1, shape=model.shape).on_edm_path()
        return tcm.Objective(tcm.Config(**settings), model, first, 100)

    return of


def f(weights, x, sigma, labels=None, epsilon=0.002):
    return toy.f(weights, "edm", "edm", "log", epsilon, x, sigma, labels)


SETTINGS = [
    {},
    {"t_prime": 2.5},
    {"ratio": 0.9},
    {"ratio": 0.9, "k": 3.0},
    {"ratio": 0.9, "b": 0.2},
    {"boundary_share": 0.5},
    {"boundary_share": 0.0},
    {"boundary_weight": 0.7},
    {"nu": 1.0, "scale": 0.5},
    {"distance": "pseudo_huber"},
    {"distance": "l2"},
    {"weighting": "edm"},
    {"weighting": "uniform"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_loss_and_gradient_are_the_formula_s(build, tiny_model, random, x_0, settings):
    """L = w_b E_boundary[w d] + E_rest[w d]: each expectation over its own part of the batch."""
    model, labels, weights = tiny_model(*toy.WEIGHTS), torch.arange(64) % 3, toy.leaf()
    objective = build(model, huber_c=0.05, **settings)
    cfg, terms, eps = objective.config, objective.loss(model, x_0, labels, 0, random), random.noise(x_0)
    t, boundary = terms.t, round(64 * cfg.boundary_share)
    assert (t[:boundary] == cfg.t_prime).all()
    assert (t[boundary:] > cfg.t_prime).all()
    below = t - t * (1 - cfg.ratio) * (1 + cfg.k / (1 + torch.exp(cfg.b * t)))
    r = below.clone()
    r[:boundary] = cfg.t_prime
    x_t, x_r = (x_0 + toy.column(s) * eps for s in (t, r))
    by_first = r < cfg.t_prime
    by_first[:boundary] = True
    if cfg.ratio == 0.9:  # wide intervals reach across t'
        assert by_first[boundary:].any()
        assert not by_first.all()
    own, first = f(weights, x_r, r, labels).detach(), f(toy.leaf(STAGE_1).detach(), x_r, r, labels)
    target = torch.where(toy.column(by_first), first, own)
    f_t = f(weights, x_t, t, labels)
    loss = toy.distance(cfg.distance, f_t, target)
    w = toy.pair_weight(cfg.weighting, t, below)
    rest = (w[boundary:] * loss[boundary:]).mean()
    total = rest + cfg.boundary_weight * (w * loss)[:boundary].mean() if boundary else rest
    slope = ((f_t - target).norm(dim=1) / (t - r)).detach()
    slope[:boundary] = 0
    toy.assert_terms(terms, model, weights, total, loss=loss, tangent_norm=slope)
    torch.testing.assert_close((terms.weight * loss).mean(), total, rtol=1e-9, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.99])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_share_that_rounds_to_none_or_all_of_a_small_batch(build, tiny_model, random, x_0, share, n):
    """What has no samples has no part; what has some has its whole weight."""
    model = tiny_model()
    terms = build(model, boundary_share=share, weighting="uniform").loss(model, x_0[:n], None, 0, random)
    boundary = round(share * n)
    parts = [0.1 * terms.loss[:boundary].mean()] if boundary else []
    parts += [terms.loss[boundary:].mean()] if boundary < n else []
    torch.testing.assert_close(terms.total.detach(), sum(parts), rtol=1e-9, atol=0)


def test_the_first_stage_is_asked_as_a_consistency_model_at_the_target_alone(tiny_model, calls, random, x_0):
    """Below t' and at the boundary; the student is asked at t and at r."""
    first, model, labels = tiny_model(*STAGE_1), tiny_model(), torch.arange(64)
    objective = tcm.Objective(tcm.Config(), model, first.on_edm_path(), 1)
    asked, seen = calls(first), calls(model)
    t = objective.loss(model, x_0, labels, 0, random).t
    ((x, sigma, theirs),) = asked
    (x_t, t_1, mine), (x_r, r, also_mine) = seen
    assert theirs is mine is also_mine is labels
    assert torch.equal(sigma, r)
    assert torch.equal(x, x_r)
    assert torch.equal(t, t_1)
    assert torch.equal((x_t - x_0)[16:].sign(), (x_r - x_0)[16:].sign())
    assert not objective.state_dict()


def test_no_gradient_flows_into_the_first_stage(tiny_model, random, x_0):
    first, model = tiny_model(*STAGE_1), tiny_model()
    tcm.Objective(tcm.Config(), model, first.on_edm_path(), 1).loss(model, x_0, None, 0, random).total.backward()
    assert first.F_theta.weights.grad is None


def test_a_student_equal_to_its_first_stage_is_at_rest_on_the_boundary(tiny_model, random, x_0):
    model = tiny_model(*STAGE_1)
    objective = tcm.Objective(tcm.Config(), model, tiny_model(*STAGE_1).on_edm_path(), 1)
    loss = objective.loss(model, x_0, None, 0, random).loss
    assert (loss[:16] == 0).all()
    assert (loss[16:] > 0).all()


@pytest.mark.parametrize(("settings", "low"), [({}, 1.0), ({"nu": 2.0, "scale": 0.7, "t_prime": 0.4}, 0.4)])
def test_times_follow_the_truncated_student_t(build, tiny_model, random, settings, low):
    model = tiny_model(shape=(1,))
    x_0 = torch.zeros(20_000, 1, dtype=torch.float64)
    times = build(model, boundary_share=0.0, **settings).loss(model, x_0, None, 0, random).t.numpy()
    law, scale = t(settings.get("nu", 0.01)), settings.get("scale", 0.2)
    ends = law.cdf(math.log(low) / scale), law.cdf(math.log(80) / scale)
    assert kstest(times, lambda x: (law.cdf(np.log(x) / scale) - ends[0]) / (ends[1] - ends[0])).pvalue > 1e-3
    if not settings:
        assert np.median(times) == pytest.approx(1.22115, abs=0.03)


def test_the_lowest_level_that_is_trained_is_t_prime(build, tiny_model):
    objective = build(tiny_model(), t_prime=1.7)
    assert tcm.Objective.sigma_lowest(objective.config) == 1.7
    np.testing.assert_allclose(objective.profile_edges(3), np.geomspace(1.7, 80, 4), rtol=1e-12)


@pytest.mark.parametrize("t_prime", [0.003, 0.004, 80.0, 200.0])
def test_a_boundary_outside_the_range_is_refused(build, tiny_model, t_prime):
    with pytest.raises(UsageError, match=rf"objective\.t_prime: found {t_prime}, allowed: between 2 path.sigma_min"):
        build(tiny_model(), t_prime=t_prime)


def test_a_ratio_that_times_do_not_resolve_is_refused(build, tiny_model):
    """Else r is rounded to t, and the weight 1 / (t - r) is infinite."""
    model = tiny_model()
    build(model, ratio=1 - 1e-14)
    with pytest.raises(UsageError, match=r"objective\.ratio: found 0\.999999999999999, .* 1 - 1\.8e-15, where float64"):
        build(model, ratio=1 - 1e-15)
    model.time_dtype = torch.float32
    build(model, ratio=1 - 1e-6)
    with pytest.raises(UsageError, match=r"objective\.ratio: found 0\.99999999, .* up to 1 - 9\.5e-07, where float32"):
        build(model, ratio=1 - 1e-8)


def test_lpips_is_refused_for_points(build, tiny_model):
    with pytest.raises(UsageError, match=r"objective\.distance: found 'lpips' for data of shape"):
        build(tiny_model(), distance="lpips")
