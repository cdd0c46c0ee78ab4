"""How the losses and gradients of distillation and training agree as the step shrinks (Song et al. 2023, theorem 2)."""

import torch
from scipy.integrate import quad
from torch import Tensor

from cmbench.equations import distance
from cmbench.equations.gaussian_path import EDM
from cmbench.lab import _fit, _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.objectives import cd, ct

SOURCE = "Song et al. 2023, theorem 2"
CLAIM = "L_CD = L_CT + o(step) for an exact score and Euler steps, so that in the limit both train the same"
SETTING = (
    "mixture on the line, F of three numbers, one interval below t = 1.5; expectations by Gauss-Hermite quadrature"
)
T = 1.5
STEPS = (0.08, 0.04, 0.02, 0.01, 0.005)  # relative to t


def measure(nodes: int = 64) -> Finding:
    """Measure with `nodes` quadrature nodes for the data and for the noise."""
    own, other = ([_both(step, nodes, moved) for step in STEPS] for moved in (False, True))
    losses = {name: [abs(pair[i][0]) for pair in own] for i, name in enumerate(("CD", "CT"))}
    excess = [
        (training[0] - distillation[0]) / (step * T) ** 2
        for step, (distillation, training) in zip(STEPS, own, strict=True)
    ]
    gaps = [((a[1] - b[1]).norm() / a[1].norm()).item() for a, b in own]
    apart = [abs(a[0] - b[0]) for a, b in other]
    order = {name: _fit.order(STEPS[-3:], values[-3:]) for name, values in losses.items()}
    measures = [
        Measure("target of other weights: order of |L_CD - L_CT|", _fit.order(STEPS[-3:], apart[-3:]), 2, 0.1),
        Measure("theta- = theta: order of L_CD", order["CD"], 2, 0.1),
        Measure("theta- = theta: order of L_CT", order["CT"], 2, 0.1),
        Measure("theta- = theta: limit of (L_CT - L_CD) / step^2", _fit.limit(STEPS, excess), _variance_term(), 1e-5),
        Measure(
            "theta- = theta: order of the relative gap of the gradients", _fit.order(STEPS[-3:], gaps[-3:]), 1, 0.05
        ),
        Measure("theta- = theta: that gap in the limit", _fit.limit(STEPS, gaps), 0, 1e-4),
    ]
    curves = [Curve(f"L_{name}", STEPS, values) for name, values in losses.items()]
    chart = Chart(
        "theta- = theta",
        "step, relative",
        "loss; relative gap of the gradients",
        [*curves, Curve("gap of the gradients", STEPS, gaps)],
        log_x=True,
        log_y=True,
    )
    note = (
        "The difference is O(step^2), as stated. But with theta- = theta the losses are O(step^2) themselves, and "
        "L_CT is larger by E[(df/dx)^2 Var(dx_t/dt | x_t)] step^2 at every step. So the losses do not agree. The "
        "gradients do, with a relative gap of first order."
    )
    return Finding(measures, chart, note, in_part=True)


def _both(step: float, nodes: int, moved: bool) -> list[tuple[float, Tensor]]:
    """Return loss and gradient of CD and of CT over the interval from t to (1 - step) t.

    Args:
        step: relative to t.
        nodes: of the quadrature; its weights enter through the distance, whose mean the objectives take.
        moved: whether the target's weights differ from the student's.
    """
    x_0, eps, weight = _mixture.pairs(nodes)
    found = []
    for kind in (cd, ct):
        model = _toy.model(_toy.Tanh(), EDM(), _mixture.SIGMA_DATA)
        config = (
            cd.Config(N=2, solver="euler", mu=0.5 * moved) if kind is cd else ct.Config(s_0=2, s_1=2, mu_0=0.5 * moved)
        )
        objective = kind.Objective(config, model, _mixture.oracle(), 1)
        objective.sigma_min, objective.sigma_max = (1 - step) * T, T
        objective.distance = lambda x, y: len(weight) * weight * distance.l2(x, y)
        if moved:
            objective.target.F_theta.weights.data += 0.1
        terms = objective.loss(model, x_0, None, 0, _toy.given(eps))
        found.append((terms.total.item(), _toy.gradient(terms, model.F_theta)))
    return found


def _variance_term() -> float:
    """Return E[(df/dx)^2 Var(x_0 | x_t)] / t^2: on EDM dx_t/dt = (x_t - x_0) / t. By quadrature over x_t."""
    a, b, c = _toy.WEIGHTS
    t = torch.tensor(T, dtype=torch.float64)
    root = torch.sqrt(t**2 + 0.25)

    def slope(x: Tensor) -> Tensor:
        return 0.25 / root**2 + 0.5 * t / root**2 * a * b / torch.cosh(b * x / root + c * torch.log(t) / 4) ** 2

    def integrand(x: float) -> float:
        at = torch.tensor(x, dtype=torch.float64)
        return float(_mixture.density(at, t) * slope(at) ** 2 * _mixture.posterior_variance(at, t) / t**2)

    return quad(integrand, -12, 12, limit=200)[0]
