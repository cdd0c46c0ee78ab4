"""Section 5.4: the inner product with a stopped tangent, and the square of a residual."""

from typing import Literal

import torch
from torch import Tensor, nn

from cmbench.equations.gaussian_path import TrigFlow
from cmbench.lab import _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.objectives import continuous, sct
from cmbench.objectives._terms import Terms

SECTION = "5.4"
CLAIM = "E[F^T y] with y stopped and E[||F - F_minus + y||^2 / 2] have the same gradient"
SETTING = "mixture on the line, TrigFlow, F = a x + b t, 4,000 pairs; the raw objective on f, and sCT on F"
Form = Literal["inner_product", "residual_square"]
FORMS: tuple[Form, ...] = ("inner_product", "residual_square")
A, B, C = 0.3, -0.8, 0.1  # the network's weights, and c of g / (|g| + c)


def measure() -> Finding:
    """Measure the gradients of both forms against the derivative on paper."""
    measures, losses = [], {}
    for name, on_paper in (("raw", _raw_on_paper), ("sCT", _sct_on_paper)):
        for form in FORMS:
            terms, gradient, x_0, eps = _by_package(name, form)
            expected = on_paper(x_0, eps, terms.t)
            gap = ((gradient - expected).norm() / expected.norm()).item()
            measures.append(Measure(f"{name}, {form}: gap of the gradient to that on paper, relative", gap, 0, 1e-12))
            losses[name, form] = terms
    inner, square = (losses["raw", form] for form in FORMS)
    apart = abs(inner.total.item() / square.total.item() - 1)
    measures.append(Measure("raw: relative difference of the two losses themselves", apart, 0.1, relation=">="))
    order = square.t.argsort()[::10]
    curves = [
        Curve(form, terms.t[order].tolist(), terms.loss[order].tolist(), joined=False)
        for form, terms in zip(FORMS, (inner, square), strict=True)
    ]
    chart = Chart("equal gradients, other values: loss of single samples", "t", "loss", curves)
    return Finding(measures, chart, "The values differ: only the square says how far the tangent is from zero.")


class _Affine(nn.Module):
    """F_theta(x, t) = a x + b t."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([A, B], dtype=torch.float64))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weights[0] * x + self.weights[1] * c_noise[:, None]


def _by_package(name: str, form: Form) -> tuple[Terms, Tensor, Tensor, Tensor]:
    """Return the terms and gradient of an objective in a form, and the x_0 and eps it was given."""
    x_0, eps = _mixture.sample(4000, seed=7)
    model = _toy.model(_Affine(), TrigFlow(0.5), 0.5, scalings="trigflow", noise="identity")
    if name == "raw":
        objective: continuous.Objective | sct.Objective = continuous.Objective(
            continuous.Config(form=form), model, None, 1
        )
    else:
        config = sct.Config(form=form, weighting="uniform", tangent_warmup=0, tangent_c=C)
        objective = sct.Objective(config, model, None, 1)
    terms = objective.loss(model, x_0, None, 0, _toy.given(eps))
    return terms, _toy.gradient(terms, model.F_theta), x_0, eps


def _tangent(x_0: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return x_t and df/dt of f = cos t x_t - sin t (a x_t + b t / 2), sigma_data one half. All (B,)."""
    cos, sin = torch.cos(t), torch.sin(t)
    x_t, v = cos * x_0[:, 0] + 0.5 * sin * eps[:, 0], -sin * x_0[:, 0] + 0.5 * cos * eps[:, 0]
    return x_t, -sin * x_t + cos * v - cos * (A * x_t + 0.5 * B * t) - sin * (A * v + 0.5 * B)


def _raw_on_paper(x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return E[df/dt grad f], grad f = -sin t (x_t, t / 2)."""
    x_t, dfdt = _tangent(x_0, eps, t)
    return torch.stack([(-torch.sin(t) * part * dfdt).mean() for part in (x_t, 0.5 * t)])


def _sct_on_paper(x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """Return -2 E[g / (|g| + c) grad F], g = cos t df/dt, grad F = (2 x_t, t)."""
    x_t, dfdt = _tangent(x_0, eps, t)
    g = torch.cos(t) * dfdt
    return torch.stack([(-2 * g / (g.abs() + C) * part).mean() for part in (2 * x_t, t)])
