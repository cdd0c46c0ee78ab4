import math

import numpy as np
import pytest
import torch

from cmbench.equations.gaussian_path import EDM
from cmbench.networks import mlp
from cmbench.networks._model import Model
from cmbench.objectives import cd
from cmbench.randomness import StepRandom

WEIGHTS = (0.7, 1.3, 0.4)
MEAN, DEVIATION = 0.2, 0.4


class Gaussian:
    """The exact teacher of N(.2 + .1 label, .4^2), which keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def denoise(self, x, sigma, labels=None):
        self.asked.append((x, sigma, labels))
        mean = MEAN if labels is None else MEAN + 0.1 * labels[:, None].to(x)
        return mean + (x - mean) * (DEVIATION**2 / (DEVIATION**2 + sigma.square()))[:, None]


def slope(x, t, mean=MEAN):
    """dx/dt = t (x - m) / (d^2 + t^2)."""
    return t * (x - mean) / (DEVIATION**2 + t**2)


def karras(N, rho=7.0):
    low, high = 0.002 ** (1 / rho), 80 ** (1 / rho)
    return np.array([(low + i / (N - 1) * (high - low)) ** rho for i in range(N)])


def build(model, teacher=None, **settings):
    return cd.Objective(cd.Config(**settings), model, teacher or Gaussian(), 100)


@pytest.fixture
def branches(tiny_model, calls, random, x_0):
    """Run one loss and return its terms, (x_t, t) and (x_r, r)."""

    def run(labels=None, teacher=None, **settings):
        model = tiny_model(*WEIGHTS)
        objective = build(model, teacher, **settings)
        online, target = calls(model), calls(objective.target)
        terms = objective.loss(model, x_0, labels, 0, random)
        return terms, online[0], target[0]

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
    objective = build(model, distance="pseudo_huber", huber_c=0.05, weighting=weighting)
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


def test_gradient_is_that_of_the_loss_with_the_target_held_fixed(check_gradient, tiny_model, random, x_0):
    model = tiny_model(*WEIGHTS)
    objective = build(model)

    def loss():
        return objective.loss(model, x_0, None, 0, random).total

    check_gradient(model, loss, weights=3)


def test_no_gradient_flows_into_target_or_teacher(tiny_model, calls, random, x_0):
    model, teacher = tiny_model(*WEIGHTS), tiny_model(0.1, 0.2, 0.3)
    objective = build(model, teacher)
    objective.target.requires_grad_(True)
    target = calls(objective.target)
    objective.loss(model, x_0, None, 0, random).total.backward()
    assert not target[0][0].requires_grad
    assert objective.target.F_theta.weights.grad is None
    assert teacher.F_theta.weights.grad is None
    assert model.F_theta.weights.grad[:3].abs().min() > 0


def test_teacher_is_no_part_of_the_objective_s_state(tiny_model):
    objective = build(tiny_model(*WEIGHTS), tiny_model(0.1, 0.2, 0.3))
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


def test_both_branches_draw_the_same_dropout_mask(dropout_masks):
    torch.manual_seed(0)
    model = Model(mlp.Network(mlp.Config(width=32, dropout=0.5), (1,), 0), (1,), EDM(), 0.5, 0.002, 80.0)
    objective = build(model)
    online, target = dropout_masks(model), dropout_masks(objective.target)
    for step in (0, 1):
        objective.loss(model, torch.zeros(8, 1), None, step, StepRandom(torch.device("cpu"), 0, step))
    assert len(online) == len(target) == 6
    assert all(torch.equal(a, b) for a, b in zip(online, target, strict=True))
    assert not torch.equal(online[0], online[3])


@pytest.mark.parametrize("mu", [0.0, 0.95])
def test_target_follows_by_the_decay_of_the_recipe(tiny_model, mu):
    objective, model = build(tiny_model(0.5, 1.1, -0.2), mu=mu), tiny_model(*WEIGHTS)
    objective.after_step(model, 7)
    expected = [mu * old + (1 - mu) * new for old, new in zip((0.5, 1.1, -0.2), WEIGHTS, strict=True)]
    assert objective.target.F_theta.weights.tolist()[:3] == pytest.approx(expected, rel=1e-14)


def test_profile_is_split_evenly_on_the_grid_of_the_recipe(tiny_model):
    np.testing.assert_allclose(build(tiny_model(*WEIGHTS), rho=3.0).profile_edges(4), karras(5, rho=3.0), rtol=1e-12)
