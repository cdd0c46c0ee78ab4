"""The terms of the tangent add up to it, and each is what it is called."""

from types import SimpleNamespace

import pytest
import torch
import toy
from torch import nn

from cmbench import anatomy
from cmbench.equations import gaussian_path
from cmbench.model import Model
from cmbench.networks import dit, edm2, mlp, unet
from cmbench.objectives import continuous, meanflow, scd, sct
from cmbench.randomness import StepRandom

CUSTOM = {
    "edm": ("edm", "log", "sigma_min"),
    "vp": ("edm", "log", "zero"),
    "trigflow": ("trigflow", "identity", "zero"),
    "linear": ("linear", "identity", "zero"),
}
KINDS = {"continuous": continuous, "scd": scd, "sct": sct, "meanflow": meanflow}


def model_on(path, network, shape=(3,), times=1):
    scalings, noise, boundary = CUSTOM[path]
    on = gaussian_path.named(path, 0.5)
    kinds = {"scalings": scalings, "noise": noise, "boundary_at": boundary, "times": times}
    return Model(network, shape, on, 0.5, 0.002, 80.0, time_dtype=torch.float64, **kinds)


@pytest.fixture
def capture(monkeypatch):
    """Keep the vectors whose norms the anatomy returns."""
    kept = []
    own = anatomy.tangent
    watched = SimpleNamespace(
        norm=lambda x: kept.append(x) or own.norm(x), value_and_derivative=own.value_and_derivative
    )
    monkeypatch.setattr(anatomy, "tangent", watched)
    return kept


def points(path):
    g = torch.Generator().manual_seed(0)
    x_0, eps, v = torch.randn(3, 16, 3, dtype=torch.float64, generator=g)
    t = gaussian_path.named(path, 0.5).t_of_noise_level(torch.logspace(-1.5, 1, 16, dtype=torch.float64))
    s, sigma = (toy.column(value(t)) for value in toy.PATHS[path])
    return 0.5 * s * x_0 + sigma * eps, t, v


@pytest.mark.parametrize("path", CUSTOM)
def test_the_terms_add_up_to_df_dt_and_each_is_its_own_derivative(path, random, capture):
    """Each by central differences of f with the rest of its arguments held fixed."""
    scalings, noise, boundary = CUSTOM[path]
    epsilon = 0.002 if boundary == "sigma_min" else 0.0
    model, weights, labels = model_on(path, toy.Tiny(*toy.WEIGHTS)), toy.leaf().detach(), torch.arange(16) % 3
    x_t, t, v = points(path)
    values = anatomy.of_f(model, x_t, t, v, labels, random).values
    stable, spatial, temporal = capture
    out = toy.combine(path, scalings, epsilon, x_t, t, 1) - toy.combine(path, scalings, epsilon, x_t, t, 0)

    def f(coefficients, network_x, network_t):
        """f with the three places where time enters moved apart."""
        at = [x_t + toy.column(s - t) * v for s in (coefficients, network_x)]
        y = toy.network_input(path, scalings, noise, at[1], network_x)[0]
        c_noise = toy.network_input(path, scalings, noise, x_t, network_t)[1]
        return toy.combine(path, scalings, epsilon, at[0], coefficients, toy.F(weights, y, c_noise, labels))

    def difference(*moves):
        h = 1e-4 * t
        ends = [f(*(t + sign * h * move for move in moves)) for sign in (1, -1)]
        return (ends[0] - ends[1]) / toy.column(2 * h)

    for name, part, moves in (
        ("stable", stable, (1, 0, 0)),
        ("spatial", out * spatial, (0, 1, 0)),
        ("temporal", out * temporal, (0, 0, 1)),
    ):
        expected = difference(*moves)
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(values[name], expected.norm(dim=1), rtol=1e-5, atol=1e-5)
    whole = toy.derivative(lambda s: f(s, s, s), t)
    torch.testing.assert_close(stable + out * (spatial + temporal), whole, rtol=1e-9, atol=1e-9)
    dc = toy.derivative(lambda s: toy.network_input(path, scalings, noise, x_t, s)[1], t).abs()
    torch.testing.assert_close(values["dc_noise_dt"], dc, rtol=1e-9, atol=0)


def test_on_trigflow_the_stable_term_is_the_paper_s(random, capture):
    """-cos t (sigma_data F - dx/dt) - sin t x_t; the others are -sin t sigma_data dF/dt (Lu & Song 2024, eq. 6)."""
    model, (x_t, t, v) = model_on("trigflow", toy.Tiny(*toy.WEIGHTS)), points("trigflow")
    anatomy.of_f(model, x_t, t, v, None, random)
    F, cos, sin = toy.F(toy.leaf().detach(), x_t / 0.5, t), toy.column(torch.cos(t)), toy.column(torch.sin(t))
    torch.testing.assert_close(capture[0], -cos * (0.5 * F - v) - sin * x_t, rtol=1e-12, atol=1e-12)


def networks(times=1):
    torch.manual_seed(0)
    yield "mlp", mlp.Network(mlp.Config(width=16, embedding="fourier", embedding_scale=0.5), (3,), 0, times), (3,)
    yield "unet", unet.Network(unet.Config(width=8, depth=1), (1, 4, 4), 0, times), (1, 4, 4)
    yield "dit", dit.Network(dit.Config(width=16, depth=1, heads=2, patch=2), (1, 4, 4), 0, times), (1, 4, 4)
    small = edm2.Config(width=8, multipliers=(1, 2), depth=1, attention=(), embedding="positional")
    yield "edm2", edm2.Network(small, (1, 4, 4), 0, times), (1, 4, 4)


@pytest.mark.parametrize("network", ["mlp", "unet", "dit", "edm2"])
@pytest.mark.parametrize("path", ["edm", "trigflow"])
def test_the_temporal_term_is_a_product_of_three(network, path, random):
    """||dF/dt through c_noise|| = |dc_noise/dt| ||demb/dc|| times the network's gain, by central differences."""
    net, shape = next((net, shape) for kind, net, shape in networks() if kind == network)
    with torch.no_grad():
        for p in net.parameters():  # layers that start at zero hide the time
            p.add_(0.1 * torch.randn(p.shape))
    model = model_on(path, net.double(), shape)
    t = model.path.t_of_noise_level(torch.tensor([0.1, 0.6, 4.0], dtype=torch.float64))
    x_t, v = torch.randn(2, 3, *shape, dtype=torch.float64)
    values = anatomy.of_f(model, x_t, t, v, None, random).values
    p, h = model.parameterisation, 1e-5
    c, y = p.c_noise(t), p.c_in(t).view(-1, *[1] * len(shape)) * x_t
    dF = (net(y, c + h) - net(y, c - h)).detach() / (2 * h)
    demb = ((net.time(c + h) - net.time(c - h)) / (2 * h)).norm(dim=1)
    expected = dF.flatten(1).norm(dim=1) * p.dc_noise(t).abs()
    product = values["dc_noise_dt"] * values["demb_dc"] * values["dF_demb"]
    torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(values["demb_dc"], demb, rtol=1e-5, atol=0)
    torch.testing.assert_close(values["temporal"], p.of_f(t).c_out.abs() * expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("network", ["mlp", "unet", "dit", "edm2"])
def test_the_temporal_term_of_meanflow_is_such_a_product_too(network, objective, random):
    """Both times move with t: the embeddings side by side, by central differences; t - r is no part of the product."""
    net, shape = next((net, shape) for kind, net, shape in networks(times=2) if kind == network)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    made, model = objective("meanflow", net.double(), shape)
    x_0 = torch.randn(16, *shape, dtype=torch.float64)
    values, (z, t, r, _), h = made.anatomy(model, x_0, None, 0, random).values, made._point(model, x_0, random), 1e-5
    times = torch.stack([t, t - r], dim=1)
    du = (net(z, times + h) - net(z, times - h)).detach() / (2 * h)
    sides = [(net.time, times[:, 0]), (net.more_times[0][0], times[:, 1])]
    demb = torch.cat([(emb(c + h) - emb(c - h)) / (2 * h) for emb, c in sides], dim=1).norm(dim=1)
    torch.testing.assert_close(values["dc_noise_dt"], torch.ones_like(t), rtol=0, atol=0)
    torch.testing.assert_close(values["demb_dc"], demb, rtol=1e-5, atol=0)
    expected = du.flatten(1).norm(dim=1)
    torch.testing.assert_close(values["demb_dc"] * values["dF_demb"], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(values["temporal"], (t - r) * expected, rtol=1e-5, atol=1e-7)


def test_a_network_that_names_no_embedding_has_no_product(random):
    model, at = model_on("trigflow", toy.Tiny()), points("trigflow")
    assert not {"demb_dc", "dF_demb"} & set(anatomy.of_f(model, *at, None, random).values)


@pytest.fixture
def objective():
    """Build an objective and its model around a network."""

    def build(kind, network, shape=(3,)):
        path = {"continuous": "vp", "meanflow": "linear"}.get(kind, "trigflow")
        model = model_on(path, network, shape, 2 if kind == "meanflow" else 1)
        teacher = toy.Gaussian() if kind in ("scd", "continuous") else None
        return KINDS[kind].Objective(KINDS[kind].Config(), model, teacher, 10), model

    return build


@pytest.mark.parametrize("kind", ["continuous", "sct", "scd"])
def test_an_objective_looks_at_its_own_points_and_velocity(objective, random, x_0, kind, capture):
    """The same samples with the same randomness: the parts add up to the tangent of the loss."""
    made, model = objective(kind, toy.Tiny(*toy.WEIGHTS))
    labels = torch.arange(64) % 3
    terms = made.loss(model, x_0, labels, 10_000, random)
    look = made.anatomy(model, x_0, labels, 10_000, random)
    stable, spatial, temporal = capture
    whole = stable + toy.column(model.parameterisation.of_f(terms.t).c_out) * (spatial + temporal)
    factor = 1 if kind == "continuous" else torch.cos(terms.t)  # g = cos t df/dt
    torch.testing.assert_close(look.t, terms.t, rtol=0, atol=0)
    torch.testing.assert_close(whole.norm(dim=1) * factor, terms.tangent_norm, rtol=1e-9, atol=1e-11)


def test_the_error_of_meanflow_is_taken_apart_likewise(objective, calls, random, x_0):
    """u - v, (t - r) v . grad_z u and (t - r) d_t u, with r at rest."""
    made, model = objective("meanflow", toy.Tiny(*toy.WEIGHTS))
    seen, labels, weights = calls(model.F_theta), torch.arange(64) % 3, toy.leaf().detach()
    made.loss(model, x_0, labels, 0, random)
    z, times = map(toy.plain, seen[-1][:2])
    look, v, t = made.anatomy(model, x_0, labels, 0, random), random.noise(x_0) - x_0, times[:, 0]
    interval, u = times[:, 1], toy.F(weights, z, times, labels)
    spatial = toy.derivative(lambda s: toy.F(weights, z + toy.column(s - t) * v, times, labels), t)
    temporal = toy.derivative(lambda s: toy.F(weights, z, torch.stack([s, s - t + interval], 1), labels), t)
    torch.testing.assert_close(look.t, t, rtol=0, atol=0)
    for name, vector in (("stable", u - v), ("spatial", toy.column(interval) * spatial)):
        torch.testing.assert_close(look.values[name], vector.norm(dim=1), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(look.values["temporal"], interval * temporal.norm(dim=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_looking_depends_on_the_step_alone_and_leaves_no_trace(objective, x_0, kind):
    """With dropout too: one mask in all parts, and what random numbers follow does not change (resume)."""
    network = mlp.Network(mlp.Config(width=16, dropout=0.5), (3,), 0, times=2 if kind == "meanflow" else 1)
    nn.init.normal_(network.output.weight)
    made, model = objective(kind, network.double())
    looks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        looks.append(made.anatomy(model, x_0, None, 3, StepRandom(torch.device("cpu"), 0, 3)))
        assert torch.equal(torch.get_rng_state(), before)
    assert looks[0].values["spatial"].max() > 0
    for name, value in looks[0].values.items():
        assert torch.equal(value, looks[1].values[name]), name
        assert not value.requires_grad
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", ["continuous", "sct", "scd"])
def test_both_derivatives_see_one_dropout_mask(objective, x_0, kind, dropout_masks):
    network = mlp.Network(mlp.Config(width=16, depth=1, dropout=0.5), (3,), 0).double()
    made, model = objective(kind, network)
    masks, passes = dropout_masks(network), []
    network.register_forward_hook(lambda *_: passes.append(len(masks)))
    made.anatomy(model, x_0, None, 0, StepRandom(torch.device("cpu"), 0, 0))
    assert len(passes) >= 2
    assert len({bytes(mask.numpy()) for mask in masks}) == 1
