"""Adaptive double normalisation against the plain adaptive norm (Lu & Song 2024, section 4.1)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from cmbench.equations.tangent import value_and_derivative
from cmbench.lab import _fit
from cmbench.lab._finding import Chart, Curve, Finding, Measure
from cmbench.layers.embedding import Positional
from cmbench.layers.norm import ScaleShift, pnorm
from cmbench.networks import dit, unet
from cmbench.randomness import forked_seed

SOURCE = "Lu & Song 2024, section 4.1"
CLAIM = "y = norm(x) pnorm(s) + pnorm(b) stays bounded where norm(x) s + b grows with the embedding"
SETTING = (
    "64 channels, positional embedding of 101 times t in [0, pi / 2] by one linear layer, its weights times 1 to 10,000"
)
GAINS = (1.0, 10.0, 100.0, 1e3, 1e4)


def measure() -> Finding:
    """Measure the size of y and of dy/dt as the layer's weights grow."""
    single, double = ([_sizes(double, gain) for gain in GAINS] for double in (False, True))
    (y_single, dy_single), (y_double, dy_double) = (list(zip(*sizes, strict=True)) for sizes in (single, double))
    zeros, ones = (f(1, 64, dtype=torch.float64) for f in (torch.zeros, torch.ones))
    steep = value_and_derivative(pnorm, (zeros,), (ones,), "jvp")[1]
    largest = GAINS[2:]
    gaps = {"U-Net": max(map(_unet_gap, (False, True))), "DiT": max(map(_dit_gap, (False, True)))}
    measures = [
        Measure("AdaGN: power of the gain with which y grows", _fit.order(largest, y_single[2:]), 1, 0.02),
        Measure("AdaGN: power of the gain with which dy/dt grows", _fit.order(largest, dy_single[2:]), 1, 0.02),
        Measure("ADN: largest rms of y over the gains, at most 2", max(y_double), 2, 1e-9, "<="),
        Measure("ADN: power of the gain with which dy/dt grows", _fit.order(largest, dy_double[2:]), 0, 0.05),
        Measure("ADN: rms of pnorm(s) and of pnorm(b), the furthest from 1", _furthest(), 1, 1e-7),
        *(
            Measure(f"largest gap of y in a block of the {name} to that on paper, AdaGN and ADN", gap, 0, 1e-12)
            for name, gap in gaps.items()
        ),
        Measure("pnorm: derivative where its argument is zero, 1 / sqrt(eps)", steep.max().item(), 1e4, 1e-6),
    ]
    curves = [
        Curve("y, AdaGN", GAINS, y_single),
        Curve("dy/dt, AdaGN", GAINS, dy_single),
        Curve("y, ADN", GAINS, y_double),
        Curve("dy/dt, ADN", GAINS, dy_double),
    ]
    chart = Chart("growing weights of scale and shift", "gain", "root mean square", curves, log_x=True, log_y=True)
    note = (
        "The value is bounded by 2 whatever the embedding. Its derivative is not bounded where s or b vanish: pnorm "
        "is as steep as 1 / sqrt(eps) = 10,000 there, so s and b should start at unit size."
    )
    return Finding(measures, chart, note, in_part=True)


def _layer(double_norm: bool, gain: float) -> ScaleShift:
    with forked_seed(1):
        layer = ScaleShift(32, 64, double_norm).double()
    layer.weight.data *= gain
    return layer


def _sizes(double_norm: bool, gain: float) -> tuple[float, float]:
    """Return the root mean squares of y and of dy/dt for norm(x) of ones and minus ones."""
    layer, time = _layer(double_norm, gain), Positional(32).double()
    t = torch.linspace(0, torch.pi / 2, 101, dtype=torch.float64)
    normed = torch.ones(64, dtype=torch.float64)
    normed[::2] = -1

    def y(t: Tensor) -> Tensor:
        s, b = layer.pair(time(t))
        return normed * s + b

    both = value_and_derivative(y, (t,), (torch.ones_like(t),), "jvp")
    first, second = (part.square().mean().sqrt().item() for part in both)
    return first, second


def _furthest() -> float:
    """Return the root mean square of s or b that is furthest from one, over gains."""
    t = torch.linspace(0, torch.pi / 2, 101, dtype=torch.float64)
    pairs = [part for gain in GAINS for part in _layer(True, gain).pair(Positional(32).double()(t))]
    sizes = torch.cat([part.square().mean(dim=1).sqrt() for part in pairs])
    return sizes[(sizes - 1).abs().argmax()].item()


@torch.no_grad()
def _unet_gap(double_norm: bool) -> float:
    """Return the largest gap of x + silu(y), on paper, to a residual block whose last convolution is the identity.

    h = conv(silu(norm(x))) is taken from the block; norm(h) is over groups of eight channels.
    """
    with forked_seed(1):
        block = unet.Block(64, 64, 32, 0.0, 0, double_norm).double()
        x, emb = torch.randn(5, 64, 4, 4, dtype=torch.float64), torch.randn(5, 32, dtype=torch.float64)
    nn.init.dirac_(block.conv_1.weight)
    h = block.conv_0(silu(block.norm_0(x))).reshape(5, 8, 8 * 16)
    y = _y_on_paper(_standardised(h, 1e-5).reshape(5, 64, 16), block.affine, emb, double_norm)
    return (block(x, emb) - x - silu(y.reshape(x.shape))).abs().max().item()


@torch.no_grad()
def _dit_gap(double_norm: bool) -> float:
    """Return the largest gap of x + y, on paper, to a block whose gates are 0 and 1 and whose mlp is the identity."""
    with forked_seed(1):
        block = dit.Block(64, 2, 64, 0.0, double_norm).double()
        x, emb = torch.randn(5, 16, 64, dtype=torch.float64), torch.randn(5, 64, dtype=torch.float64)
        nn.init.normal_(block.affine_1.weight, std=0.1)  # zero at first
    nn.init.ones_(block.gates.bias[64:])
    block.mlp = nn.Sequential()
    y = _y_on_paper(_standardised(x, 1e-6).transpose(1, 2), block.affine_1, emb, double_norm)
    return (block(x, emb) - x - y.transpose(1, 2)).abs().max().item()


def _standardised(h: Tensor, eps: float) -> Tensor:
    """Return h less its mean, over the root of its variance plus eps, over the last axis."""
    h = h - h.mean(dim=-1, keepdim=True)
    return h / torch.sqrt(h.square().mean(dim=-1, keepdim=True) + eps)


def _y_on_paper(normed: Tensor, affine: ScaleShift, emb: Tensor, double_norm: bool) -> Tensor:
    """Return norm(x) s + b, or norm(x) pnorm(s) + pnorm(b), for norm(x) (B, 64, ...), emb (B, embedded)."""
    s, b = torch.einsum("be,ce->bc", emb, affine.weight).add(affine.bias).split(64, dim=1)
    parts = [1 + s, b]
    if double_norm:
        parts = [a / torch.sqrt(a.square().mean(dim=1, keepdim=True) + 1e-8) for a in parts]
    s, b = (a[:, :, None] for a in parts)
    return normed * s + b
