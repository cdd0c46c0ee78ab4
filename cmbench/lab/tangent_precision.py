"""The derivative along cos t sin t (dx/dt, 1), or along (dx/dt, 1) and multiplied afterwards.

Lu & Song 2024, section 5.1, rearrange it in the first way.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cmbench import anatomy
from cmbench.equations import tangent
from cmbench.equations.gaussian_path import TrigFlow, like
from cmbench.lab import _mixture, _toy
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.model import Model
from cmbench.networks import mlp
from cmbench.objectives import sct
from cmbench.randomness import forked_seed

SOURCE = "Lu & Song 2024, section 5.1"
CLAIM = "the rearranged derivative is an equivalent, numerically friendlier form of the tangent"
SETTING = "a seeded perceptron of 2x64 on TrigFlow, c_noise = t, 64 points at each of 33 noise levels from .002 to 80"
PATH = TrigFlow(_mixture.SIGMA_DATA)  # sigma_data = .5
LEVELS, PAIRS = 33, 64
TENSORS = ("g", "stable part", "spatial part", "temporal part")  # the parts are cos t times those of df/dt
Form = Literal["naive", "rearranged"]
FORMS: tuple[Form, ...] = ("naive", "rearranged")
KINDS = {  # precision of the numbers, the network and the times
    "float64": (torch.float64, "float32", torch.float64),
    "float32": (torch.float32, "float32", torch.float32),
    "float32, t in float64": (torch.float32, "float32", torch.float64),
    "bfloat16": (torch.float32, "bfloat16", torch.float32),
}


@dataclass(frozen=True)
class _Points:
    """Noise levels (33,), and 64 pairs at each of them in float64: t (2112,), the others (2112, 1)."""

    sigma: Tensor
    t: Tensor
    x_0: Tensor
    eps: Tensor
    x_t: Tensor
    v: Tensor


def measure() -> Finding:
    """Measure the errors of g and of its parts at each noise level, against finite differences in float64."""
    p, network = _points(), _network()
    expected = torch.stack([_by_differences(network, p), *_parts_by_differences(network, p)])
    error = {
        (form, kind): _errors(torch.stack([_g(network, form, kind, p), *_parts(network, form, kind, p)]), expected)
        for form in FORMS
        for kind in KINDS
    }
    rearranged = {kind: error["rearranged", kind] for kind in KINDS}
    anatomy = _errors(_parts_by_anatomy(network, p), expected[1:].abs())
    measures = [
        *(
            _at_most(f"float64, {form}: largest relative error of g and its parts", error[form, "float64"], 1e-9)
            for form in FORMS
        ),
        _at_most("float64: the same of the time profile's parts of df/dt, times cos t", anatomy, 1e-9),
        *_alike(error),
        *_in_float32(rearranged, p),
        *_in_bfloat16(rearranged["bfloat16"], expected),
        _range(network, p),
    ]
    curves = [
        Curve(f"{kind}, {name}", p.sigma.tolist(), values.tolist())
        for kind in ("float32", "bfloat16")
        for name, values in zip(TENSORS[1:], rearranged[kind][1:], strict=True)
    ]
    chart = Chart("where precision is lost", "noise level", "relative error", curves, log_x=True, log_y=True)
    note = (
        "Equivalent, but in float32 and bfloat16 no more accurate, neither g nor any part of it: floating point does "
        "not mind a factor. What changes is the range: derivatives in the pass are smaller by the factor cos t sin t, "
        "1/250 at sigma = .002, which float16 needs. float32 loses digits at large t, in cos t of a rounded t, a "
        "factor of every part. bfloat16 loses them everywhere, in the network; the temporal part, the smallest, loses "
        "the most. The error of g is that of F in the stable part at small t, and that of the spatial part at large t."
    )
    return Finding(measures, chart, note, in_part=True)


def _at_most(what: str, values: Tensor, bound: float) -> Measure:
    return Measure(what, values.max().item(), bound, relation="<=")


def _alike(error: dict[tuple[Form, str], Tensor]) -> Iterator[Measure]:
    """Compare the errors of the two forms."""
    for kind in ("float32", "bfloat16"):
        ratios = (error["naive", kind] / error["rearranged", kind]).median(dim=1).values
        for name, ratio in zip(TENSORS, ratios.tolist(), strict=True):
            what = f"{kind}, {name}: error of naive over that of rearranged, median of the levels"
            yield Measure(what, ratio, 1, 0.25)


def _in_float32(error: dict[str, Tensor], p: _Points) -> Iterator[Measure]:
    """Measure that only rounding t costs more than rounding numbers does, and that this affects every part."""
    low, high = error["float32"][:, p.sigma < 1], error["float32"][:, p.sigma >= 1]
    rounding = 2**-24
    of_cos = rounding * (p.t[-1] * torch.tan(p.t[-1])).item()  # relative, for one rounding of t
    for i, name in enumerate(TENSORS):
        error_of = f"float32, {name}: largest relative error"
        yield _at_most(f"{error_of} below noise level 1, over 2^-24", low[i] / rounding, 16)
        yield _at_most(f"{error_of} above it, over 2^-24 t tan t at sigma_max", high[i] / of_cos, 1.5)
    least = (high.amax(dim=1) / low.amax(dim=1)).min().item()
    what = "float32: largest error above noise level 1 over that below, least of the four"
    yield Measure(what, least, 5, relation=">=")
    whole = error["float32, t in float64"] / rounding
    yield _at_most("float32, t in float64: largest relative error of g and its parts over 2^-24", whole, 32)


def _in_bfloat16(error: Tensor, expected: Tensor) -> Iterator[Measure]:
    """Measure the error of each part, and which part's error dominates g."""
    for name, values, bound in zip(TENSORS, error, (1, 1, 2, 8), strict=True):
        yield _at_most(f"bfloat16, {name}: largest relative error over one rounding, 2^-8", values * 2**8, bound)
    stable, spatial = (error * _rms(expected))[1:3]
    first, *_, last = (stable / spatial).tolist()
    yield Measure("bfloat16, noise level .002: stable part's error over spatial part's", first, 10, relation=">=")
    yield Measure("the same at 80", last, 0.1, relation="<=")


def _range(network: nn.Module, p: _Points) -> Measure:
    """Measure the largest derivatives of F in the pass at the lowest noise level, in both forms."""
    model, lowest = _model(network, "float64"), slice(0, PAIRS)
    x_t, t, v = p.x_t[lowest], p.t[lowest], p.v[lowest]
    naive, rearranged = (
        model.F_and_derivative(x_t, t, dt[:, None] * v, dt)[1].abs().max().item()
        for dt in (torch.ones_like(t), torch.cos(t) * torch.sin(t))
    )
    what = "largest derivative in the pass at .002, naive over rearranged"
    return Measure(what, naive / rearranged, (1 + 0.004**2) / 0.004, 1e-3)


def _rms(values: Tensor) -> Tensor:
    """Return the root mean square at each noise level. (..., 2112) -> (..., 33)."""
    return values.unflatten(-1, (LEVELS, PAIRS)).square().mean(dim=-1).sqrt()


def _errors(measured: Tensor, expected: Tensor) -> Tensor:
    """Return the relative error at each noise level. (..., 2112) -> (..., 33)."""
    return _rms(measured - expected) / _rms(expected)


def _points() -> _Points:
    sigma = torch.logspace(-2.69897, 1.90309, LEVELS, dtype=torch.float64)
    x_0, eps = (part.repeat(LEVELS, 1) for part in _mixture.sample(PAIRS, seed=8))
    t = PATH.t_of_noise_level(sigma).repeat_interleave(PAIRS)
    return _Points(sigma, t, x_0, eps, PATH.x_t(x_0, eps, t), PATH.conditional_velocity(x_0, eps, t))


def _network() -> nn.Module:
    """Return the perceptron in float64, with random weights in its last layer, which starts at zero."""
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


def _g(network: nn.Module, form: Form, kind: str, p: _Points) -> Tensor:
    """Return the package's g in one of KINDS, (2112,) in float64."""
    dtype, _, time_dtype = KINDS[kind]
    config, t = sct.Config(tangent=form), p.t.to(time_dtype)
    return sct.F_and_g(config, _model(network, kind), p.x_t.to(dtype), t, p.v.to(dtype), None, 1.0)[1][:, 0].double()


@torch.no_grad()
def _parts(network: nn.Module, form: Form, kind: str, p: _Points) -> Tensor:
    """Return the parts of the same g, (3, 2112) in float64, from derivatives along x_t alone and along t alone."""
    dtype, _, time_dtype = KINDS[kind]
    model, x_t, v, t = _model(network, kind), p.x_t.to(dtype), p.v.to(dtype), p.t.to(time_dtype)
    one, cos_sin = torch.ones_like(t), torch.cos(t) * torch.sin(t)
    inside, outside = (cos_sin, one) if form == "rearranged" else (one, cos_sin)
    F, spatial = model.F_and_derivative(x_t, t, like(inside, x_t) * v, torch.zeros_like(t))
    _, temporal = model.F_and_derivative(x_t, t, torch.zeros_like(v), inside)
    stable = tangent.trigflow_stable(F, x_t, v, t, 0.5)
    return torch.stack([stable, *(-0.5 * like(outside, x_t) * dF for dF in (spatial, temporal))])[..., 0].double()


def _parts_by_anatomy(network: nn.Module, p: _Points) -> Tensor:
    """Return cos t times the sizes of the parts of df/dt that the time profile shows, (3, 2112)."""
    found = anatomy.of_f(_model(network, "float64"), p.x_t, p.t, p.v, None, _toy.given(p.eps)).values
    return torch.cos(p.t) * torch.stack([found["stable"], found["spatial"], found["temporal"]])


def _difference(f: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Return df/dh at zero by differences of fourth order with steps h (B,). f(h) (B, 1) -> (B,)."""
    return ((8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h[:, None]))[:, 0]


@torch.no_grad()
def _by_differences(network: nn.Module, p: _Points) -> Tensor:
    """Return cos t df/dt, where f = cos t x_t - sin t F(2 x_t, t) / 2 along the pair. (2112,)."""

    def f(h: Tensor) -> Tensor:
        t = p.t + h
        cos, sin = torch.cos(t)[:, None], torch.sin(t)[:, None]
        x_t = cos * p.x_0 + 0.5 * sin * p.eps
        return cos * x_t - 0.5 * sin * network(2 * x_t, t)

    return torch.cos(p.t) * _difference(f, 1e-3 * torch.minimum(p.t, torch.pi / 2 - p.t))


@torch.no_grad()
def _parts_by_differences(network: nn.Module, p: _Points) -> Tensor:
    """Return -cos^2 t (F / 2 - v) - cos t sin t x_t and -cos t sin t / 2 times dF/dx v and dF/dt. (3, 2112)."""
    cos, sin, x_t, v, h = torch.cos(p.t), torch.sin(p.t), p.x_t[:, 0], p.v[:, 0], torch.full_like(p.t, 1e-3)
    spatial = _difference(lambda h: network(2 * (p.x_t + h[:, None] * p.v), p.t), h)
    temporal = _difference(lambda h: network(2 * p.x_t, p.t + h), h)
    stable = -cos.square() * (0.5 * network(2 * p.x_t, p.t)[:, 0] - v) - cos * sin * x_t
    return torch.stack([stable, -0.5 * cos * sin * spatial, -0.5 * cos * sin * temporal])
