"""Section 5.4: the derivative taken along cos t sin t (dx/dt, 1), or along (dx/dt, 1) and multiplied afterwards."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from cmbench.equations.gaussian_path import TrigFlow
from cmbench.lab import _mixture
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.networks import mlp
from cmbench.networks._model import Model
from cmbench.objectives import _scm, sct
from cmbench.randomness import forked_seed

SECTION = "5.4"
CLAIM = "the rearranged derivative is an equivalent, numerically friendlier form of the tangent"
SETTING = "a seeded perceptron of 2x64 on TrigFlow, c_noise = t, 64 points at each of 33 noise levels from .002 to 80"
PATH = TrigFlow(_mixture.SIGMA_DATA)
Form = Literal["naive", "rearranged"]
FORMS: tuple[Form, ...] = ("naive", "rearranged")
KINDS = {  # what the numbers, the network and the times are
    "float64": (torch.float64, "float32", torch.float64),
    "float32": (torch.float32, "float32", torch.float32),
    "float32, t in float64": (torch.float32, "float32", torch.float64),
    "bfloat16": (torch.float32, "bfloat16", torch.float32),
}


def measure() -> Finding:
    """Measure the error of g in each bin of noise levels against differences of f in float64."""
    sigma, t, x_0, eps = _points()
    network = _network()
    expected = _by_differences(network, t, x_0, eps)
    error = {}
    for kind in KINDS:
        for form in FORMS:
            gap = (_g(network, form, kind, t, x_0, eps) - expected).view(33, 64)
            size = expected.view(33, 64).square().mean(dim=1)
            error[form, kind] = (gap.square().mean(dim=1) / size).sqrt()
    ends = [_derivative(network, t, x_0, eps, dt) for dt in (torch.ones_like(t), torch.cos(t) * torch.sin(t))]
    rounding = 2**-24 * torch.tan(t[-1]) * t[-1]
    naive, rearranged = ({kind: error[form, kind] for kind in KINDS} for form in FORMS)
    measures = [
        *(
            Measure(f"float64, {form}: largest relative error", error[form, "float64"].max().item(), 0, 1e-9)
            for form in FORMS
        ),
        *(
            Measure(
                f"{kind}: error of naive over that of rearranged, median of the bins",
                (naive[kind] / rearranged[kind]).median().item(),
                1,
                0.25,
            )
            for kind in ("float32", "bfloat16")
        ),
        Measure(
            "float32: largest relative error, in units of 2^-24 t tan t at sigma_max",
            (rearranged["float32"].max() / rounding).item(),
            1.5,
            relation="<=",
        ),
        Measure(
            "float32, t in float64: largest relative error",
            rearranged["float32, t in float64"].max().item(),
            2e-6,
            relation="<=",
        ),
        Measure(
            "bfloat16: largest relative error, at most that of one rounding, 2^-8",
            rearranged["bfloat16"].max().item(),
            2**-8,
            relation="<=",
        ),
        Measure(
            "largest derivative in the pass at .002, naive over rearranged",
            (ends[0][:64].abs().max() / ends[1][:64].abs().max()).item(),
            (1 + 0.004**2) / 0.004,
            1e-3,
        ),
    ]
    shown = [(form, kind) for kind in ("float32", "bfloat16") for form in FORMS] + [
        ("rearranged", "float32, t in float64")
    ]
    curves = [Curve(f"{kind}, {form}", sigma.tolist(), error[form, kind].tolist()) for form, kind in shown]
    chart = Chart("where precision is lost", "noise level", "relative error of g", curves, log_x=True, log_y=True)
    note = (
        "Equivalent, and in float32 and bfloat16 no more accurate: floating point does not mind a factor. What "
        "changes is the range: the pass holds derivatives 1 / (cos t sin t) smaller, 250 times at sigma = .002, "
        "which float16 needs. float32 loses digits at large t, in cos t of a rounded t; bfloat16 loses them "
        "everywhere, in the network."
    )
    return Finding(measures, chart, note, in_part=True)


def _points() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the noise levels (33,) and t (2112,), x_0 and eps (2112, 1), 64 of each noise level."""
    sigma = torch.logspace(-2.69897, 1.90309, 33, dtype=torch.float64)
    x_0, eps = _mixture.sample(64, seed=8)
    return sigma, PATH.t_of_noise_level(sigma).repeat_interleave(64), x_0.repeat(33, 1), eps.repeat(33, 1)


def _network() -> nn.Module:
    """Return the perceptron in float64; its last layer, zero at first, gets weights."""
    with forked_seed(2):
        network = mlp.Network(mlp.Config(width=64, depth=2), (1,), 0)
        nn.init.normal_(network.output.weight, std=0.125)
    return network.double()


def _model(network: nn.Module, kind: str) -> Model:
    dtype, precision, time_dtype = KINDS[kind]
    network = copy.deepcopy(network).to(dtype)
    return Model(
        network, (1,), PATH, 0.5, 0.002, 80.0, precision, "trigflow", "identity", "zero", time_dtype=time_dtype
    )


def _g(network: nn.Module, form: Form, kind: str, t: Tensor, x_0: Tensor, eps: Tensor) -> Tensor:
    """Return the package's g in one of KINDS, (2112, 1) in float64."""
    dtype, _, time_dtype = KINDS[kind]
    x_t, v = PATH.x_t(x_0, eps, t).to(dtype), PATH.conditional_velocity(x_0, eps, t).to(dtype)
    config = sct.Config(tangent=form)
    return _scm.F_and_g(config, _model(network, kind), x_t, t.to(time_dtype), v, None, 1.0)[1].double()


def _derivative(network: nn.Module, t: Tensor, x_0: Tensor, eps: Tensor, dt: Tensor) -> Tensor:
    """Return the derivative of F along dt (dx/dt, 1), in float64."""
    v = dt[:, None] * PATH.conditional_velocity(x_0, eps, t)
    return _model(network, "float64").F_and_derivative(PATH.x_t(x_0, eps, t), t, v, dt)[1]


@torch.no_grad()
def _by_differences(network: nn.Module, t: Tensor, x_0: Tensor, eps: Tensor) -> Tensor:
    """Return cos t df/dt by differences of fourth order of f = cos t x_t - sin t F(2 x_t, t) / 2 along the pair."""

    def f(t: Tensor) -> Tensor:
        cos, sin = torch.cos(t)[:, None], torch.sin(t)[:, None]
        x_t = cos * x_0 + 0.5 * sin * eps
        return cos * x_t - 0.5 * sin * network(2 * x_t, t)

    h = 1e-3 * torch.minimum(t, torch.pi / 2 - t)
    difference = 8 * (f(t + h) - f(t - h)) - (f(t + 2 * h) - f(t - 2 * h))
    return torch.cos(t)[:, None] * difference / (12 * h[:, None])
