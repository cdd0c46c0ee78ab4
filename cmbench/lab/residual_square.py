"""The inner product with a stopped tangent, and the square of a residual (Lu & Song 2024, section 4.2)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from cmbench.contracts import Terms
from cmbench.equations.gaussian_path import TrigFlow
from cmbench.lab import _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.objectives import continuous, sct

SOURCE = "Lu & Song 2024, section 4.2"
CLAIM = "E[F^T y] with y stopped and E[||F - F_minus + y||^2 / 2] have the same gradient"
SETTING = (
    "three coordinates, each of a mixture on the line, TrigFlow, F = a x + b t, w = c t, 4,000 pairs; the raw "
    "objective on f, and sCT on F"
)
Form = Literal["inner_product", "residual_square"]
FORMS: tuple[Form, ...] = ("inner_product", "residual_square")
D, PAIRS = 3, 4000  # several coordinates, so that norms over a sample and means over it differ
A, B, W = 0.3, -0.8, 0.7  # the weights of F and of w
C = 0.1  # of g / (||g|| + c)


def measure() -> Finding:
    """Measure losses and gradients of both forms against those on paper."""
    measures, losses = [], {}
    for name, on_paper in (("raw", _raw_on_paper), ("sCT", _sct_on_paper)):
        for form in FORMS:
            terms, gradient, x_0, eps = _by_package(name, form)
            totals, expected = on_paper(x_0, eps, terms.t)
            off = abs(terms.total.item() / totals[form].item() - 1)
            gap = ((gradient - expected).norm() / expected.norm()).item()
            measures.append(Measure(f"{name}, {form}: gap of the loss to that on paper, relative", off, 0, 1e-12))
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


class _Linear(nn.Module):
    """w_phi(t) = c t."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(W, dtype=torch.float64))

    def forward(self, t: Tensor) -> Tensor:
        return self.weight * t


def _by_package(name: str, form: Form) -> tuple[Terms, Tensor, Tensor, Tensor]:
    """Return the terms and gradient of an objective in one form, and its x_0 and eps (PAIRS, D)."""
    x_0, eps = (part.view(PAIRS, D) for part in _mixture.sample(PAIRS * D, seed=7))
    model = _toy.model(_Affine(), TrigFlow(0.5), 0.5, scalings="trigflow", noise="identity", D=D)
    w_phi: Any = _Linear()  # replaces a LogWeight
    if name == "raw":
        raw = continuous.Objective(continuous.Config(form=form), model, None, 1)
        terms = raw.loss(model, x_0, None, 0, _toy.given(eps))
        return terms, _toy.gradient(terms, model.F_theta), x_0, eps
    objective = sct.Objective(sct.Config(form=form, tangent_warmup=0, tangent_c=C), model, None, 1)
    objective.w_phi = w_phi
    terms = objective.loss(model, x_0, None, 0, _toy.given(eps))
    return terms, _toy.gradient(terms, model.F_theta, w_phi), x_0, eps


def _tangent(x_0: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return x_t, f = cos t x_t - sin t (a x_t + b t / 2), sigma_data one half, and df/dt. All (B, D), t (B, 1)."""
    cos, sin = torch.cos(t), torch.sin(t)
    x_t, v = cos * x_0 + 0.5 * sin * eps, -sin * x_0 + 0.5 * cos * eps
    f = cos * x_t - sin * (A * x_t + 0.5 * B * t)
    return x_t, f, -sin * x_t + cos * v - cos * (A * x_t + 0.5 * B * t) - sin * (A * v + 0.5 * B)


def _raw_on_paper(x_0: Tensor, eps: Tensor, t: Tensor) -> tuple[dict[Form, Tensor], Tensor]:
    """Return the losses E[f^T df/dt] and E[||df/dt||^2 / 2], and E[df/dt^T grad f], grad f = -sin t (x_t, t / 2)."""
    t = t[:, None]
    x_t, f, dfdt = _tangent(x_0, eps, t)
    inner, square = (f * dfdt).sum(dim=1).mean(), 0.5 * dfdt.square().sum(dim=1).mean()
    gradient = [(-torch.sin(t) * part * dfdt).sum(dim=1).mean() for part in (x_t, 0.5 * t)]
    return {"inner_product": inner, "residual_square": square}, torch.stack(gradient)


def _sct_on_paper(x_0: Tensor, eps: Tensor, t: Tensor) -> tuple[dict[Form, Tensor], Tensor]:
    """Return E[e^w / D ||G||^2 - w] and its gradient in a, b and c, where G = g / (||g||_2 + c) and g = cos t df/dt.

    In a and b it is -2 E[e^w / D G^T grad F], grad F = (2 x_t, t); in the c of w = c t, E[t (e^w / D ||G||^2 - 1)].
    """
    w, t = W * t, t[:, None]
    x_t, _, dfdt = _tangent(x_0, eps, t)
    g = torch.cos(t) * dfdt
    G = g / (g.square().sum(dim=1, keepdim=True).sqrt() + C)
    weighted = w.exp() / D * G.square().sum(dim=1)
    gradient = [(-2 * w.exp() / D * (part * G).sum(dim=1)).mean() for part in (2 * x_t, t)]
    loss = (weighted - w).mean()  # of both forms: the inner product keeps the value for w_phi
    return {"inner_product": loss, "residual_square": loss}, torch.stack([*gradient, (t[:, 0] * (weighted - 1)).mean()])
