"""The derivative of the network's time input (Lu & Song 2024, section 4.1)."""

import torch
from torch import Tensor

from cmbench.equations.boundary import NoiseName, Parameterisation
from cmbench.equations.gaussian_path import TrigFlow
from cmbench.lab import _fit
from cmbench.lab._finding import Chart, Curve, Finding, Measure

SOURCE = "Lu & Song 2024, section 4.1"
CLAIM = "c_noise(t) = t has the bounded derivative 1, where log sigma / 4 blows up at the ends"
SETTING = "TrigFlow, sigma_data = .5, 401 noise levels from .002 to 80"
PATH = TrigFlow(0.5)


def measure() -> Finding:
    """Measure c_noise' of both transforms, alone and with its factors in the tangent."""
    sigma = torch.logspace(-2.69897, 1.90309, 401, dtype=torch.float64)
    t = PATH.t_of_noise_level(sigma)
    identity, log = (_derivative(kind, t) for kind in ("identity", "log"))
    expected = 1 / (4 * torch.sin(t) * torch.cos(t))
    sin, cos = torch.sin(t), torch.cos(t)
    measures = [
        Measure("identity: largest |c_noise' - 1|", (identity - 1).abs().max().item(), 0, 1e-12),
        Measure(
            "log: largest relative gap of c_noise' to 1 / (4 sin t cos t)",
            (log / expected - 1).abs().max().item(),
            0,
            1e-10,
        ),
        *(
            Measure(f"{kind}: gap of c_noise' to differences of c_noise, relative", _gap(kind, t), 0, 1e-7)
            for kind in ("identity", "log")
        ),
        Measure(
            "log: power of t with which c_noise' grows as t -> 0",
            _fit.order(t[:50].tolist(), log[:50].tolist()),
            -1,
            0.01,
        ),
        Measure(
            "log: sin t c_noise' at sigma_max, 1 / (4 cos t)", (sin * log)[-1].item(), (1 + 160**2) ** 0.5 / 4, 1e-2
        ),
        Measure("log: largest cos t sin t c_noise'", (cos * sin * log).max().item(), 0.25, 1e-9),
    ]
    shown = {"identity": identity, "log": log, "log, times sin t": sin * log, "log, times cos t sin t": cos * sin * log}
    curves = [Curve(name, sigma[::8].tolist(), values[::8].tolist()) for name, values in shown.items()]
    chart = Chart("c_noise'", "noise level", "c_noise'(t)", curves, log_x=True, log_y=True)
    note = (
        "Of the two ends only t -> pi/2 matters in df/dt, where c_noise' has the factor sin t. In sCM's g it has the "
        "factor cos t sin t, so the log transform is bounded too, by 1/4."
    )
    return Finding(measures, chart, note)


def _derivative(kind: NoiseName, t: Tensor) -> Tensor:
    return Parameterisation(PATH, 0.5, "trigflow", noise=kind).dc_noise(t)


def _gap(kind: NoiseName, t: Tensor) -> float:
    """Return the largest relative gap between c_noise' and a central difference of c_noise."""
    h = 1e-4 * torch.minimum(t, torch.pi / 2 - t)
    p = Parameterisation(PATH, 0.5, "trigflow", noise=kind)
    difference = (p.c_noise(t + h) - p.c_noise(t - h)) / (2 * h)
    return (difference / p.dc_noise(t) - 1).abs().max().item()
