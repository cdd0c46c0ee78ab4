import exact
import numpy as np
import pytest
import torch
import toy
from scipy.stats import kstest, norm

from cmbench.equations import gaussian_path
from cmbench.equations.oracle import FinitePoints
from cmbench.model import Model
from cmbench.objectives import continuous

# path: scalings, c_noise, boundary, epsilon
CUSTOM = {
    "edm": ("edm", "log", "sigma_min", 0.002),
    "vp": ("edm", "log", "zero", 0.0),
    "trigflow": ("trigflow", "identity", "zero", 0.0),
    "linear": ("linear", "identity", "zero", 0.0),
}
OTHERS = {
    "vp": ("trigflow", "angle", "sigma_min", 0.002),
    "edm": ("edm", "angle", "zero", 0.0),
    "linear": ("edm", "log", "sigma_min", 0.002),
}


def build(model, teacher=None, **settings):
    return continuous.Objective(continuous.Config(**settings), model, teacher, 1)


@pytest.fixture
def on(tiny_model):
    """Build the toy on a path."""

    def build(path, scalings, noise, boundary, epsilon=0.0):
        return tiny_model(*toy.WEIGHTS, path=path, scalings=scalings, noise=noise, boundary_at=boundary)

    return build


def velocity(path, teacher, x_0, eps, x_t, t, labels):
    """s' x_0 + sigma' eps, or the same with the teacher's expectations of both."""
    s, sigma = (toy.column(value(t)) for value in toy.PATHS[path])
    ds, dsigma = (toy.column(toy.derivative(value, t)) for value in toy.PATHS[path])
    if teacher is None:
        return ds * x_0 + dsigma * eps
    D = teacher.denoise(x_t / s, (sigma / s)[:, 0], labels)
    return ds * D + dsigma * (x_t - s * D) / sigma


def by_difference(weights, path, custom, at, x_t, t, labels, h):
    """df/dt = c_skip' x_t + c_out' F + c_skip dx/dt + c_out dF, with (F(. + h) - F(. - h)) / 2h for dF."""
    scalings, noise, _, epsilon = custom

    def inputs(u):
        return toy.network_input(path, scalings, noise, at(u), u)

    dy, dc = (toy.derivative(lambda u, i=i: inputs(u)[i], t) for i in (0, 1))
    y, c = inputs(t)
    F, up, down = (toy.F(weights, y + step * dy, c + step * dc, labels) for step in (0, h, -h))
    moved, still = (toy.combine(path, scalings, epsilon, x_t, t, output) for output in ((up - down) / (2 * h), 0))
    return toy.derivative(lambda u: toy.combine(path, scalings, epsilon, at(u), u, F), t) + moved - still


def check(model, objective, x_0, random, path, custom, teacher=None, h=None):
    """Compare a loss and its gradient with the definition, w f^T df/dt with df/dt by autograd along the trajectory."""
    scalings, noise, _, epsilon = custom
    cfg, labels, weights = objective.config, torch.arange(64) % 3, toy.leaf()
    terms, eps = objective.loss(model, x_0, labels, 0, random), random.noise(x_0)
    t, fixed = terms.t, weights.detach()
    s, sigma = (value(t) for value in toy.PATHS[path])
    x_t = toy.column(s) * x_0 + toy.column(sigma) * eps
    v = velocity(path, teacher, x_0, eps, x_t, t, labels)

    def at(time):
        return x_t + toy.column(time - t) * v

    f = toy.f(weights, path, scalings, noise, epsilon, x_t, t, labels)
    dfdt = toy.derivative(lambda u: toy.f(fixed, path, scalings, noise, epsilon, at(u), u, labels), t)
    if h:  # the central difference in the place of dF/dt
        dfdt = by_difference(fixed, path, custom, at, x_t, t, labels, h)
    products = f * dfdt if cfg.form == "inner_product" else 0.5 * (f - (f - dfdt).detach()).square()
    loss = products.sum(dim=1) if cfg.reduction == "sum" else products.mean(dim=1)
    n = sigma / s
    w = {"uniform": torch.ones_like(n), "edm": 1 / n**2 + 4, "inverse_sigma": 1 / n}[cfg.weighting]
    norms = dfdt.norm(dim=1)
    toy.assert_terms(terms, model, weights, (w * loss).mean(), loss=loss, weight=w, tangent_norm=norms)


@pytest.mark.parametrize("path", CUSTOM)
@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("method", ["dual", "jvp"])
def test_loss_and_gradient_are_the_definition_s(on, random, x_0, path, distilled, method):
    model, teacher = on(path, *CUSTOM[path]), toy.Gaussian() if distilled else None
    check(model, build(model, teacher, tangent_method=method), x_0, random, path, CUSTOM[path], teacher)


@pytest.mark.parametrize("path", OTHERS)
def test_on_a_path_with_the_scalings_of_another(on, random, x_0, path):
    model = on(path, *OTHERS[path])
    check(model, build(model), x_0, random, path, OTHERS[path])


@pytest.mark.parametrize(
    "settings",
    [
        {"form": "residual_square"},
        {"reduction": "mean"},
        {"form": "residual_square", "reduction": "mean"},
        {"weighting": "edm"},
        {"weighting": "inverse_sigma"},
    ],
)
@pytest.mark.parametrize("path", ["edm", "linear"])
def test_keys_of_the_loss(on, random, x_0, path, settings):
    model = on(path, *CUSTOM[path])
    check(model, build(model, **settings), x_0, random, path, CUSTOM[path])


@pytest.mark.parametrize("path", CUSTOM)
@pytest.mark.parametrize("h", [1e-3, 0.05])
def test_finite_difference_is_central_with_the_step_of_the_recipe(on, random, x_0, path, h):
    model, teacher = on(path, *CUSTOM[path]), toy.Gaussian()
    objective = build(model, teacher, tangent_method="finite_difference", tangent_step=h)
    check(model, objective, x_0, random, path, CUSTOM[path], teacher, h)


@pytest.mark.parametrize("path", CUSTOM)
@pytest.mark.parametrize("weighting", ["uniform", "edm", "inverse_sigma"])
def test_both_forms_have_one_gradient(on, random, x_0, path, weighting):
    """Lu & Song 2024, section 4.2. What tells them apart is the second derivative, in a weight that f is linear in."""
    model, gradients, bends = on(path, *CUSTOM[path]), [], []
    for form in ("inner_product", "residual_square"):
        total = build(model, form=form, weighting=weighting).loss(model, x_0, None, 0, random).total
        (gradient,) = torch.autograd.grad(total, model.F_theta.weights, create_graph=True)
        gradients.append(gradient.detach())
        bends.append(torch.autograd.grad(gradient[0], model.F_theta.weights)[0][0].item())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    assert bends[0] == 0 < bends[1]


@pytest.mark.parametrize("path", CUSTOM)
@pytest.mark.parametrize("method", ["dual", "jvp"])
@pytest.mark.filterwarnings("ignore:.*no rule for its derivative")  # of erf and tan
def test_tangent_of_the_exact_consistency_function_is_zero(random, path, method):
    """Along the exact teacher's trajectories nothing moves; training sees single pairs and is not at rest."""
    scalings, noise, boundary, epsilon = CUSTOM[path]
    network = exact.Network("log" if noise == "log" else path, scalings, epsilon)
    on_path = gaussian_path.named(path, 0.5)
    model = Model(
        network, (1,), on_path, 0.5, 0.002, 80.0, "float32", scalings, noise, boundary, time_dtype=torch.float64
    )
    settings = {"P_mean": -0.5, "P_std": 0.8, "tangent_method": method}
    x_0 = exact.sample(256)
    at_rest = build(model, exact.oracle(), **settings).loss(model, x_0, None, 0, random)
    assert at_rest.tangent_norm.max() < 1e-8
    assert build(model, None, **settings).loss(model, x_0, None, 0, random).tangent_norm.mean() > 0.1


@pytest.mark.parametrize("path", CUSTOM)
def test_training_is_distillation_where_the_data_are_one_point(on, random, path):
    """There E[x_0 | x_t] = x_0, and the teacher's velocity is the conditional one."""
    model, point = on(path, *CUSTOM[path]), torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
    x_0, runs = point.expand(64, 3), []
    for teacher in (None, FinitePoints(point)):
        terms = build(model, teacher).loss(model, x_0, None, 0, random)
        runs.append((terms.loss, terms.tangent_norm, torch.autograd.grad(terms.total, model.F_theta.weights)[0]))
    for alone, distilled in zip(*runs, strict=True):
        torch.testing.assert_close(alone, distilled, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("path", CUSTOM)
def test_noise_levels_are_log_normal_on_every_path(on, random, path):
    model, x_0 = on(path, *CUSTOM[path]), torch.zeros(5_000, 3, dtype=torch.float64)
    s, sigma = toy.PATHS[path]
    for settings, law in (({}, (-1.1, 2.0)), ({"P_mean": 0.1, "P_std": 0.7}, (0.1, 0.7))):
        t = build(model, **settings).loss(model, x_0, None, 0, random).t
        assert kstest((sigma(t) / s(t)).log().numpy(), norm(*law).cdf).pvalue > 1e-3


@pytest.mark.parametrize("path", CUSTOM)
def test_profile_is_split_evenly_in_the_log_of_the_noise_level(on, path):
    s, sigma = toy.PATHS[path]
    edges = build(on(path, *CUSTOM[path])).profile_edges(4)
    np.testing.assert_allclose(sigma(edges) / s(edges), np.geomspace(0.002, 80, 5), rtol=1e-9)
