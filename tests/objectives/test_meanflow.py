from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy
from scipy.stats import binomtest, kstest, norm
from torch import nn

from cmbench.equations import timesteps
from cmbench.errors import UsageError
from cmbench.objectives import meanflow

MEAN, DEVIATION = 0.3, 0.4  # of the Gaussian whose average velocity is known


def build(model, **settings):
    return meanflow.Objective(meanflow.Config(**settings), model, None, 100)


@pytest.fixture
def straight(tiny_model):
    """Build the toy, or another network, on the linear path with two times."""

    def build(network=None, **settings):
        settings = {"scalings": "linear", "noise": "identity", "boundary_at": "zero", "times": 2, **settings}
        model = tiny_model(*toy.WEIGHTS, path="linear", **settings)
        model.F_theta = network or model.F_theta
        return model

    return build


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"p": 0.75, "c": 0.01},
        {"p": 0.0},
        {"c": 0.5},
        {"share_apart": 0.0},
        {"share_apart": 1.0},
        {"P_mean": 0.5, "P_std": 0.4},
        {"tangent_method": "jvp"},
        {"tangent_method": "finite_difference"},
        {"tangent_method": "finite_difference", "tangent_step": 0.05},
    ],
    ids=str,
)
def test_loss_and_gradient_are_the_formula_s(straight, calls, random, x_0, settings):
    """du/dt = v . grad_z u + d_t u by autograd, z moving along v = eps - x_0, r at rest."""
    model, labels, weights, fixed = straight(), torch.arange(64) % 3, toy.leaf(), toy.leaf().detach()
    objective, seen = build(model, **settings), calls(model.F_theta)
    cfg, terms, eps = objective.config, objective.loss(model, x_0, labels, 0, random), random.noise(x_0)
    t, v = terms.t, eps - x_0
    r = t - toy.plain(seen[0][1])[:, 1]  # the network is told t and t - r
    assert (r <= t).all()
    z = toy.column(1 - t) * x_0 + toy.column(t) * eps

    def u(s):
        return toy.F(fixed, z + toy.column(s - t) * v, torch.stack([s, s - r], dim=1), labels)

    dudt = toy.derivative(u, t)
    if cfg.tangent_method == "finite_difference":
        dudt = (u(t + cfg.tangent_step) - u(t - cfg.tangent_step)) / (2 * cfg.tangent_step)
    target = v - toy.column(t - r) * dudt
    error = toy.F(weights, z, torch.stack([t, t - r], dim=1), labels) - target
    loss = error.square().sum(dim=1)
    weight = 1 / (loss.detach() + cfg.c) ** cfg.p
    norms = error.norm(dim=1).detach()
    toy.assert_terms(terms, model, weights, (weight * loss).mean(), loss=loss, weight=weight, tangent_norm=norms)


class Exact(nn.Module):
    """theta times the average velocity of N(.3, .4^2), u(z, r, t) = (z - z_r) / (t - r) along the exact flow.

    z_r = (1 - r) m + (z - (1 - t) m) S_r / S_t with S_t^2 = (1 - t)^2 d^2 + t^2; t - r is divided out, so r = t is no
    exception.
    """

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, z, times, labels=None):
        t, r = times[:, :1], times[:, :1] - times[:, 1:]
        S_t, S_r = (torch.sqrt((1 - s).square() * DEVIATION**2 + s.square()) for s in (t, r))
        slope = (t + r - DEVIATION**2 * (2 - t - r)) / (S_t * (S_t + S_r))
        return self.theta * (-MEAN + (z - (1 - t) * MEAN) * slope)


@pytest.mark.parametrize(("z", "r", "t", "u"), [(0.8, 0.0, 1.0, 0.18), (-1.0, 0.2, 0.7, -1.321692284)])
def test_exact_average_velocity_has_the_published_values(z, r, t, u):
    assert Exact()(torch.tensor([[z]]), torch.tensor([[t, t - r]]).double()).item() == pytest.approx(u, rel=1e-7)


def test_the_denoiser_is_the_mean_of_the_data_and_f_the_end_of_the_trajectory(straight):
    """E[x_0 | z] = m + s d^2 (z - s m) / S_t^2, and m + d (z - s m) / S_t: the velocity at t, and that from t to 0."""
    model = straight(Exact())
    z = torch.tensor([[-1.3], [0.1], [0.8]], dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    s, off = (1 - t)[:, None], z - (1 - t)[:, None] * MEAN
    S_squared = s.square() * DEVIATION**2 + t[:, None].square()
    with torch.no_grad():
        torch.testing.assert_close(model.denoise(z, t), MEAN + s * DEVIATION**2 * off / S_squared)
        torch.testing.assert_close(model(z, t), MEAN + DEVIATION * off / S_squared.sqrt())


@pytest.mark.parametrize("method", ["dual", "jvp"])
@pytest.mark.parametrize(("r", "t"), [(0.2, 0.7), (0.05, 0.95), (0.5, 0.51), (0.4, 0.4)])
def test_the_target_of_the_exact_average_velocity_is_itself_on_average(straight, monkeypatch, random, method, r, t):
    """At each z, over the posterior of x_0: then the plain square has no gradient. A sample alone has one.

    The gradient is affine in x_0, so two nodes of equal weight integrate it.
    """
    variance = (1 - t) ** 2 * DEVIATION**2 + t**2
    for z in (-1.0, 0.1, 0.9):
        mean = MEAN + (1 - t) * DEVIATION**2 / variance * (z - (1 - t) * MEAN)
        spread = DEVIATION * t / variance**0.5
        both, gradients = torch.tensor([[mean - spread], [mean + spread]], dtype=torch.float64), []
        for x_0 in (both, both[:1]):
            levels = torch.tensor([r / (1 - r), t / (1 - t)], dtype=torch.float64).repeat_interleave(len(x_0))
            monkeypatch.setattr(timesteps, "log_normal", lambda n, *law, levels=levels: levels)
            eps = (z - (1 - t) * x_0) / t
            fixed = SimpleNamespace(draw=random.draw, noise=lambda x, eps=eps: eps, dropout=random.dropout)
            model = straight(Exact(), shape=(1,))
            objective = build(model, p=0.0, share_apart=1.0, tangent_method=method)
            objective.loss(model, x_0, None, 0, fixed).total.backward()
            gradients.append(model.F_theta.theta.grad.item())
        assert gradients[0] == pytest.approx(0, abs=1e-9)
        assert abs(gradients[1]) > 0.05


def test_consistency_function_is_z_minus_t_u(straight):
    """f(z_t, t) = z_t - t u(z_t, 0, t): the exact u takes noise to data in one step."""
    model, t = straight(Exact(), shape=(1,)), torch.tensor([0.3, 0.8], dtype=torch.float64)
    z = torch.tensor([[0.5], [-0.7]], dtype=torch.float64)
    S = torch.sqrt((1 - t) ** 2 * DEVIATION**2 + t**2)[:, None]
    expected = MEAN + (z - toy.column(1 - t) * MEAN) * DEVIATION / S
    torch.testing.assert_close(model(z, t), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("settings", "share"), [({}, 0.25), ({"share_apart": 0.75}, 0.75)])
def test_the_share_apart_is_that_of_the_recipe(straight, calls, random, settings, share):
    """Defect 20: public codes have opposite proportions; the paper's ImageNet runs have r = t for three quarters."""
    model = straight(shape=(1,))
    seen, x_0 = calls(model.F_theta), torch.zeros(20_000, 1, dtype=torch.float64)
    build(model, **settings).loss(model, x_0, None, 0, random)
    apart = int((toy.plain(seen[-1][1])[:, 1] > 0).sum())
    assert binomtest(apart, 20_000, share).pvalue > 1e-3


@pytest.mark.parametrize("law", [(-0.4, 1.0), (0.3, 0.6)])
def test_times_are_the_larger_and_the_smaller_of_two_logit_normals(straight, calls, random, law):
    model = straight(shape=(1,))
    seen, x_0 = calls(model.F_theta), torch.zeros(20_000, 1, dtype=torch.float64)
    settings = {} if law == (-0.4, 1.0) else {"P_mean": law[0], "P_std": law[1]}
    build(model, share_apart=1.0, **settings).loss(model, x_0, None, 0, random)
    t, interval = toy.plain(seen[-1][1]).unbind(dim=1)
    r = t - interval
    assert kstest(torch.logit(t).numpy(), lambda x: norm.cdf(x, *law) ** 2).pvalue > 1e-3
    assert kstest(torch.logit(r).numpy(), lambda x: 1 - (1 - norm.cdf(x, *law)) ** 2).pvalue > 1e-3


def test_profile_is_split_evenly_in_the_logit(straight):
    np.testing.assert_allclose(torch.logit(build(straight()).profile_edges(4)).exp(), np.geomspace(0.002, 80, 5))


@pytest.mark.parametrize(("scalings", "noise"), [("edm", "identity"), ("linear", "log")])
def test_other_parameterisations_are_refused(straight, scalings, noise):
    says = rf"path\.scalings, path\.c_noise: found '{scalings}', '{noise}', allowed for objective 'meanflow': 'linear'"
    with pytest.raises(UsageError, match=says):
        build(straight(scalings=scalings, noise=noise))
