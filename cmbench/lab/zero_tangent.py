"""The exact consistency function is constant along a trajectory (Song et al. 2023, definition 1)."""

import torch
from torch import Tensor, nn

from cmbench.contracts import Teacher, Terms
from cmbench.equations import gaussian_path
from cmbench.equations.gaussian_path import EDM
from cmbench.lab import _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.objectives import continuous

SOURCE = "Song et al. 2023, definition 1"
CLAIM = "at the optimum df/dt = 0 along the trajectory, and f(x_t, t) = x_0 at every t"
SETTING = "the exact consistency function of a mixture as a network, on four paths, log sigma ~ N(-1.1, 2^2)"
KINDS = ("edm", "vp", "trigflow", "linear")
POINTS = 1000


def measure(batches: int = 20) -> Finding:
    """Measure with `batches` batches of 1,000 pairs for the data's own velocity."""
    oracle = _mixture.oracle()
    by_flow = {kind: _loss(kind, oracle, seed=0) for kind in KINDS}
    by_data = {kind: _loss(kind, None, seed=0) for kind in KINDS}
    ratio = max(_rms(by_flow[kind][0]) / _rms(by_data[kind][0]) for kind in KINDS)
    steepest = max((by_flow[kind][1].norm() / by_data[kind][1].norm()).item() for kind in KINDS)
    gradients = [torch.stack([_loss(kind, None, seed)[1] for seed in range(batches)]) for kind in KINDS]
    z = max((g.mean(dim=0).abs() / g.std(dim=0) * batches**0.5).max().item() for g in gradients)
    apart, least = _distance_to_data()
    measures = [
        Measure("||df/dt|| along the PF-ODE, over that along x_0 and eps; the largest of four paths", ratio, 0, 1e-7),
        Measure("the same for the gradients of the objective", steepest, 0, 1e-6),
        Measure(f"along x_0 and eps: largest of {3 * len(KINDS)} z-scores of the gradient", z, 5.0, relation="<="),
        Measure("noise level 1: rms of f - x_0, at least that of x_0 - E[x_0 | x_t]", apart, least, relation=">="),
    ]
    note = (
        "Zero along the PF-ODE on every path. Along a pair's own x_0 and eps, as in training without a teacher, "
        "single tangents are not zero, but their mean is. And f is the end of the trajectory through x_t, not the "
        "pair's x_0."
    )
    return Finding(measures, _chart(by_flow["trigflow"][0], by_data["trigflow"][0]), note, in_part=True)


class _Perturbed(nn.Module):
    """F* plus three directions with zero weights, which give it gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.exact, self.weights = _mixture.ExactF(), nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def forward(self, y: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        a, b, c = self.weights
        return self.exact(y, c_noise) + a * torch.tanh(y) + b * torch.cos(2 * y) + c * torch.tanh(c_noise)[:, None]


def _loss(kind: str, teacher: Teacher | None, seed: int) -> tuple[Terms, Tensor]:
    """Return the terms and the gradient of the raw objective at the optimum."""
    x_0, eps = _mixture.sample(POINTS, seed=100 + seed)
    model = _toy.model(_Perturbed(), gaussian_path.named(kind, _mixture.SIGMA_DATA), _mixture.SIGMA_DATA)
    objective = continuous.Objective(
        continuous.Config(weighting="inverse_sigma", tangent_method="jvp"), model, teacher, 1
    )
    random = _toy.GivenNoise(torch.device("cpu"), seed, 0, eps)
    terms = objective.loss(model, x_0, None, 0, random)
    return terms, _toy.gradient(terms, model.F_theta)


def _norms(terms: Terms) -> Tensor:
    assert terms.tangent_norm is not None
    return terms.tangent_norm


def _rms(terms: Terms) -> float:
    return _norms(terms).square().mean().sqrt().item()


def _distance_to_data() -> tuple[float, float]:
    """Return the root mean squares of f(x_t) - x_0 and of x_0 - E[x_0 | x_t], the least of any function of x_t."""
    x_0, eps, weight = _mixture.pairs(16)
    x_t, t = x_0 + eps, torch.ones(len(x_0), dtype=torch.float64)
    f = _toy.model(_mixture.ExactF(), EDM(), _mixture.SIGMA_DATA)(x_t, t)
    posterior = _mixture.posterior_variance(x_t[:, 0], t)
    return (weight @ (f - x_0)[:, 0].square()).sqrt().item(), (weight @ posterior).sqrt().item()


def _chart(by_flow: Terms, by_data: Terms) -> Chart:
    order = by_flow.t.argsort()[::4]
    curves = [
        Curve(name, terms.t[order].tolist(), _norms(terms)[order].clamp_min(1e-17).tolist(), joined=False)
        for name, terms in (("along x_0 and eps", by_data), ("along the PF-ODE", by_flow))
    ]
    return Chart("TrigFlow: the exact function's tangent", "t", "||df/dt||", curves, log_y=True)
