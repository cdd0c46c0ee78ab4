"""The tangent taken apart: which term of df/dt is large, and at which times (Lu & Song 2024, section 4.1)."""

import math

import torch
from torch import Tensor

from cmbench.contracts import Anatomy
from cmbench.equations import tangent
from cmbench.equations.gaussian_path import like
from cmbench.equations.tangent import Method
from cmbench.layers.embedding import embeddings_of
from cmbench.model import Model
from cmbench.randomness import StepRandom


@torch.no_grad()
def of_f(
    model: Model,
    x_t: Tensor,
    t: Tensor,
    dxdt: Tensor,
    labels: Tensor | None,
    random: StepRandom,
    method: Method = "dual",
    h: float = tangent.STEP,
) -> Anatomy:
    """Return the norms of the terms of df/dt along dxdt for each sample.

    With f = c_skip x_t + c_out F(c_in x_t, c_noise):
        stable      c_skip' x_t + c_skip dx/dt + c_out' F; on TrigFlow -cos(t)(sigma_data F - dx/dt) - sin(t) x_t
        spatial     c_out times the derivative of F through its first argument
        temporal    c_out times the derivative of F through c_noise
    and for the temporal term its `factors`.

    Args:
        model: the model.
        x_t: (b, ...).
        t: (b,).
        dxdt: (b, ...), the velocity that the objective follows.
        labels: (b,) or None.
        random: of the step; both derivatives use its dropout mask, and no other randomness changes.
        method: how to take the derivatives; see `equations.tangent`.
        h: the step of finite differences.
    """
    p = model.parameterisation
    scalings, rates, dc_noise = p.of_f(t), p.d_of_f(t), p.dc_noise(t)
    how = (method, h)
    network = (like(scalings.c_in, x_t) * x_t, p.c_noise(t), labels)
    along_x = like(rates.c_in, x_t) * x_t + like(scalings.c_in, x_t) * dxdt
    with random.dropout(), model.precision(x_t):
        F, spatial = tangent.value_and_derivative(model.network(), network, (along_x, None, None), *how)
    with random.dropout(), model.precision(x_t):
        _, temporal = tangent.value_and_derivative(model.network(), network, (None, dc_noise, None), *how)

    skip, dskip, dout = (like(c, x_t) for c in (scalings.c_skip, rates.c_skip, rates.c_out))
    out = scalings.c_out.abs()
    values = {
        "stable": tangent.norm(dskip * x_t + skip * dxdt + dout * F),
        "spatial": out * tangent.norm(spatial),
        "temporal": out * tangent.norm(temporal),
    }
    return Anatomy(t, values | factors(model, dc_noise, temporal))


def factors(model: Model, dc_noise: Tensor, dF: Tensor) -> dict[str, Tensor]:
    """Return the norms whose product is that of dF/dt through c_noise (Lu & Song 2024, eq. 7), (b,) each.

        dc_noise_dt  |c_noise'(t)|
        demb_dc      ||d emb / d c_noise||, if the network exposes its embeddings; for two times, which both move with
                     t, the norm of the two embeddings concatenated
        dF_demb      ||dF/dt through c_noise|| over the product of the others: the network's gain on the embedding

    Args:
        model: the model.
        dc_noise: (b,), c_noise'(t).
        dF: (b, ...), the derivative of F through c_noise.
    """
    embeddings = embeddings_of(model.F_theta)
    if len(embeddings) < model.times:
        return {"dc_noise_dt": dc_noise.abs()}
    demb = torch.full_like(dc_noise, math.hypot(*(embedding.derivative_norm() for embedding in embeddings)))
    gain = tangent.norm(dF) / (dc_noise.abs() * demb)
    return {"dc_noise_dt": dc_noise.abs(), "demb_dc": demb, "dF_demb": gain}
