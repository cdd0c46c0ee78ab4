"""Tangents: derivatives along a trajectory, their parts and their normalisation.

Shapes: f, F, x_t, dxdt, tangent (B, ...); t, r (B,).
"""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.func import jvp

from cmbench.equations.gaussian_path import like
from cmbench.errors import NoDerivativeError
from cmbench.forward_mode import dual

Method = Literal["dual", "jvp", "finite_difference"]
Normalisation = Literal["l2", "rms", "clip", "none"]
Network = Callable[..., Tensor]
FORWARDS = {"dual": 1.0, "jvp": 2.0, "finite_difference": 2.0}  # per image, besides the recorded pass
STEP = 3e-3  # of the central difference: best in float32 (relative error 2e-4)


def finite_difference(f_t: Tensor, f_r: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """Return (f(x_t, t) - f(x_r, r)) / (t - r), the tangent of a discrete objective. (B, ...)."""
    return (f_t - f_r) / like(t - r, f_t)


def norm(tangent: Tensor) -> Tensor:
    """Return the L2 norm of each sample's tangent. (B, ...) -> (B,)."""
    return tangent.flatten(1).norm(dim=1)


def value_and_derivative(
    network: Network,
    primals: tuple[Tensor | None, ...],
    tangents: tuple[Tensor | None, ...],
    method: Method,
    h: float = STEP,
) -> tuple[Tensor, Tensor]:
    """Return network(*primals), recorded for backward, and its derivative along `tangents`, not recorded.

    Args:
        network: differentiable in the arguments that have a tangent.
        primals: its arguments.
        tangents: their derivatives, None for a constant argument.
        method: "dual", one pass that records the value but not the derivative (`forward_mode.dual`); "jvp", a pass of
            torch.func.jvp without gradient, then a plain pass; "finite_difference", two passes without gradient at
            plus and minus h, then a plain pass. With each method all passes share one dropout mask.
        h: the step of the difference, in units of the tangents.

    Raises:
        NoDerivativeError: this method cannot differentiate the network.
    """
    if method == "dual":
        return dual.value_and_derivative(network, primals, tangents)
    derivative = _by_jvp if method == "jvp" else _by_difference
    devices = [p.device for p in primals if p is not None and p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices), torch.no_grad():  # so the plain pass below draws the same masks
        dF = derivative(network, primals, tangents, h, devices)
    torch.clear_autocast_cache()  # older torch keeps the weights cast above without a graph (pytorch#158232)
    return network(*primals), dF


def _by_jvp(
    network: Network,
    primals: tuple[Tensor | None, ...],
    tangents: tuple[Tensor | None, ...],
    h: float,
    devices: list[torch.device],
) -> Tensor:
    moving = [i for i, tangent in enumerate(tangents) if tangent is not None]

    def function(*arguments: Tensor) -> Tensor:
        whole = list(primals)
        for i, argument in zip(moving, arguments, strict=True):
            whole[i] = argument
        return network(*whole)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch compiles its own rules with its deprecated torch.jit
        try:
            return jvp(function, tuple(primals[i] for i in moving), tuple(tangents[i] for i in moving))[1]
        except torch.OutOfMemoryError:
            raise
        except (NotImplementedError, RuntimeError) as error:  # e.g. from group norms in bfloat16 on a CPU
            why = " ".join(str(error).split())
            raise NoDerivativeError(
                f'no derivative by torch.func.jvp: {why}; allowed: objective.tangent_method = "dual" or '
                '"finite_difference"'
            ) from error


def _by_difference(
    network: Network,
    primals: tuple[Tensor | None, ...],
    tangents: tuple[Tensor | None, ...],
    h: float,
    devices: list[torch.device],
) -> Tensor:
    ends = []
    for sign in (h, -h):
        with torch.random.fork_rng(devices):
            ends.append(network(*(_moved(p, v, sign) for p, v in zip(primals, tangents, strict=True))))
    return (ends[0] - ends[1]) / (2 * h)


def _moved(primal: Tensor | None, tangent: Tensor | None, by: float) -> Tensor | None:
    return primal if primal is None or tangent is None else primal + by * tangent


def trigflow_stable(F: Tensor, x_t: Tensor, dxdt: Tensor, t: Tensor, sigma_data: float, r: float = 1.0) -> Tensor:
    """Return -cos^2(t) (sigma_data F - dx/dt) - r cos(t) sin(t) x_t: the part of g without the network's derivative.

    At r = 1 this is cos(t) times the stable part of df/dt (Lu & Song 2024, eq. 6). F is TrigFlow's.
    """
    cos, sin = (like(c, x_t) for c in (torch.cos(t), torch.sin(t)))
    return -cos.square() * (sigma_data * F - dxdt) - r * cos * sin * x_t


def trigflow(
    F: Tensor, cos_sin_dF: Tensor, x_t: Tensor, dxdt: Tensor, t: Tensor, sigma_data: float, r: float
) -> Tensor:
    """Return the tangent g of sCM, cos(t) df/dt at r = 1 (Lu & Song 2024, algorithm 1).

    g = -cos^2(t) (sigma_data F - dx/dt) - r cos(t) sin(t) (x_t + sigma_data dF/dt). The warm-up r in [0, 1]
    multiplies the whole second term, as in algorithm 1. `cos_sin_dF` is cos(t) sin(t) dF/dt.
    """
    return trigflow_stable(F, x_t, dxdt, t, sigma_data, r) - r * sigma_data * cos_sin_dF


def normalised(g: Tensor, how: Normalisation, c: float) -> Tensor:
    """Return the normalised tangent: g / (||g|| + c), or g clipped to [-1, 1] (Lu & Song 2024, section 4.2).

    Args:
        g: (B, ...).
        how: "l2", the paper's norm over the whole sample; "rms", that norm over sqrt(D), as in sCM-mnist and FastGen,
            which makes the step sqrt(D) larger and changes the meaning of c; "clip"; "none".
        c: positive, .1 in the paper.
    """
    if how == "clip":
        return g.clamp(-1, 1)
    if how == "none":
        return g
    size = norm(g)
    if how == "rms":
        size = size / g[0].numel() ** 0.5
    return g / like(size + c, g)
