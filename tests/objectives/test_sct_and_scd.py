"""sCT and sCD, which differ in the velocity alone (Lu & Song 2024, algorithm 1)."""

import math

import exact
import numpy as np
import pytest
import torch
import toy
from scipy.stats import kstest, norm

from cmbench import recipe
from cmbench.engine import build as engine
from cmbench.equations import tangent
from cmbench.equations.gaussian_path import TrigFlow
from cmbench.equations.oracle import FinitePoints
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.objectives import _scm, scd, sct

BOTH = ("sct", "scd")
PLAIN = {"tangent_normalisation": "none", "weighting": "uniform", "tangent_warmup": 0}  # g itself in the loss


def build(kind, model, teacher=None, **settings):
    module = sct if kind == "sct" else scd
    objective = module.Objective(module.Config(**settings), model, teacher or toy.Gaussian(), 100).double()
    if objective.w_phi is not None:
        torch.manual_seed(0)
        torch.nn.init.normal_(objective.w_phi.linear.weight, std=0.1)
        torch.nn.init.constant_(objective.w_phi.linear.bias, 0.3)
    return objective


@pytest.fixture
def trig(tiny_model):
    """Build the toy on TrigFlow."""

    def build(scalings="trigflow", noise="identity", **settings):
        settings = {"boundary_at": "zero", **settings}
        return tiny_model(*toy.WEIGHTS, path="trigflow", scalings=scalings, noise=noise, **settings)

    return build


def point(kind, x_0, eps, t, labels):
    """Return x_t and dx_t/dt with z = sigma_data eps; sigma_data F_pre = (cos t x_t - D) / sin t."""
    z, cos, sin = 0.5 * eps, toy.column(torch.cos(t)), toy.column(torch.sin(t))
    x_t = cos * x_0 + sin * z
    if kind == "sct":
        return x_t, cos * z - sin * x_0
    D = toy.Gaussian().denoise(x_t / cos, 0.5 * torch.tan(t), labels)
    return x_t, (cos * x_t - D) / sin


def inputs(noise, x, t):
    return x / 0.5, {"identity": t, "log": torch.log(0.5 * torch.tan(t)) / 4}[noise]


def tangent_g(cfg, noise, sign, x_t, v, t, r, labels):
    """-cos^2 (sigma_data F - v) - r cos sin (x_t + sigma_data dF/dt), dF/dt by autograd along the trajectory."""
    fixed, cos, sin = toy.leaf().detach(), toy.column(torch.cos(t)), toy.column(torch.sin(t))

    def F(time):  # noqa: N802
        return sign * toy.F(fixed, *inputs(noise, x_t + toy.column(time - t) * v, time), labels)

    if cfg.tangent_method == "finite_difference":
        speed = torch.cos(t) * torch.sin(t) if cfg.tangent == "rearranged" else torch.ones_like(t)
        y, c = inputs(noise, x_t, t)
        dy, dc = toy.column(speed) * v / 0.5, speed * toy.derivative(lambda s: inputs(noise, x_t, s)[1], t)
        h = cfg.tangent_step
        up, down = (sign * toy.F(fixed, y + s * dy, c + s * dc, labels) for s in (h, -h))
        dF = (up - down) / (2 * h) / toy.column(speed)
    else:
        dF = toy.derivative(F, t)
    return -(cos**2) * (0.5 * F(t) - v) - r * cos * sin * (x_t + 0.5 * dF)


def tamed(cfg, g):
    size = torch.sqrt((g**2).sum(dim=1, keepdim=True))
    if cfg.tangent_normalisation == "rms":
        size = size / math.sqrt(3)
    return {
        "l2": g / (size + cfg.tangent_c),
        "rms": g / (size + cfg.tangent_c),
        "clip": torch.minimum(torch.maximum(g, -torch.ones_like(g)), torch.ones_like(g)),
        "none": g,
    }[cfg.tangent_normalisation]


def check(kind, model, objective, x_0, random, step=3, noise="identity", sign=1):
    """Compare a loss, its gradient in theta and that in phi with algorithm 1, written out."""
    cfg, labels, weights = objective.config, torch.arange(64) % 3, toy.leaf()
    terms = objective.loss(model, x_0, labels, step, random)
    t, r = terms.t, min(1.0, step / cfg.tangent_warmup) if cfg.tangent_warmup else 1.0
    x_t, v = point(kind, x_0, random.noise(x_0), t, labels)
    raw = tangent_g(cfg, noise, sign, x_t, v, t, r, labels)
    F = sign * toy.F(weights, *inputs(noise, x_t, t), labels)
    D = 3 if cfg.reduction == "mean" else 1
    loss = (F - F.detach() - tamed(cfg, raw)).square().sum(dim=1) / D
    prior = 1 / (0.5 * torch.tan(t)) if cfg.prior == "inverse_tan" else torch.ones_like(t)
    if cfg.weighting == "adaptive":
        phi = objective.w_phi.linear.weight.detach().clone().requires_grad_(True)
        w = objective.w_phi.time(t) @ phi[0] + 0.3
        weight = prior * torch.exp(w)
        total = (weight * loss - w).mean()
        (in_phi,) = torch.autograd.grad(total, phi, retain_graph=True)
    else:
        weight = prior * (torch.cos(t) if cfg.weighting == "cosine" else 1)
        total = (weight * loss).mean()
    norms = torch.sqrt((raw**2).sum(dim=1))
    toy.assert_terms(terms, model, weights, total, loss=loss, weight=weight, tangent_norm=norms)
    if cfg.weighting == "adaptive":
        torch.testing.assert_close(objective.w_phi.linear.weight.grad, in_phi, rtol=1e-9, atol=1e-12)
    assert terms.scalars == {"r": r}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("method", ["dual", "jvp"])
@pytest.mark.parametrize(("step", "warmup"), [(0, 10), (5, 10), (10, 10), (99, 10), (0, 0)])
def test_loss_and_gradient_are_algorithm_1(trig, random, x_0, kind, method, step, warmup):
    """Defects 15, 16 and 18: a second cos sin, a second 1/D or 1/sigma, r on x_t alone, a tangent without teacher."""
    model = trig()
    check(kind, model, build(kind, model, tangent_warmup=warmup, tangent_method=method), x_0, random, step)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "settings",
    [
        {"tangent": "naive"},
        {"tangent_normalisation": "rms"},
        {"tangent_normalisation": "clip"},
        {"tangent_normalisation": "none"},
        {"tangent_c": 2.0},
        {"weighting": "uniform"},
        {"weighting": "cosine"},
        {"prior": "inverse_tan"},
        {"prior": "inverse_tan", "weighting": "uniform"},
        {"reduction": "sum"},
        {"form": "inner_product"},
        {"form": "inner_product", "weighting": "uniform", "reduction": "sum"},
        {"tangent_method": "finite_difference"},
        {"tangent_method": "finite_difference", "tangent_step": 0.1},
        {"tangent_method": "finite_difference", "tangent_step": 0.1, "tangent": "naive"},
        {"P_mean": 0.2, "P_std": 0.6},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_key_does_what_it_says(trig, random, x_0, kind, settings):
    """The finite difference perturbs along the teacher's velocity in sCD (defect 16)."""
    model = trig()
    check(kind, model, build(kind, model, tangent_warmup=10, **settings), x_0, random)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("scalings", "noise"), [("edm", "identity"), ("trigflow", "log"), ("edm", "log")])
@pytest.mark.parametrize("method", ["dual", "finite_difference"])
def test_on_trigflow_the_scalings_of_edm_are_the_same_up_to_sign(trig, random, x_0, kind, scalings, noise, method):
    model, sign = trig(scalings, noise), -1 if scalings == "edm" else 1
    check(kind, model, build(kind, model, tangent_method=method), x_0, random, noise=noise, sign=sign)


@pytest.mark.parametrize("kind", BOTH)
def test_without_warm_up_g_is_cos_t_df_dt(trig, random, x_0, kind):
    """f = cos t x_t - sigma_data sin t F, differentiated as a whole."""
    model, fixed = trig(), toy.leaf().detach()
    terms = build(kind, model, tangent_warmup=0).loss(model, x_0, None, 0, random)
    t = terms.t
    x_t, v = point(kind, x_0, random.noise(x_0), t, None)

    def f(s):
        x = x_t + toy.column(s - t) * v
        return toy.column(torch.cos(s)) * x - 0.5 * toy.column(torch.sin(s)) * toy.F(fixed, x / 0.5, s)

    expected = torch.cos(t) * toy.derivative(f, t).norm(dim=1)
    torch.testing.assert_close(terms.tangent_norm, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", BOTH)
def test_defaults_are_the_paper_s(kind):
    """Defects 16 and 17: the RMS norm, and one more factor 1 / sigma, as defaults."""
    cfg = (sct if kind == "sct" else scd).Config()
    assert (cfg.tangent_normalisation, cfg.tangent_c, cfg.tangent_warmup) == ("l2", 0.1, 10_000)
    assert (cfg.prior, cfg.weighting, cfg.reduction, cfg.form) == ("none", "adaptive", "mean", "residual_square")
    assert (cfg.P_mean, cfg.P_std, cfg.tangent) == (-1.0, 1.4, "rearranged")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("weighting", ["adaptive", "uniform", "cosine"])
@pytest.mark.parametrize("prior", ["none", "inverse_tan"])
def test_both_forms_have_one_gradient(trig, random, x_0, kind, weighting, prior):
    """In theta and, where it is learned, in w_phi. What tells them apart is the second derivative."""
    model, found, bends = trig(), [], []
    for form in ("residual_square", "inner_product"):
        objective = build(kind, model, form=form, weighting=weighting, prior=prior, tangent_warmup=0)
        total = objective.loss(model, x_0, None, 0, random).total
        leaves = [model.F_theta.weights, *objective.parameters()]
        assert len(leaves) == (3 if weighting == "adaptive" else 1)
        gradients = torch.autograd.grad(total, leaves, create_graph=True)
        found.append([gradient.detach() for gradient in gradients])
        bends.append(torch.autograd.grad(gradients[0][0], model.F_theta.weights)[0][0].item())
    for square, product in zip(*found, strict=True):
        torch.testing.assert_close(square, product, rtol=1e-12, atol=1e-12)
    assert bends[1] == 0 < bends[0]


def exact_model():
    network = exact.Network("trigflow", "trigflow", 0.0)
    path = TrigFlow(0.5)
    return Model(
        network, (1,), path, 0.5, 0.002, 80.0, "float32", "trigflow", "identity", "zero", time_dtype=torch.float64
    )


@pytest.mark.parametrize("method", ["dual", "jvp"])
@pytest.mark.parametrize("form", ["rearranged", "naive"])
@pytest.mark.filterwarnings("ignore:.*no rule for its derivative")  # of erf and tan
def test_tangent_of_the_exact_consistency_function_is_zero(random, method, form):
    model, x_0 = exact_model(), exact.sample(512)
    objective = build("scd", model, exact.oracle(), tangent_warmup=0, tangent_method=method, tangent=form)
    terms = objective.loss(model, x_0, None, 0, random)
    assert terms.tangent_norm.max() < 1e-8
    warming = build("scd", model, exact.oracle(), tangent_warmup=2).loss(model, x_0, None, 1, random)
    assert warming.tangent_norm.mean() > 0.01  # r < 1 leaves the first half of it


@pytest.mark.parametrize("t", [0.1, 0.7, 1.3])
@pytest.mark.filterwarnings("ignore:.*no rule for its derivative")  # of erf and tan
def test_training_s_tangent_is_zero_on_average(t):
    """At each x_t, over the posterior of x_0; g is affine in x_0, so its mean stands at the posterior's mean."""
    x_t = torch.linspace(-1.5, 1.5, 31, dtype=torch.float64)[:, None]
    times, cos, sin = torch.full((31,), t, dtype=torch.float64), math.cos(t), math.sin(t)
    D = exact.oracle().denoise(x_t / cos, 0.5 * torch.tan(times))
    spread, tangents = torch.tensor([-0.3, 0.3], dtype=torch.float64), []
    for x_0 in (D + spread[0], D + spread[1]):
        z = (x_t - cos * x_0) / sin
        _, g = _scm.F_and_g(sct.Config(), exact_model(), x_t, times, cos * z - sin * x_0, None, 1.0)
        tangents.append(g)
    assert (tangents[0] + tangents[1]).abs().max() < 1e-8
    assert tangents[0].abs().min() > 0.01


def test_training_is_distillation_where_the_data_are_one_point(trig, random):
    model, point = trig(), torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    x_0, found = point.expand(64, 3), []
    for objective in (build("sct", model, **PLAIN), build("scd", model, FinitePoints(point), **PLAIN)):
        terms = objective.loss(model, x_0, None, 0, random)
        found.append((terms.loss, terms.tangent_norm, torch.autograd.grad(terms.total, model.F_theta.weights)[0]))
    for training, distillation in zip(*found, strict=True):
        torch.testing.assert_close(training, distillation, rtol=1e-9, atol=1e-11)


def test_distillation_follows_the_teacher_it_is_given(trig, random, x_0):
    model = trig()
    runs = [build("scd", model, teacher, **PLAIN) for teacher in (toy.Gaussian(), FinitePoints(x_0))]
    one, other = (objective.loss(model, x_0, None, 0, random).tangent_norm for objective in runs)
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("prior", ["none", "inverse_tan"])
def test_the_best_learned_weight_is_one_over_the_loss(trig, random, x_0, prior):
    """e^w p = 1 / E[loss], whatever the prior p: the optimum takes it in (t is held fixed)."""
    model = trig()
    objective = build("sct", model, prior=prior, P_mean=-0.3, P_std=1e-30, tangent_warmup=0)
    torch.nn.init.zeros_(objective.w_phi.linear.weight)
    loss = objective.loss(model, x_0, None, 0, random).loss.mean()
    p = 1 / math.exp(-0.3) if prior == "inverse_tan" else 1.0
    best = -torch.log(p * loss).item()
    found = []
    for w in (best - 0.01, best, best + 0.01):
        torch.nn.init.constant_(objective.w_phi.linear.bias, w)
        objective.zero_grad()
        terms = objective.loss(model, x_0, None, 0, random)
        terms.total.backward()
        found.append((terms.total.item(), objective.w_phi.linear.bias.grad.item()))
        if w == best:
            torch.testing.assert_close(terms.weight, (1 / loss).expand(64), rtol=1e-6, atol=0)
            assert objective.w_phi.linear.weight.grad.abs().max() < 1e-6
    assert found[1][1] == pytest.approx(0, abs=1e-6)
    assert found[0][1] < -0.005
    assert found[2][1] > 0.005
    assert found[1][0] < min(found[0][0], found[2][0])


def test_learned_weights_start_at_one_and_are_trained_with_the_network(trig, random, x_0):
    model = trig()
    objective = sct.Objective(sct.Config(), model, None, 1)
    assert torch.equal(objective.loss(model, x_0, None, 0, random).weight, torch.ones(64).double())
    assert sorted(name for name, p in objective.named_parameters() if p.requires_grad) == [
        "w_phi.linear.bias",
        "w_phi.linear.weight",
    ]
    assert not list(build("sct", model, weighting="uniform").parameters())


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("settings", [{}, {"P_mean": 0.4, "P_std": 0.8}])
def test_times_are_the_paper_s(trig, random, kind, settings):
    """log(sigma_data tan t) is normal; quantiles .01, .5 and .99 of the published law are .0283, .6343, 1.5185."""
    model, x_0 = trig(shape=(1,)), torch.zeros(20_000, 1, dtype=torch.float64)
    t = build(kind, model, tangent_normalisation="clip", **settings).loss(model, x_0, None, 0, random).t
    law = (settings.get("P_mean", -1.0), settings.get("P_std", 1.4))
    assert kstest(torch.log(0.5 * torch.tan(t)).numpy(), norm(*law).cdf).pvalue > 1e-3
    if not settings:
        np.testing.assert_allclose(np.quantile(t, (0.01, 0.5, 0.99)), (0.0283, 0.6343243, 1.5185), rtol=0.06)


@pytest.mark.parametrize("kind", BOTH)
def test_profile_is_split_evenly_in_log_tan(trig, kind):
    edges = build(kind, trig()).profile_edges(4)
    np.testing.assert_allclose(0.5 * torch.tan(edges), np.geomspace(0.002, 80, 5), rtol=1e-9)


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_no_trigflow_is_refused(trig, kind):
    with pytest.raises(UsageError, match=f"path.boundary: found 'sigma_min', allowed for objective '{kind}': zero"):
        build(kind, trig(boundary_at="sigma_min"))
    with pytest.raises(UsageError, match=f"path.scalings: found 'linear', allowed for objective '{kind}': trigflow"):
        build(kind, trig("linear"))


def test_norm_of_the_whole_sample_and_of_its_mean_square():
    """Defect 17: over D = 3 elements the RMS is smaller by sqrt(3), the step larger."""
    g = torch.tensor([[3.0, 0.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(tangent.normalised(g, "l2", 0.1), g / 5.1)
    torch.testing.assert_close(tangent.normalised(g, "rms", 0.1), g / (5 / math.sqrt(3) + 0.1))


# Of the stabilisations: the keys that each switch changes, the values of Lu & Song 2024 and those without.
TAKEN_AWAY = {
    "identity_time": {"path.c_noise": ("identity", "log")},
    "low_frequency": {"network.embedding": ("positional", "fourier"), "network.embedding_scale": (1.0, 16.0)},
    "adn": {"network.double_norm": (True, False)},
    "tangent_warmup": {"objective.tangent_warmup": (10_000, 0)},
    "tangent_norm": {"objective.tangent_normalisation": ("l2", "none")},
    "rearranged": {"objective.tangent": ("rearranged", "naive")},
    "residual_square": {"objective.form": ("residual_square", "inner_product")},
    "adaptive": {"objective.weighting": ("adaptive", "uniform")},
}


@pytest.mark.parametrize(("name", "warmup"), [("sct_trigflow_cifar10", 10_000), ("sct_trigflow", 500)])
@pytest.mark.parametrize("switch", TAKEN_AWAY)
def test_a_switch_takes_its_stabilisation_away_and_nothing_else(switch, name, warmup):
    """A short run has its warm-up shortened with it."""
    assert set(TAKEN_AWAY) == set(_scm.SWITCHES)
    file = recipe.PACKAGE.parent / "recipes" / f"{name}.toml"
    whole, without = (engine.complete(recipe.load(file, given), "x") for given in ((), _scm.SWITCHES[switch]))
    changed = {key: tuple(values) for key, values in recipe.differences([whole, without]).items()}
    assert changed == (TAKEN_AWAY[switch] if switch != "tangent_warmup" else {"objective.tangent_warmup": (warmup, 0)})
