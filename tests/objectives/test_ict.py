import math

import numpy as np
import pytest
import torch
import toy
from scipy.stats import chisquare, norm

from cmbench.errors import UsageError
from cmbench.objectives import continuous, ict

K = 400_000  # steps of the published CIFAR-10 run: N = 11 at first, 1281 at last
P_11 = (0.0626330, 0.1817370, 0.2455014, 0.2134944, 0.1424461, 0.0806046, 0.0410799, 0.0195801, 0.0089439, 0.0039796)


def build(model, steps=K, **settings):
    return ict.Objective(ict.Config(**settings), model, None, steps)


def f(weights, x, t, labels=None):
    return toy.f(weights, "edm", "edm", "log", 0.002, x, t, labels)


@pytest.mark.parametrize("kind", ["pseudo_huber", "norm", "l2"])
@pytest.mark.parametrize("weighting", ["inverse_interval", "edm", "uniform"])
@pytest.mark.parametrize(("step", "N"), [(0, 11), (60_000, 21)])
def test_loss_and_gradient_are_the_formula_s(tiny_model, random, x_0, kind, weighting, step, N):
    """Defects 12 to 14: an element-wise distance, no c_in or c_noise, c_in without its root, clamped outputs."""
    model, weights, labels = tiny_model(*toy.WEIGHTS), toy.leaf(), torch.arange(64) % 3
    terms = build(model, distance=kind, huber_c=0.05, weighting=weighting).loss(model, x_0, labels, step, random)
    t, eps = terms.t, random.noise(x_0)
    r = toy.neighbours(t, toy.karras(N))
    f_t = f(weights, x_0 + toy.column(t) * eps, t, labels)
    f_r = f(weights, x_0 + toy.column(r) * eps, r, labels).detach()
    assert f_t.abs().max() > 1.2  # beyond the range of pictures
    loss, weight = toy.distance(kind, f_t, f_r), toy.pair_weight(weighting, t, r)
    slope = (f_t - f_r).norm(dim=1) / (t - r)
    toy.assert_terms(
        terms, model, weights, (weight * loss).mean(), loss=loss, weight=weight, tangent_norm=slope.detach()
    )
    assert terms.scalars == {"N": N}


def test_defaults_are_the_paper_s(tiny_model, random, x_0):
    """Pseudo-Huber over the whole vector with c = .00054 sqrt(D), lambda = 1 / (t - r)."""
    model, weights = tiny_model(*toy.WEIGHTS), toy.leaf()
    terms, eps = build(model).loss(model, x_0, None, 0, random), random.noise(x_0)
    r = toy.neighbours(terms.t, toy.karras(11))
    f_t, f_r = (f(weights, x_0 + toy.column(s) * eps, s) for s in (terms.t, r))
    loss = toy.distance("pseudo_huber", f_t, f_r.detach(), 0.00054 * math.sqrt(3))
    toy.assert_terms(terms, model, weights, (loss / (terms.t - r)).mean())


@pytest.mark.parametrize(
    ("steps", "step", "N"),
    [
        (400_000, 0, 11),
        (400_000, 49_999, 11),
        (400_000, 50_000, 21),
        (400_000, 100_000, 41),
        (400_000, 150_000, 81),
        (400_000, 250_000, 321),
        (400_000, 349_999, 641),
        (400_000, 350_000, 1281),
        (400_000, 399_999, 1281),
        (800_000, 99_999, 11),
        (800_000, 100_000, 21),
        (1_000, 124, 11),
        (1_000, 125, 21),
    ],
)
def test_grid_doubles_at_the_published_steps(tiny_model, random, x_0, steps, step, N):
    model = tiny_model()
    terms = build(model, steps).loss(model, x_0, None, step, random)
    assert terms.scalars == {"N": N}
    toy.neighbours(terms.t, toy.karras(N))


@pytest.mark.parametrize(("P_mean", "P_std"), [(-1.1, 2.0), (0.5, 1.3)])
def test_intervals_follow_the_discretised_log_normal(tiny_model, random, P_mean, P_std):
    """Defect 12: a positive P_mean moves the published proposal upwards by two units of log sigma."""
    model, x_0 = tiny_model(shape=(1,)), torch.zeros(20_000, 1, dtype=torch.float64)
    given = {} if (P_mean, P_std) == (-1.1, 2.0) else {"P_mean": P_mean, "P_std": P_std}
    t = build(model, **given).loss(model, x_0, None, 0, random).t
    grid = toy.karras(11)
    p = np.diff(norm.cdf(np.log(grid), P_mean, P_std))
    p /= p.sum()
    if not given:
        np.testing.assert_allclose(p, P_11, rtol=0, atol=1e-7)
    counts = [(torch.isclose(t, torch.tensor(level).double(), rtol=1e-12)).sum().item() for level in grid[1:]]
    assert sum(counts) == 20_000
    assert chisquare(counts, p * 20_000).pvalue > 1e-3


def test_curvature_and_intervals_of_the_recipe_shape_the_grid(tiny_model, random, x_0):
    model = tiny_model()
    objective = build(model, 100, rho=3.0, s_0=4, s_1=8)
    for step, N in ((0, 5), (49, 5), (50, 9), (99, 9)):
        toy.neighbours(objective.loss(model, x_0, None, step, random).t, toy.karras(N, rho=3.0))


def test_profile_is_split_evenly_in_log_sigma(tiny_model):
    edges = build(tiny_model()).profile_edges(4)
    np.testing.assert_allclose(edges, np.geomspace(0.002, 80, 5), rtol=1e-12)


def test_a_grid_that_shrinks_is_refused():
    with pytest.raises(ValueError, match="s_1: found 5, allowed: at least s_0 = 10"):
        ict.Config(s_1=5)


def test_lpips_is_refused_for_points(tiny_model):
    with pytest.raises(UsageError, match=r"objective\.distance: found 'lpips' for data of shape"):
        build(tiny_model(), distance="lpips")


@pytest.mark.parametrize("t", [0.3, 2.0])
def test_gradient_over_the_interval_tends_to_the_continuous_one(tiny_model, random, x_0, t):
    """Lu & Song 2024, eq. 3: of d = 1/D ||.||^2 and lambda = 1 / (t - r), twice that of f^T df/dt / D, to 1st order."""
    model = tiny_model(*toy.WEIGHTS)
    exact = continuous.Objective(
        continuous.Config(P_mean=math.log(t), P_std=1e-30, reduction="mean"), model, None, 1
    ).loss(model, x_0, None, 0, random)
    (limit,) = torch.autograd.grad(exact.total, model.F_theta.weights)
    gaps = []
    for interval in (0.04, 0.02, 0.01):
        objective = build(model, 1, s_0=1, s_1=1, distance="l2")  # two grid points, r and t
        objective.sigma_min, objective.sigma_max = exact.t[0].item() * (1 - interval), exact.t[0].item()
        total = objective.loss(model, x_0, None, 0, random).total
        (gradient,) = torch.autograd.grad(total, model.F_theta.weights)
        gaps.append(((gradient / 2 - limit).norm() / limit.norm()).item())
    assert gaps[0] < 0.1
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
