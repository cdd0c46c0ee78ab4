"""The gradient of the discrete loss over the step, and that of the continuous objective (Lu & Song 2024, eq. 3)."""

import torch

from cmbench.contracts import Teacher
from cmbench.equations.gaussian_path import EDM
from cmbench.lab import _fit, _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.objectives import cd, continuous, ct

SOURCE = "Lu & Song 2024, eq. 3"
CLAIM = "grad L_disc / step -> grad E[w f^T df/dt] as the step goes to zero"
SETTING = (
    "mixture on the line, F of three numbers, theta- = theta, noise level 1, 2,000 pairs (x_0, eps), the same for both"
)
STEPS = (0.08, 0.04, 0.02, 0.01, 0.005)


def measure() -> Finding:
    """Measure the gradients with the data's own velocity (CT) and with the exact teacher's (CD)."""
    measures, curves = [], []
    for name, teacher in (("CT", None), ("CD", _mixture.oracle())):
        limit = _continuous(teacher)
        discrete = [_discrete(name, step) for step in STEPS]
        gaps = [((g / 2 - limit).norm() / limit.norm()).item() for g in discrete]
        ratio = [(g @ limit / limit.square().sum()).item() for g in discrete]
        measures += [
            Measure(
                f"{name}: ratio of grad L_disc / step to grad L_cont, in the limit", _fit.limit(STEPS, ratio), 2, 1e-4
            ),
            Measure(f"{name}: order of the gap to twice grad L_cont", _fit.order(STEPS[-3:], gaps[-3:]), 1, 0.05),
        ]
        curves.append(Curve(f"{name}", STEPS, gaps))
    curves.append(_fit.guide("slope 1", STEPS, curves[-1].y, 1))
    chart = Chart("gap to the continuous gradient", "step", "relative gap", curves, log_x=True, log_y=True)
    note = "True up to the factor 2 of the square, which Lu & Song 2024, eq. 3, leave out and any weight w absorbs."
    return Finding(measures, chart, note, in_part=True)


def _continuous(teacher: Teacher | None) -> torch.Tensor:
    """Return the gradient of E[f^T df/dt] at noise level e^0 = 1, with the conditional velocity or the teacher's."""
    x_0, eps = _mixture.sample(2000, seed=6)
    model = _toy.model(_toy.Tanh(), EDM(), _mixture.SIGMA_DATA)
    objective = continuous.Objective(continuous.Config(P_mean=0, P_std=1e-30), model, teacher, 1)
    return _toy.gradient(objective.loss(model, x_0, None, 0, _toy.given(eps)), model.F_theta)


def _discrete(kind: str, step: float) -> torch.Tensor:
    """Return the gradient of the discrete loss over the step, using the objectives' weighting 1 / (t - r)."""
    x_0, eps = _mixture.sample(2000, seed=6)
    model = _toy.model(_toy.Tanh(), EDM(), _mixture.SIGMA_DATA)
    if kind == "CT":
        objective: ct.Objective | cd.Objective = ct.Objective(
            ct.Config(s_0=2, s_1=2, mu_0=0, weighting="inverse_interval"), model, None, 1
        )
    else:
        config = cd.Config(N=2, solver="euler", weighting="inverse_interval")
        objective = cd.Objective(config, model, _mixture.oracle(), 1)
    objective.sigma_min, objective.sigma_max = 1 - step, 1.0
    return _toy.gradient(objective.loss(model, x_0, None, 0, _toy.given(eps)), model.F_theta)
