"""The error of the target, of one step and of a trained student (Song et al. 2023, theorem 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cmbench.equations import gaussian_path, pf_ode, timesteps
from cmbench.equations.gaussian_path import EDM
from cmbench.lab import _fit, _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.objectives import cd

SOURCE = "Song et al. 2023, theorem 1"
CLAIM = "a solver's step gives the discrete target a bias of O(step^2) for Euler (Heun: step^3)"
SETTING = "mixture on the line: one step from noise level 1 on four paths; whole Karras grids from .002 to 80"
STEPS = (0.05, 0.025, 0.0125, 0.00625)
GRIDS = (65, 129, 257, 513)


def measure(grids: Sequence[int] = GRIDS) -> Finding:
    """Measure one step on every path, and whole grids with these numbers of points."""
    measures = []
    for solver, p in (("euler", 2), ("heun", 3)):
        orders = [
            _fit.order(STEPS, [_one_step(solver, kind, h) for h in STEPS])
            for kind in ("edm", "vp", "trigflow", "linear")
        ]
        worst = max(orders, key=lambda order: abs(order - p))
        measures.append(Measure(f"{solver}: order of one step's error, the path furthest off", worst, p, 0.1))
    intervals, errors = [1 / (N - 1) for N in grids], {}
    for solver, p in (("euler", 1), ("heun", 2)):
        errors[solver] = [_whole_grid(solver, N) for N in grids]
        measures.append(
            Measure(
                f"{solver}: order of the bias of a student trained on the grid",
                _fit.order(intervals, errors[solver]),
                p,
                0.1,
            )
        )
    loss, bias = _perfect_student(18)
    measures += [
        Measure("N = 18, Euler: CD's loss of the student that composes the steps", loss, 0, 1e-20),
        Measure("N = 18, Euler: its distance to the exact function at sigma_max, relative", bias, 0.01, relation=">="),
    ]
    curves = [Curve(solver, intervals, values) for solver, values in errors.items()]
    curves += [_fit.guide(f"slope {p}", intervals, errors[s], p) for s, p in (("euler", 1), ("heun", 2))]
    chart = Chart(
        "bias of the trained student",
        "1 / (N - 1)",
        "root mean square error at sigma_max",
        curves,
        log_x=True,
        log_y=True,
    )
    note = (
        "True of one step. A student trained on the whole grid composes its steps, has no loss left, and has an "
        "error one order larger: O(1/N) for Euler, O(1/N^2) for Heun."
    )
    return Finding(measures, chart, note, in_part=True)


def _one_step(solver: str, kind: str, step: float) -> float:
    """Return the error of a step from t to (1 - step) t against the exact transport, on the path, root mean square."""
    path = gaussian_path.named(kind, _mixture.SIGMA_DATA)
    x = _mixture.quantiles(1.0)
    t = path.t_of_noise_level(torch.ones(len(x), dtype=torch.float64))
    r = (1 - step) * t
    s_t, s_r, n_r = (value[:, None] for value in (path.s(t), path.s(r), path.noise_level(r)))
    stepped = pf_ode.SOLVERS[solver](pf_ode.velocity(_mixture.oracle().denoise, path), s_t * x, t, r)
    return (stepped / s_r - _mixture.transport(x, torch.ones_like(x), n_r)).square().mean().sqrt().item()


def _whole_grid(solver: str, N: int) -> float:
    """Return the error of stepping down a whole grid, as a student with zero loss does."""
    grid = timesteps.karras_grid(N, 0.002, 80.0)
    x = start = _mixture.quantiles(80.0)
    v = pf_ode.velocity(_mixture.oracle().denoise, EDM())
    for i in range(N - 1, 0, -1):
        x = pf_ode.SOLVERS[solver](v, x, grid[i].expand(len(x)), grid[i - 1].expand(len(x)))
    exact = _mixture.transport(start, torch.full_like(start, 80.0), grid[0])
    return (x - exact).square().mean().sqrt().item()


class _Slopes(nn.Module):
    """F with which f(x, sigma_i) = a_i x on a grid, for edm scalings, f(x, 0) = x and c_noise = log sigma / 4."""

    def __init__(self, grid: Tensor, a: Tensor) -> None:
        super().__init__()
        self.log_grid, self.a = grid.log(), a

    def forward(self, y: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        n = torch.exp(4 * c_noise)[:, None]
        nearest = (4 * c_noise[:, None] - self.log_grid).abs().argmin(dim=1)
        root = torch.sqrt(n.square() + 0.25)
        return (self.a[nearest, None] - 0.25 / (n.square() + 0.25)) * y * root.square() / (0.5 * n)


def _perfect_student(N: int) -> tuple[float, float]:
    """Return CD's loss and the relative error at sigma_max of the composed Euler steps, for data N(0, .25).

    From t to r Euler multiplies by (c^2 + r t) / (c^2 + t^2), the exact flow by sqrt((c^2 + r^2) / (c^2 + t^2)).
    """
    grid = timesteps.karras_grid(N, 0.002, 80.0)
    r, t = grid[:-1], grid[1:]
    a = torch.cat([torch.ones(1, dtype=torch.float64), ((0.25 + r * t) / (0.25 + t**2)).cumprod(0)])
    exact = torch.sqrt((0.25 + grid[0] ** 2) / (0.25 + grid[-1] ** 2))
    model = _toy.model(_Slopes(grid, a), EDM(), 0.5)
    x_0, eps = (torch.randn(256, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (4, 5))
    objective = cd.Objective(cd.Config(N=N, solver="euler"), model, _Gaussian(), 1)
    terms = objective.loss(model, 0.5 * x_0, None, 0, _toy.given(eps))
    return terms.loss.max().item(), abs(a[-1] / exact - 1).item()


class _Gaussian:
    """The exact denoiser of N(0, .25)."""

    @staticmethod
    def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return x * (0.25 / (0.25 + sigma.square()))[:, None]
