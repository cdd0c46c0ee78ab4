"""The second point of consistency training as a step of the ODE (Song et al. 2023, section 5)."""

import torch

from cmbench.equations import gaussian_path, pf_ode
from cmbench.equations.gaussian_path import GaussianPath
from cmbench.lab import _fit, _mixture
from cmbench.lab._finding import Chart, Curve, Finding, Measure

SOURCE = "Song et al. 2023, section 5"
CLAIM = "with the conditional score in place of the score, one Euler step from x_0 + t_n eps lands on x_0 + t_{n-1} eps"
SETTING = "1,000 pairs (x_0, eps); on EDM steps of 1% to 99% from noise levels .05, 1 and 80; the other paths from 1"
STEPS = (0.2, 0.1, 0.05, 0.025, 0.0125)


def measure() -> Finding:
    """Measure the distance between the step and the point, relative to the noise level."""
    edm, linear = gaussian_path.EDM(), gaussian_path.Linear()
    exact = max(_gap(edm, level, step) / level for level in (0.05, 1.0, 80.0) for step in (0.01, 0.3, 0.99))
    straight = max(_gap(linear, 1.0, step) for step in STEPS)
    curved = {kind: [_gap(gaussian_path.named(kind, 0.5), 1.0, step) for step in STEPS] for kind in ("trigflow", "vp")}
    measures = [
        Measure("EDM: gap in units of the noise level", exact, 0, 1e-13),
        Measure("linear path: gap", straight, 0, 1e-13),
        *(
            Measure(f"{kind}: order of the gap in the step", _fit.order(STEPS, gaps), 2, 0.15)
            for kind, gaps in curved.items()
        ),
    ]
    curves = [Curve(kind, STEPS, gaps) for kind, gaps in curved.items()]
    curves.append(_fit.guide("slope 2", STEPS, curved["vp"], 2))
    chart = Chart("where s and sigma bend", "step, relative", "gap", curves, log_x=True, log_y=True)
    note = (
        "Exact where s and sigma are straight lines in t (EDM, linear). On TrigFlow and VP the two differ by O(step^2)."
    )
    return Finding(measures, chart, note)


def _gap(path: GaussianPath, level: float, step: float) -> float:
    """Return the largest |Euler step - point| from t to (1 - step) t, with the velocity of the conditional score."""
    x_0, eps = _mixture.sample(1000, seed=3)
    t = path.t_of_noise_level(torch.full((1000,), level, dtype=torch.float64))
    r = (1 - step) * t

    def v(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        score = -(x_t - path.s(t)[:, None] * x_0) / path.sigma(t)[:, None].square()
        return pf_ode.velocity_from_score(score, x_t, t, path)

    stepped = pf_ode.euler_step(v, path.x_t(x_0, eps, t), t, r)
    return (stepped - (path.s(r)[:, None] * x_0 + path.sigma(r)[:, None] * eps)).abs().max().item()
