import math

import numpy as np
import pytest
import torch
import toy
from scipy.stats import kstest, norm

from cmbench.equations import timesteps
from cmbench.equations.gaussian_path import EDM
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.objectives import continuous, ect

K = 80  # steps of eight stages of ten


def build(model, steps=K, **settings):
    return ect.Objective(ect.Config(**settings), model, None, steps)


def toy_model(time_dtype):
    return Model(toy.Tiny(), (3,), EDM(), 0.5, 0.002, 80.0, time_dtype=time_dtype)


def r_of_t(t, stage, q=2.0, k=8.0, b=1.0, adjustment="sigmoid"):
    n = 1 + k / (1 + torch.exp(b * t)) if adjustment == "sigmoid" else torch.ones_like(t)
    return torch.relu(t - t * n / q ** (stage + 1))


@pytest.fixture
def check(tiny_model, random, x_0):
    """Compare a loss and its gradient with the formula at epsilon, 0 or .002, and return the terms and r."""

    def against(epsilon=0.0, step=25, stage=2, kind="norm", weighting="inverse_interval", **r_settings):
        model = tiny_model(*toy.WEIGHTS, boundary_at="sigma_min" if epsilon else "zero")
        labels, weights = torch.arange(64) % 3, toy.leaf()
        objective = build(model, distance=kind, huber_c=0.05, weighting=weighting, **r_settings)
        terms, eps = objective.loss(model, x_0, labels, step, random), random.noise(x_0)
        t = terms.t
        assert (t >= 2 * epsilon).all()
        r = r_of_t(t, stage, **{k: v for k, v in r_settings.items() if k != "stages"}).clamp_min(epsilon)
        x_t, x_r = (x_0 + toy.column(s) * eps for s in (t, r))
        f_t, f_r = (toy.f(weights, "edm", "edm", "log", epsilon, x, s, labels) for x, s in ((x_t, t), (x_r, r)))
        f_r = torch.where(toy.column(r > epsilon), f_r, x_r).detach()
        loss, weight = toy.distance(kind, f_t, f_r), toy.pair_weight(weighting, t, r)
        slope = ((f_t - f_r).norm(dim=1) / (t - r)).detach()
        total = (weight * loss).mean()
        toy.assert_terms(terms, model, weights, total, loss=loss, weight=weight, tangent_norm=slope)
        assert terms.scalars == {"stage": stage}
        return terms, r

    return against


@pytest.mark.parametrize("kind", ["norm", "pseudo_huber", "l2"])
@pytest.mark.parametrize("weighting", ["inverse_interval", "edm", "uniform"])
@pytest.mark.parametrize("epsilon", [0.0, 0.002])
def test_loss_and_gradient_are_the_formula_s(check, kind, weighting, epsilon):
    check(epsilon, kind=kind, weighting=weighting)


@pytest.mark.parametrize(
    "settings", [{"q": 4.0}, {"k": 3.0}, {"b": 2.5}, {"adjustment": "constant"}, {"q": 256.0, "stages": 1}]
)
def test_keys_of_the_interval(check, settings):
    stage = 0 if settings.get("stages") == 1 else 2
    _, r = check(stage=stage, **settings)
    assert not torch.allclose(r, r_of_t(r, stage))


@pytest.mark.parametrize("epsilon", [0.0, 0.002])
def test_in_the_first_stage_short_times_are_diffusion(check, random, x_0, epsilon):
    """At r = 0 the target is x_0, and the network is not asked about a time without logarithm."""
    terms, r = check(epsilon, step=0, stage=0)
    assert 0 < (r == epsilon).sum() < 64
    if not epsilon:
        assert torch.equal(r == 0, terms.t < math.log(7))
    assert torch.isfinite(terms.total)


def test_diffusion_is_the_distance_to_the_data(tiny_model, random, x_0):
    """With every time below log 7 the first stage is denoising: the gradient is that of ||D - x_0|| / t."""
    model, weights = tiny_model(*toy.WEIGHTS, boundary_at="zero"), toy.leaf()
    terms = build(model, P_mean=-3.0, P_std=1.0).loss(model, x_0, None, 0, random)
    D = toy.f(weights, "edm", "edm", "log", 0.0, x_0 + toy.column(terms.t) * random.noise(x_0), terms.t)
    toy.assert_terms(terms, model, weights, ((D - x_0).norm(dim=1) / terms.t).mean())


@pytest.mark.parametrize(
    ("q", "step", "t", "r"),
    [
        (2.0, 0, 1.0, 0.0),
        (2.0, 0, 2.0, 0.04637662),
        (2.0, 0, 4.0, 1.712221),
        (2.0, 9, 10.0, 4.998184),
        (2.0, 10, 1.0, 0.2121172),
        (2.0, 19, 2.0, 1.023188),
        (2.0, 30, 0.5, 0.3743648),
        (4.0, 0, 1.0, 0.2121172),
        (256.0, 0, 1.0, 0.9876893),
    ],
)
def test_r_is_the_published_one(tiny_model, q, step, t, r):
    objective = build(tiny_model(), q=q, stages=8 if q < 256 else 1)
    assert objective.r(torch.tensor([t]).double(), step).item() == pytest.approx(r, rel=1e-6)


def test_r_is_between_nothing_and_t_at_every_stage(tiny_model):
    objective, t = build(tiny_model()), torch.logspace(-6, 2, 200, dtype=torch.float64)
    for step in range(K):
        r = objective.r(t, step)
        assert (r >= 0).all()
        assert (r < t).all()
    assert [(objective.r(t, step) == 0).any().item() for step in (0, 10, 20, 70)] == [True, True, False, False]
    zero = [objective.r(torch.tensor([s]).double(), step).item() for step, s in ((0, 1.94591), (10, 0.510825))]
    assert zero == [0, 0]
    assert all(objective.r(torch.tensor([s]).double(), step) > 0 for step, s in ((0, 1.94592), (10, 0.510826)))


@pytest.mark.parametrize(("steps", "stages"), [(80, 8), (100, 3), (5, 8), (400_000, 8), (10, 1)])
def test_stages_are_of_one_length_and_the_last_one_stays(tiny_model, steps, stages):
    objective = build(tiny_model(), steps, stages=stages)
    found = [objective.stage(k) for k in range(0, steps, max(1, steps // 1000))]
    assert found == sorted(found)
    assert (found[0], objective.stage(steps - 1)) == (0, min(stages - 1, (steps - 1) * stages // steps))
    lengths = np.bincount(found, minlength=stages)
    assert lengths.max() - lengths[: max(found) + 1].min() <= 1 or steps < stages


@pytest.mark.parametrize("settings", [{}, {"P_mean": 0.3, "P_std": 1.2}])
def test_times_are_log_normal(tiny_model, random, settings):
    model, x_0 = tiny_model(shape=(1,), boundary_at="zero"), torch.zeros(20_000, 1, dtype=torch.float64)
    t = build(model, **settings).loss(model, x_0, None, 0, random).t
    law = (settings.get("P_mean", -1.1), settings.get("P_std", 2.0))
    assert kstest(t.log().numpy(), norm(*law).cdf).pvalue > 1e-3


def test_profile_is_split_evenly_in_log_sigma(tiny_model):
    np.testing.assert_allclose(build(tiny_model()).profile_edges(4), np.geomspace(0.002, 80, 5), rtol=1e-12)


@pytest.mark.parametrize(
    ("time_dtype", "settings", "found"),
    [
        (torch.float32, {"q": 256.0}, "256, allowed: up to 5.657 for 8 stages, where float32"),
        (torch.float32, {"q": 2.0, "stages": 21}, "2, allowed: up to 1.935 for 21 stages, where float32"),
        (torch.float64, {"q": 2.0, "stages": 50}, "2, allowed: up to 1.972 for 50 stages, where float64"),
        (torch.float64, {"q": 1e300, "stages": 3}, r"1e\+300, allowed: up to"),
    ],
)
def test_an_interval_that_times_do_not_resolve_is_refused(time_dtype, settings, found):
    """Else r is rounded to t, the weight 1 / (t - r) is infinite, and the run diverges at its last stages."""
    with pytest.raises(UsageError, match=rf"objective\.q: found {found}"):
        build(toy_model(time_dtype), **settings)


@pytest.mark.parametrize("time_dtype", [torch.float32, torch.float64])
def test_the_tightest_interval_that_is_allowed_is_known_to_a_tenth(time_dtype):
    stages = -int(math.log2(timesteps.shortest_interval(time_dtype)))
    objective = build(toy_model(time_dtype), q=2.0, stages=stages, adjustment="constant")
    t = torch.logspace(-6, 2, 10_001, dtype=time_dtype)
    interval = (t - objective.r(t, K - 1)) / t * 2**stages
    assert objective.stage(K - 1) == stages - 1
    assert (interval - 1).abs().max() < 0.1


def test_stages_that_a_short_run_does_not_reach_are_not_asked_for(tiny_model):
    assert build(tiny_model(), steps=1, q=256.0).stage(0) == 0


def test_lpips_is_refused_for_points(tiny_model):
    with pytest.raises(UsageError, match=r"objective\.distance: found 'lpips' for data of shape"):
        build(tiny_model(), distance="lpips")


def test_gradient_tends_to_the_continuous_one_stage_by_stage(tiny_model, random, x_0):
    """Lu & Song 2024, eq. 3, at times of the whole proposal; t - r = t / 2^(stage + 1) halves from stage to stage."""
    model, law = tiny_model(*toy.WEIGHTS, boundary_at="zero"), {"P_mean": 0.0, "P_std": 0.5}
    exact = continuous.Objective(continuous.Config(reduction="mean", **law), model, None, 1)
    (limit,) = torch.autograd.grad(exact.loss(model, x_0, None, 0, random).total, model.F_theta.weights)
    objective, gaps = build(model, adjustment="constant", distance="l2", **law), []
    for step in (50, 60, 70):
        total = objective.loss(model, x_0, None, step, random).total
        (gradient,) = torch.autograd.grad(total, model.F_theta.weights)
        gaps.append(((gradient / 2 - limit).norm() / limit.norm()).item())
    assert gaps[0] < 0.1
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
