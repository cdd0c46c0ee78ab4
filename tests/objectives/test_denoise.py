import math

import pytest
import torch
import toy
from scipy.stats import kstest, norm

from cmbench.equations.gaussian_path import EDM
from cmbench.errors import UsageError
from cmbench.model import Model
from cmbench.networks import edm2, mlp
from cmbench.objectives import denoise
from cmbench.testing import check_objective

MEAN, DEVIATION = 0.2, 0.5


class Affine(Model):
    """The exact denoiser of N(.2, .5^2), times a factor and plus an offset."""

    def __init__(self, factor=1.0, offset=0.0, sigma_data=DEVIATION):
        super().__init__(torch.nn.Identity(), (2,), EDM(), sigma_data, 0.002, 80.0)
        self.factor, self.offset = factor, offset

    def denoise(self, x_t, t, labels=None):
        shrink = (DEVIATION**2 / (DEVIATION**2 + t.square()))[:, None]
        return self.factor * (MEAN + (x_t - MEAN) * shrink) + self.offset


def data(n):
    return MEAN + DEVIATION * torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def terms_of(model, random, n=40_000, **settings):
    return denoise.Objective(denoise.Config(**settings), model, None, 100).loss(model, data(n), None, 0, random)


def test_loss_of_the_exact_denoiser_is_the_bayes_loss(random):
    """Posterior variance d^2 sigma^2 / (d^2 + sigma^2) times the weight is one at every sigma if sigma_data = d.

    A sample's weighted loss is a chi square of two degrees over two, of deviation 1, so 40,000 of them have a standard
    error of .005; the tolerance is four.
    """
    terms = terms_of(Affine(), random)
    assert terms.total.item() == pytest.approx(1, abs=0.02)
    assert (terms.weight * terms.loss).std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.1), (0.1, 0.5), (0.5, 80.0)])
def test_bayes_loss_holds_at_every_noise_level(random, low, high):
    terms = terms_of(Affine(), random)
    kept = (terms.t > low) & (terms.t <= high)
    variance = DEVIATION**2 * terms.t**2 / (DEVIATION**2 + terms.t**2)
    ratio = (terms.loss / variance)[kept]
    assert ratio.mean().item() == pytest.approx(1, abs=4 / math.sqrt(len(ratio)))


@pytest.mark.parametrize(("factor", "offset"), [(1.1, 0.0), (0.9, 0.0), (1.0, 0.1), (1.0, -0.1)])
def test_exact_denoiser_minimises_the_loss(random, factor, offset):
    assert terms_of(Affine(factor, offset), random).total > terms_of(Affine(), random).total + 0.05


def test_offset_adds_its_square_to_the_loss(random):
    """The residual of the exact denoiser is orthogonal to constants, up to the noise of 40,000 samples."""
    exact, moved = terms_of(Affine(), random), terms_of(Affine(offset=0.3), random)
    assert (moved.loss - exact.loss).mean().item() == pytest.approx(0.09, abs=0.002)


def test_weight_is_that_of_the_published_table(random):
    terms = terms_of(Affine(sigma_data=0.7), random, n=50)
    torch.testing.assert_close(terms.weight, 1 / terms.t**2 + 1 / 0.49, rtol=1e-12, atol=0)


def test_noise_levels_are_log_normal(random):
    log = terms_of(Affine(), random, n=20_000).t.log().numpy()
    assert kstest(log, norm(-1.2, 1.2).cdf).pvalue > 1e-3
    log = terms_of(Affine(), random, n=20_000, P_mean=0.4, P_std=2.0).t.log().numpy()
    assert kstest(log, norm(0.4, 2.0).cdf).pvalue > 1e-3


CUSTOM = {
    "edm": ("edm", "log"),
    "vp": ("edm", "log"),
    "trigflow": ("trigflow", "identity"),
    "linear": ("linear", "angle"),
}


@pytest.mark.parametrize("path", CUSTOM)
@pytest.mark.parametrize("weighting", ["edm", "velocity"])
def test_loss_and_gradient_on_every_path(tiny_model, random, x_0, path, weighting):
    """Unit weight on F_theta is lambda = 1 / c_out^2 of the EDM path; "velocity" compares dx/dt in place of x_0."""
    (scalings, noise), weights, labels = CUSTOM[path], toy.leaf(), torch.arange(64) % 3
    boundary = "zero" if path == "linear" else "sigma_min"  # no matter of D
    model = tiny_model(path=path, scalings=scalings, noise=noise, boundary_at=boundary)
    objective = denoise.Objective(denoise.Config(weighting=weighting), model, None, 1)
    terms, eps = objective.loss(model, x_0, labels, 0, random), random.noise(x_0)
    s, sigma = toy.PATHS[path]
    x_t = toy.column(s(terms.t)) * x_0 + toy.column(sigma(terms.t)) * eps
    D = toy.f(weights, path, scalings, noise, 0.0, x_t, terms.t, labels)
    loss = (D - x_0).square().mean(dim=1)
    if weighting == "edm":
        n = sigma(terms.t) / s(terms.t)
        weighted = loss * (n**2 + 0.25) / (0.5 * n) ** 2
    else:
        ds, dsigma = (toy.column(toy.derivative(function, terms.t)) for function in (s, sigma))
        noise_in_x_t = (x_t - toy.column(s(terms.t)) * D) / toy.column(sigma(terms.t))
        weighted = (ds * D + dsigma * noise_in_x_t - ds * x_0 - dsigma * eps).square().mean(dim=1)
    toy.assert_terms(terms, model, weights, weighted.mean(), loss=loss, weight=(weighted / loss).detach())


def test_on_the_straight_path_the_velocity_weight_is_flow_matching(tiny_model, random, x_0):
    """||F - (eps - x_0)||^2 (Lipman et al. 2023)."""
    model, weights = tiny_model(path="linear", scalings="linear", noise="identity", boundary_at="zero"), toy.leaf()
    objective = denoise.Objective(denoise.Config(weighting="velocity"), model, None, 1)
    terms, eps = objective.loss(model, x_0, None, 0, random), random.noise(x_0)
    z = toy.column(1 - terms.t) * x_0 + toy.column(terms.t) * eps
    toy.assert_terms(terms, model, weights, (toy.F(weights, z, terms.t) - (eps - x_0)).square().mean())


def test_on_trigflow_it_is_the_paper_s_diffusion_objective(tiny_model, random, x_0):
    """||sigma_data F - v||^2 / sigma_data^2, v = cos t z - sin t x_0 (Lu & Song 2024, eq. 4)."""
    model = tiny_model(path="trigflow", scalings="trigflow", noise="identity", boundary_at="zero")
    terms, weights = denoise.Objective(denoise.Config(), model, None, 1).loss(model, x_0, None, 0, random), toy.leaf()
    z, cos, sin = 0.5 * random.noise(x_0), toy.column(torch.cos(terms.t)), toy.column(torch.sin(terms.t))
    F = toy.F(weights, (cos * x_0 + sin * z) / 0.5, terms.t)
    toy.assert_terms(terms, model, weights, ((0.5 * F - (cos * z - sin * x_0)) / 0.5).square().mean())


@pytest.mark.parametrize("path", CUSTOM)
def test_noise_levels_are_those_of_the_recipe_on_every_path(tiny_model, random, path):
    model = tiny_model(path=path, shape=(1,), scalings=CUSTOM[path][0], noise=CUSTOM[path][1], boundary_at="zero")
    x_0 = torch.zeros(20_000, 1, dtype=torch.float64)
    t = denoise.Objective(denoise.Config(P_mean=-0.5), model, None, 1).loss(model, x_0, None, 0, random).t
    s, sigma = toy.PATHS[path]
    assert kstest((sigma(t) / s(t)).log().numpy(), norm(-0.5, 1.2).cdf).pvalue > 1e-3


def test_gradient_is_that_of_the_loss(check_gradient, tiny_model, random, x_0):
    model = tiny_model(0.7, 1.3, 0.4, 0.3)
    objective, labels = denoise.Objective(denoise.Config(), model, None, 1), torch.arange(64) % 4

    def loss():
        return objective.loss(model, x_0, labels, 0, random).total

    check_gradient(model, loss)


def test_labels_reach_the_model(tiny_model, calls, random, x_0):
    model, labels = tiny_model(), torch.arange(64)
    seen = calls(model.F_theta)
    denoise.Objective(denoise.Config(), model, None, 1).loss(model, x_0, labels, 0, random)
    assert seen[0][2] is labels


def test_terms_have_no_tangent(random):
    assert terms_of(Affine(), random, n=4).tangent_norm is None


def test_dropout_of_a_step_follows_from_the_step(random):
    torch.manual_seed(0)
    model = Model(mlp.Network(mlp.Config(width=32, dropout=0.5), (2,), 0), (2,), EDM(), 0.5, 0.002, 80.0)
    torch.nn.init.normal_(model.F_theta.output.weight)
    objective = denoise.Objective(denoise.Config(), model, None, 1)
    one, two = (objective.loss(model, torch.ones(8, 2), None, 0, random).total for _ in range(2))
    assert torch.equal(one, two)
    model.eval()
    assert not torch.equal(one, objective.loss(model, torch.ones(8, 2), None, 0, random).total)


def test_profile_is_split_evenly_in_log_sigma():
    edges = denoise.Objective(denoise.Config(), Affine(), None, 1).profile_edges(5)
    torch.testing.assert_close(edges.log().diff(), torch.full((5,), math.log(40_000) / 5, dtype=torch.float64))
    assert (edges[0].item(), edges[-1].item()) == (pytest.approx(0.002), pytest.approx(80))


# A learned log-variance


def with_head():
    """A small edm2 network, whose head predicts its own loss, in float64."""
    torch.manual_seed(0)
    small = {"width": 8, "multipliers": (1,), "depth": 1, "attention": (), "log_variance_channels": 8}
    net = edm2.Network(edm2.Config(**small), (1, 4, 4), 0)
    return Model(net.double(), (1, 4, 4), EDM(), 0.5, 0.002, 80.0)


def objective_of(model, log_variance):
    return denoise.Objective(denoise.Config(log_variance=log_variance), model, None, 100)


@pytest.mark.parametrize("kind", ["linear", "network"])
def test_loss_with_a_log_variance_is_the_published_formula(random, kind):
    """lambda e^-u ||D - x_0||^2 / D + u (Karras et al. 2024, section 2.3), gradients included."""
    model, x_0 = with_head(), torch.randn(64, 1, 4, 4, dtype=torch.float64)
    made = objective_of(model, kind)
    if kind == "linear":
        torch.nn.init.normal_(made.minus_u.linear.weight, std=0.1)
    plain = objective_of(model, "none").loss(model, x_0, None, 0, random)
    terms = made.loss(model, x_0, None, 0, random)
    head = list((made.minus_u if kind == "linear" else model.F_theta.logvar_linear).parameters())
    c_noise = plain.t.log() / 4
    u = -made.minus_u(plain.t) if kind == "linear" else model.F_theta.log_variance(c_noise)
    weighted = plain.weight * plain.loss
    expected = (weighted * (-u).exp() + u).mean()
    torch.testing.assert_close(terms.total, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(terms.loss, plain.loss)
    torch.testing.assert_close(terms.weight, (plain.weight * (-u).exp()).detach(), rtol=1e-6, atol=0)
    gradients = [torch.autograd.grad(total, head, retain_graph=True) for total in (terms.total, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)
    assert gradients[0][0].any()
    terms.total.backward()
    assert model.F_theta.unet.out_gain.grad is not None


@pytest.mark.long
@pytest.mark.long
def test_the_best_log_variance_is_the_log_of_the_loss(random):
    """The minimum of e^-u L + u over u is ln L: at the optimum the weighted loss is one at every noise level."""
    model, x_0 = with_head(), 0.5 * torch.randn(2048, 1, 4, 4, dtype=torch.float64)
    made = objective_of(model, "linear")
    optimizer = torch.optim.LBFGS(made.minus_u.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = made.loss(model, x_0, None, 0, random).total
        total.backward()
        return total

    optimizer.step(closure)
    terms = made.loss(model, x_0, None, 0, random)
    low, high = terms.t < 0.3, terms.t > 0.3
    for level in (low, high):
        assert (terms.weight * terms.loss)[level].mean().item() == pytest.approx(1, abs=0.1)


def test_a_head_of_the_network_sleeps_unless_it_is_asked_for():
    model = with_head()
    for kind in ("none", "linear"):
        objective_of(model, kind)
        assert not model.F_theta.logvar_linear.weight.requires_grad
    objective_of(model, "network")
    assert model.F_theta.logvar_linear.weight.requires_grad


def test_a_network_without_a_head_is_refused():
    perceptron = mlp.Network(mlp.Config(width=8), (2,), 0)
    with pytest.raises(UsageError, match=r"objective\.log_variance: found 'network', allowed for this network"):
        objective_of(Model(perceptron, (2,), EDM(), 0.5, 0.002, 80.0), "network")


def test_a_learned_log_variance_does_what_the_engine_relies_on():
    check_objective(denoise.Objective, denoise.Config(log_variance="linear"))
