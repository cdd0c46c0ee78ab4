import math

import numpy as np
import pytest
import torch
import toy
from scipy.stats import chisquare
from toy import karras

from cmbench.equations.gaussian_path import EDM
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.networks import mlp, unet
from cmbench.objectives import ct
from cmbench.randomness import StepRandom

K = 800_000  # steps of the published CIFAR-10 run: N = 2, 17, 107, 151 at steps 0, 10,000, 400,000, 800,000
ONLINE, TARGET = (0.7, 1.3, 0.4), (0.5, 1.1, -0.2)


def tiny_f(weights, x, t):
    """The consistency function around a tanh(b x / sqrt(t^2 + .25) + c ln(t) / 4)."""
    a, b, c = weights
    t = t[:, None]
    root = np.sqrt(t**2 + 0.25)
    F = a * np.tanh(b * x / root + c * np.log(t) / 4)
    return 0.25 / ((t - 0.002) ** 2 + 0.25) * x + 0.5 * (t - 0.002) / root * F


def distance(kind, x, y):
    square = (x - y) ** 2
    return square.mean(axis=1) if kind == "l2" else np.sqrt(square.sum(axis=1) + 0.05**2) - 0.05


def weight(kind, t, r):
    return {"uniform": np.ones_like(t), "edm": 1 / t**2 + 4, "inverse_interval": 1 / (t - r)}[kind]


@pytest.fixture
def objective(tiny_model):
    """Build the objective for a run of K steps, its target's weights set apart from the model's."""

    def build(shape=(3,), **settings):
        objective = ct.Objective(ct.Config(huber_c=0.05, **settings), tiny_model(*ONLINE, shape=shape), None, K)
        if objective.target is not None:
            with torch.no_grad():
                objective.target.F_theta.weights[:3] = torch.tensor(TARGET, dtype=torch.float64)
        return objective

    return build


@pytest.mark.parametrize("kind", ["l2", "pseudo_huber"])
@pytest.mark.parametrize("weighting", ["uniform", "edm", "inverse_interval"])
@pytest.mark.parametrize(("step", "N"), [(0, 2), (10_000, 17), (400_000, 107)])
def test_loss_is_the_formula(objective, tiny_model, calls, random, x_0, kind, weighting, step, N):
    """Worked out from the inputs of both branches by a formula written here."""
    model, objective = tiny_model(*ONLINE), objective(distance=kind, weighting=weighting)
    online, target = calls(model), calls(objective.target)
    terms = objective.loss(model, x_0, None, step, random)
    (x_t, t, _), (x_r, r, _) = (tuple(a if a is None else a.numpy() for a in seen[0]) for seen in (online, target))
    index = np.searchsorted(karras(N) * (1 + 1e-9), t)
    np.testing.assert_allclose(t, karras(N)[index], rtol=1e-12)
    np.testing.assert_allclose(r, karras(N)[index - 1], rtol=1e-12)
    f_t, f_r = tiny_f(ONLINE, x_t, t), tiny_f(TARGET, x_r, r)
    loss, weights = distance(kind, f_t, f_r), weight(weighting, t, r)
    np.testing.assert_allclose(terms.loss, loss, rtol=1e-10)
    np.testing.assert_allclose(terms.weight, weights, rtol=1e-10)
    np.testing.assert_array_equal(terms.t, t)
    assert terms.total.item() == pytest.approx((weights * loss).mean(), rel=1e-10)
    tangent = np.sqrt((((f_t - f_r) / (t - r)[:, None]) ** 2).sum(axis=1))
    np.testing.assert_allclose(terms.tangent_norm, tangent, rtol=1e-10)


def test_both_points_carry_the_same_data_and_the_same_noise(objective, tiny_model, calls, random, x_0):
    model, objective = tiny_model(*ONLINE), objective()
    online, target = calls(model), calls(objective.target)
    objective.loss(model, x_0, None, 10_000, random)
    (x_t, t, _), (x_r, r, _) = online[0], target[0]
    eps = (x_t - x_0) / t[:, None]
    torch.testing.assert_close(x_0 + r[:, None] * eps, x_r, rtol=0, atol=1e-12)
    assert eps.mean().item() == pytest.approx(0, abs=4 / math.sqrt(192))
    assert eps.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * 192))


def test_gradient_is_that_of_the_loss_with_the_target_held_fixed(check_gradient, objective, tiny_model, random, x_0):
    model, objective = tiny_model(*ONLINE, 0.3), objective(distance="pseudo_huber", weighting="edm")
    labels = torch.arange(64) % 4

    def loss():
        return objective.loss(model, x_0, labels, 10_000, random).total

    check_gradient(model, loss)


def test_no_gradient_flows_into_the_target(objective, tiny_model, random, x_0):
    model, objective = tiny_model(*ONLINE), objective()
    assert not any(p.requires_grad for p in objective.target.parameters())
    objective.target.requires_grad_(True)
    objective.loss(model, x_0, None, 10_000, random).total.backward()
    assert objective.target.F_theta.weights.grad is None
    assert model.F_theta.weights.grad[:3].abs().min() > 0


def test_only_the_total_carries_a_gradient(objective, tiny_model, random, x_0):
    terms = objective().loss(tiny_model(*ONLINE), x_0, None, 0, random)
    assert terms.total.requires_grad
    assert not any(part.requires_grad for part in (terms.t, terms.loss, terms.weight, terms.tangent_norm))


def test_labels_reach_both_branches(objective, tiny_model, calls, random, x_0):
    model, objective, labels = tiny_model(*ONLINE), objective(), torch.arange(64)
    online, target = calls(model), calls(objective.target)
    objective.loss(model, x_0, labels, 0, random)
    assert online[0][2] is labels
    assert target[0][2] is labels


def networks():
    mlp_settings = mlp.Config(width=32, dropout=0.5)
    unet_settings = unet.Config(width=8, depth=1, dropout=0.5)
    return {"mlp": (mlp.Network, mlp_settings, (3,)), "unet": (unet.Network, unet_settings, (1, 4, 4))}


@pytest.mark.parametrize("kind", ["mlp", "unet"])
def test_both_branches_draw_the_same_dropout_mask(kind, dropout_masks):
    network, settings, shape = networks()[kind]
    model = Model(network(settings, shape, 0), shape, EDM(), 0.5, 0.002, 80.0)
    objective = ct.Objective(ct.Config(), model, None, K)
    online, target = dropout_masks(model), dropout_masks(objective.target)
    for step in (0, 1):
        objective.loss(model, torch.zeros(8, *shape), None, step, StepRandom(torch.device("cpu"), 0, step))
    assert len(online) == len(target) > 2
    assert all(torch.equal(a, b) for a, b in zip(online, target, strict=True))
    assert all(0.2 < mask.float().mean() < 0.8 for mask in online)
    half = len(online) // 2
    assert not any(torch.equal(a, b) for a, b in zip(online[:half], online[half:], strict=True))


def test_loss_depends_on_seed_and_step_alone(objective, tiny_model, x_0):
    model, objective = tiny_model(*ONLINE), objective()

    def total(seed, step):
        return objective.loss(model, x_0, None, 10_000, StepRandom(torch.device("cpu"), seed, step)).total.item()

    one = total(1, 2)
    torch.manual_seed(99)
    assert total(1, 2) == one
    assert len({one, total(1, 3), total(2, 2)}) == 3


@pytest.mark.parametrize(("step", "N"), [(0, 2), (10_000, 17), (100_000, 54), (K, 151)])
def test_curricula_of_the_step_are_used_and_reported(objective, tiny_model, random, x_0, step, N):
    objective = objective()
    terms = objective.loss(tiny_model(*ONLINE), x_0, None, step, random)
    assert terms.scalars == {"N": N, "mu": pytest.approx(math.exp(2 * math.log(0.9) / N))}
    distance_to_grid = np.abs(np.log(terms.t.numpy()[:, None] / karras(N)[1:])).min(axis=1)
    assert distance_to_grid.max() < 1e-12


def test_times_are_uniform_on_the_grid_without_its_lowest_level(objective, tiny_model, random):
    terms = objective(shape=(1,)).loss(
        tiny_model(*ONLINE, shape=(1,)), torch.zeros(16_000, 1).double(), None, 10_000, random
    )
    levels, counts = terms.t.unique(return_counts=True)
    np.testing.assert_allclose(levels, karras(17)[1:], rtol=1e-12)
    assert chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("step", "N"), [(0, 2), (10_000, 17)])
def test_target_follows_by_the_paper_s_decay(tiny_model, step, N):
    """Defect 6 of public code: N(k) - 1 in the place of N(k)."""
    model = tiny_model(*TARGET)
    objective = ct.Objective(ct.Config(), model, None, K)
    model.load_state_dict(tiny_model(*ONLINE).state_dict())
    objective.after_step(model, step)
    mu = 0.9 ** (2 / N)
    expected = [mu * old + (1 - mu) * new for old, new in zip(TARGET, ONLINE, strict=True)]
    assert objective.target.F_theta.weights.tolist()[:3] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("kind", ["l2", "norm", "pseudo_huber"])
def test_decay_zero_makes_the_student_its_own_target(objective, tiny_model, calls, random, x_0, kind):
    model, objective, weights = tiny_model(*toy.WEIGHTS), objective(mu_0=0.0, distance=kind), toy.leaf()
    seen = calls(model)
    terms = objective.loss(model, x_0, None, 10_000, random)
    assert objective.target is None
    assert terms.scalars["mu"] == 0
    f_t, f_r = (toy.f(weights, "edm", "edm", "log", 0.002, x, t) for x, t, _ in seen)
    loss = toy.distance(kind, f_t, f_r.detach())
    toy.assert_terms(terms, model, weights, loss.mean(), loss=loss)
    before = model.F_theta.weights.clone()
    objective.after_step(model, 0)
    assert torch.equal(model.F_theta.weights, before)


def test_target_starts_as_the_model(tiny_model):
    model = tiny_model(*ONLINE)
    objective = ct.Objective(ct.Config(), model, None, K)
    assert torch.equal(objective.target.F_theta.weights, model.F_theta.weights)
    assert objective.target.F_theta.weights is not model.F_theta.weights


def test_curvature_of_the_recipe_shapes_the_grid(objective, tiny_model, random, x_0):
    objective = objective(rho=3.0, s_0=4, s_1=8)
    t = objective.loss(tiny_model(*ONLINE), x_0, None, 0, random).t
    np.testing.assert_allclose(t.unique(), karras(4, rho=3.0)[1:], rtol=1e-12)
    np.testing.assert_allclose(objective.profile_edges(5), karras(6, rho=3.0), rtol=1e-12)


def test_lpips_is_refused_for_points(tiny_model):
    with pytest.raises(UsageError, match="lpips"):
        ct.Objective(ct.Config(distance="lpips"), tiny_model(*ONLINE), None, K)


def test_a_grid_that_shrinks_is_refused():
    with pytest.raises(ValueError, match="s_1: found 5, allowed: at least s_0 = 10"):
        ct.Config(s_0=10, s_1=5)
