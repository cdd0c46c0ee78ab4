"""Parameterisations c_skip x + c_out F_theta(c_in x, c_noise) of the EDM path, with and without the boundary.

All functions take the noise level sigma (B,) and return four tensors (B,).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Scalings(NamedTuple):
    """The four coefficients, each (B,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def denoiser_scalings(sigma: Tensor, sigma_data: float) -> Scalings:
    """Return the scalings of the denoiser D: identity at sigma = 0 (Karras et al. 2022, table 1)."""
    variance = sigma.square() + sigma_data**2
    return Scalings(
        c_skip=sigma_data**2 / variance,
        c_out=sigma * sigma_data / variance.sqrt(),
        c_in=variance.rsqrt(),
        c_noise=0.25 * sigma.log(),
    )


def consistency_scalings(sigma: Tensor, sigma_data: float, sigma_min: float) -> Scalings:
    """Return the scalings of the consistency function f: f(x, sigma_min) = x exactly (Song et al. 2023, app. C).

    The numerators are shifted by sigma_min and so is the denominator of c_skip; that of c_out is not.
    """
    variance = sigma.square() + sigma_data**2
    shifted = sigma - sigma_min
    data = torch.full_like(sigma, sigma_data**2)  # a tensor: torch's number / tensor is not exact for a / a
    return Scalings(
        c_skip=data / (shifted.square() + data),
        c_out=shifted * sigma_data / variance.sqrt(),
        c_in=variance.rsqrt(),
        c_noise=0.25 * sigma.log(),
    )
