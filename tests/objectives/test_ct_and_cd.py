"""With an exact teacher and Euler steps, training without it has the same gradient in the limit.

Song et al. 2023, theorem 2.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cmbench.objectives import cd, ct

MEAN, DEVIATION = 0.2, 0.4
POINTS = 28_657  # a Fibonacci number: an even lattice over (x_0, eps)


def lattice():
    """Equally weighted nodes of x_0 ~ N(.2, .4^2) and eps ~ N(0, 1), each (n, 1)."""
    i = np.arange(POINTS)
    u, v = (i + 0.5) / POINTS, ((i * 17_711) % POINTS + 0.5) / POINTS
    return [torch.from_numpy(z)[:, None] for z in (MEAN + DEVIATION * norm.ppf(u), norm.ppf(v))]


class Gaussian:
    @staticmethod
    def denoise(x, sigma, labels=None):
        return MEAN + (x - MEAN) * (DEVIATION**2 / (DEVIATION**2 + sigma.square()))[:, None]


def gradient(objective, model, r, t):
    """Gradient of the loss over one interval of time, as an integral over data and noise."""
    objective.sigma_min, objective.sigma_max = r, t
    x_0, eps = lattice()
    random = SimpleNamespace(draw=lambda stream, n, draw: draw(n, None), noise=lambda like: eps, dropout=nullcontext)
    model.zero_grad()
    objective.loss(model, x_0, None, 0, random).total.backward()
    return model.F_theta.weights.grad[:3].clone()


@pytest.mark.parametrize("t", [0.8, 1.5, 3.0])
def test_gradients_agree_to_the_order_of_the_interval(tiny_model, t):
    """Relative gap, which halves with the interval; the losses themselves do not agree."""
    gaps = []
    for interval in (0.1, 0.05, 0.025):
        model = tiny_model(0.7, 1.3, 0.4, shape=(1,))
        distillation = cd.Objective(cd.Config(N=2, solver="euler"), model, Gaussian(), 1)
        training = ct.Objective(ct.Config(s_0=2, s_1=2), model, None, 1)
        by_teacher, by_data = (gradient(o, model, t * (1 - interval), t) for o in (distillation, training))
        gaps.append(((by_teacher - by_data).norm() / by_teacher.norm()).item())
    assert gaps[0] < 0.1
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.15)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.15)
