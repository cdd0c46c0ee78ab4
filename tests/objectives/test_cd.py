import math

import numpy as np
import pytest
import torch
import toy
from toy import Gaussian, karras

from cmbench.equations.gaussian_path import EDM
from cmbench.model import Model
from cmbench.networks import mlp
from cmbench.objectives import cd
from cmbench.randomness import StepRandom

WEIGHTS = (0.7, 1.3, 0.4)
MEAN, DEVIATION = 0.2, 0.4  # of toy.Gaussian


def slope(x, t, mean=MEAN):
    """dx/dt = t (x - m) / (d^2 + t^2)."""
    return t * (x - mean) / (DEVIATION**2 + t**2)


def build(model, teacher=None, **settings):
    return cd.Objective(cd.Config(**settings), model, teacher or Gaussian(), 100)


@pytest.fixture
def branches(tiny_model, calls, random, x_0):
    """Run one loss and return its terms, (x_t, t) and (x_r, r)."""

    def run(labels=None, teacher=None, **settings):
        model = tiny_model(*WEIGHTS)
        objective = build(model, teacher, **settings)
        seen = calls(model)
        terms = objective.loss(model, x_0, labels, 0, random)
        online, target = seen
        return terms, online, target

    return run


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_teacher_takes_one_exact_step_of_the_solver(branches, solver):
    _, (x_t, t, _), (x_r, r, _) = branches(solver=solver, N=9)
    x, t, r = x_t.numpy(), t.numpy()[:, None], r.numpy()[:, None]
    k = slope(x, t)
    if solver == "heun":
        k = (k + slope(x + (r - t) * k, r)) / 2
    np.testing.assert_allclose(x_r, x + (r - t) * k, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("N", [2, 18])
def test_times_are_neighbours_on_the_grid(branches, N):
    terms, (_, t, _), (_, r, _) = branches(N=N)
    grid = karras(N)
    index = np.searchsorted(grid * (1 + 1e-9), t.numpy())
    np.testing.assert_allclose(t, grid[index], rtol=1e-12)
    np.testing.assert_allclose(r, grid[index - 1], rtol=1e-12)
    assert set(index) == set(range(1, N))
    assert torch.equal(terms.t, t)


def test_noisy_point_is_the_data_and_normal_noise(branches, x_0):
    _, (x_t, t, _), _ = branches()
    eps = (x_t - x_0) / t[:, None]
    assert eps.mean().item() == pytest.approx(0, abs=4 / math.sqrt(192))
    assert eps.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * 192))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_labels_reach_teacher_student_and_target(branches, solver):
    teacher, labels = Gaussian(), torch.arange(64) % 3
    _, (x_t, t, student), (x_r, r, target) = branches(labels=labels, teacher=teacher, solver=solver)
    assert student is labels
    assert target is labels
    assert [asked[2] is labels for asked in teacher.asked] == [True] * (1 if solver == "euler" else 2)
    x, t, r, mean = x_t.numpy(), t.numpy()[:, None], r.numpy()[:, None], MEAN + 0.1 * labels.numpy()[:, None]
    k = slope(x, t, mean)
    if solver == "heun":
        k = (k + slope(x + (r - t) * k, r, mean)) / 2
    np.testing.assert_allclose(x_r, x + (r - t) * k, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("weighting", ["uniform", "edm", "inverse_interval"])
def test_loss_is_the_weighted_distance_of_the_two_outputs(tiny_model, calls, random, x_0, weighting):
    model = tiny_model(*WEIGHTS)
    objective = build(model, distance="pseudo_huber", huber_c=0.05, weighting=weighting, mu=0.5)
    with torch.no_grad():
        objective.target.F_theta.weights[0] = -0.2
    online, target = calls(model), calls(objective.target)
    terms = objective.loss(model, x_0, None, 0, random)
    (x_t, t, _), (x_r, r, _) = online[0], target[0]
    with torch.no_grad():
        difference = model(x_t, t) - tiny_model(-0.2, 1.3, 0.4)(x_r, r)
    loss = torch.sqrt(difference.square().sum(dim=1) + 0.05**2) - 0.05
    weight = {"uniform": torch.ones_like(t), "edm": 1 / t**2 + 4, "inverse_interval": 1 / (t - r)}[weighting]
    torch.testing.assert_close(terms.loss, loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(terms.weight, weight, rtol=1e-10, atol=0)
    torch.testing.assert_close(terms.total, (weight * loss).mean(), rtol=1e-10, atol=0)
    torch.testing.assert_close(terms.tangent_norm, difference.norm(dim=1) / (t - r), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", ["l2", "norm", "pseudo_huber"])
@pytest.mark.parametrize("weighting", ["uniform", "edm", "inverse_interval"])
def test_loss_and_gradient_are_the_formula_s_with_the_student_as_its_own_target(
    tiny_model, calls, random, x_0, kind, weighting
):
    model, labels, weights = tiny_model(*toy.WEIGHTS), torch.arange(64) % 3, toy.leaf()
    objective, seen = build(model, distance=kind, huber_c=0.05, weighting=weighting), calls(model)
    terms = objective.loss(model, x_0, labels, 0, random)
    (x_t, t, _), (x_r, r, _) = seen
    f_t, f_r = (toy.f(weights, "edm", "edm", "log", 0.002, x, s, labels) for x, s in ((x_t, t), (x_r, r)))
    loss, weight = toy.distance(kind, f_t, f_r.detach()), toy.pair_weight(weighting, t, r)
    toy.assert_terms(terms, model, weights, (weight * loss).mean(), loss=loss, weight=weight)


def test_gradient_is_that_of_the_loss_with_the_target_held_fixed(check_gradient, tiny_model, random, x_0):
    model = tiny_model(*WEIGHTS)
    objective = build(model, mu=0.5)

    def loss():
        return objective.loss(model, x_0, None, 0, random).total

    check_gradient(model, loss, weights=3)


def test_no_gradient_flows_into_target_or_teacher(tiny_model, calls, random, x_0):
    model, teacher = tiny_model(*WEIGHTS), tiny_model(0.1, 0.2, 0.3)
    objective = build(model, teacher, mu=0.5)
    objective.target.requires_grad_(True)
    target = calls(objective.target)
    objective.loss(model, x_0, None, 0, random).total.backward()
    assert not target[0][0].requires_grad
    assert objective.target.F_theta.weights.grad is None
    assert teacher.F_theta.weights.grad is None
    assert model.F_theta.weights.grad[:3].abs().min() > 0


def test_teacher_is_no_part_of_the_objective_s_state(tiny_model):
    assert not build(tiny_model(*WEIGHTS), tiny_model(0.1, 0.2, 0.3)).state_dict()
    objective = build(tiny_model(*WEIGHTS), tiny_model(0.1, 0.2, 0.3), mu=0.5)
    assert list(objective.state_dict()) == ["target.F_theta.weights"]


def test_exact_student_of_an_exact_teacher_has_next_to_no_tangent(random):
    """f is constant along the flow; what is left is Heun's error, of second order in the interval."""

    class Exact(Model):
        def forward(self, x_t, t, labels=None):
            scale = math.sqrt(DEVIATION**2 + 0.002**2) / torch.sqrt(DEVIATION**2 + t.square())
            return MEAN + (x_t - MEAN) * scale[:, None]

    model = Exact(torch.nn.Identity(), (1,), EDM(), 0.5, 0.002, 80.0)
    x_0 = MEAN + DEVIATION * torch.randn(4_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    norms = [build(model, N=N).loss(model, x_0, None, 0, random).tangent_norm.max().item() for N in (401, 801)]
    assert norms[0] < 1e-3
    assert norms[0] / norms[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_both_branches_draw_the_same_dropout_mask(dropout_masks, mu):
    torch.manual_seed(0)
    model = Model(mlp.Network(mlp.Config(width=32, dropout=0.5), (1,), 0), (1,), EDM(), 0.5, 0.002, 80.0)
    objective = build(model, mu=mu)
    masks = dropout_masks(model), dropout_masks(objective.target or torch.nn.Identity())
    for step in (0, 1):
        objective.loss(model, torch.zeros(8, 1), None, step, StepRandom(torch.device("cpu"), 0, step))
    if mu:
        online, target = masks
    else:  # the one network ran twice a step, with three layers each time
        (both, _) = masks
        online, target = both[:3] + both[6:9], both[3:6] + both[9:]
    assert len(online) == len(target) == 6
    assert all(torch.equal(a, b) for a, b in zip(online, target, strict=True))
    assert not torch.equal(online[0], online[3])


def test_target_follows_by_the_decay_of_the_recipe(tiny_model):
    start, model = tiny_model(0.5, 1.1, -0.2), tiny_model(*WEIGHTS)
    objective = build(start, mu=0.95)
    start.load_state_dict(model.state_dict())
    objective.after_step(start, 7)
    expected = [0.95 * old + 0.05 * new for old, new in zip((0.5, 1.1, -0.2), WEIGHTS, strict=True)]
    assert objective.target.F_theta.weights.tolist()[:3] == pytest.approx(expected, rel=1e-14)


def test_without_decay_there_is_no_copy_to_move(tiny_model):
    model = tiny_model(*WEIGHTS)
    objective = build(model, mu=0.0)
    objective.after_step(model, 7)
    assert objective.target is None
    assert model.F_theta.weights.tolist()[:3] == list(WEIGHTS)


def test_profile_is_split_evenly_on_the_grid_of_the_recipe(tiny_model):
    np.testing.assert_allclose(build(tiny_model(*WEIGHTS), rho=3.0).profile_edges(4), karras(5, rho=3.0), rtol=1e-12)
