"""Parameterisations: how one raw network F_theta gives the denoiser D and the consistency function f on a path.

    D or f (x_t, t) = c_skip(t) x_t + c_out(t) F_theta(c_in(t) x_t, c_noise(t))

On the EDM path these are the published scalings. Any other path has the same functions in its own scale and clock, so
one network is the same denoiser on all paths. With the noise level n = sigma(t) / s(t):

    edm        c_in = 1 / sqrt(n^2 + sigma_data^2), c_skip = sigma_data^2 c_in^2, c_out = sigma_data n c_in
    trigflow   the same with F = v / sigma_data, that is c_out < 0 (Lu & Song 2024, section 3)
    linear     F = v of the straight path: c_in = c_skip = 1 / (1 + n), c_out = -n / (1 + n) (Lipman et al. 2023)
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cmbench.equations.gaussian_path import GaussianPath, like

ScalingsName = Literal["edm", "trigflow", "linear"]
NoiseName = Literal["identity", "angle", "log", "log_1000"]


class Scalings(NamedTuple):
    """Three coefficients, each (B,): the factors of x_t, of F_theta, and of x_t as the input of F_theta."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor


@dataclass(frozen=True)
class Parameterisation:
    """The scalings of a path and their derivatives in t. All methods take t (B,).

    Attributes:
        path: the path of x_t and t.
        sigma_data: standard deviation of the data.
        scalings: "edm", "trigflow" or "linear".
        epsilon: the noise level at which f is the identity. Above 0 it shifts the numerators of f's scalings and the
            denominator of c_skip, but not that of c_out (Song et al. 2023, appendix C).
        noise: the time input of the network: "identity" (t of the path), "angle" (arctan n / sigma_data, which is
            TrigFlow's t), "log" (ln(n) / 4, Karras et al. 2022, table 1), "log_1000" (1000 times that, as in
            openai/consistency_models).
    """

    path: GaussianPath
    sigma_data: float
    scalings: ScalingsName = "edm"
    epsilon: float = 0.0
    noise: NoiseName = "log"

    def __post_init__(self) -> None:
        """Refuse combinations that no paper defines."""
        if self.scalings == "linear" and self.epsilon:
            raise ValueError("linear scalings have no shifted form: f is the identity at 0 alone")

    @property
    def sign(self) -> float:
        """The sign of c_out."""
        return 1.0 if self.scalings == "edm" else -1.0

    def c_in(self, t: Tensor) -> Tensor:
        """Return c_in, which gives the network's input unit variance (edm, trigflow)."""
        s, sigma = self.path.s(t), self.path.sigma(t)
        if self.scalings == "linear":
            return 1 / (s + sigma)
        return torch.rsqrt(sigma.square() + (self.sigma_data * s).square())

    def dc_in(self, t: Tensor) -> Tensor:
        """Return c_in'(t)."""
        s, sigma, ds, dsigma = self.path.s(t), self.path.sigma(t), self.path.ds(t), self.path.dsigma(t)
        if self.scalings == "linear":
            return -self.c_in(t).square() * (ds + dsigma)
        return -self.c_in(t).pow(3) * (sigma * dsigma + self.sigma_data**2 * s * ds)

    def of_D(self, t: Tensor) -> Scalings:  # noqa: N802
        """Return the scalings of the denoiser D, which is the identity at noise level 0."""
        s, sigma, c_in = self.path.s(t), self.path.sigma(t), self.c_in(t)
        if self.scalings == "linear":
            return Scalings(c_in, -sigma * c_in, c_in)
        return Scalings(self.sigma_data**2 * s * c_in.square(), self.sign * self.sigma_data * sigma * c_in, c_in)

    def of_f(self, t: Tensor) -> Scalings:
        """Return the scalings of the consistency function f, which is x_t / s(t) at noise level epsilon.

        This is exact on the EDM path, whose time is the noise level. On other paths the time of epsilon is rounded:
        s c_skip is 1 to within 6e-8 in float32 and 1.1e-16 in float64, and c_out is 0 to within 1e-8 and 2e-17.
        """
        if not self.epsilon:
            return self.of_D(t)
        s, c_in, shifted = self.path.s(t), self.c_in(t), self.path.noise_level(t) - self.epsilon
        data = torch.full_like(t, self.sigma_data**2)  # a tensor: torch's number / tensor is not exact for a / a
        c_skip = data / (shifted.square() + data)
        return Scalings(c_skip / s, self.sign * self.sigma_data * shifted * s * c_in, c_in)

    def d_of_f(self, t: Tensor) -> Scalings:
        """Return the derivatives in t of the scalings of f."""
        s, sigma, ds, dsigma = self.path.s(t), self.path.sigma(t), self.path.ds(t), self.path.dsigma(t)
        c, dc = self.c_in(t), self.dc_in(t)
        if self.scalings == "linear":
            return Scalings(dc, -(dsigma * c + sigma * dc), dc)
        data, out = self.sigma_data**2, self.sign * self.sigma_data
        if not self.epsilon:
            return Scalings(data * (ds * c.square() + 2 * s * c * dc), out * (dsigma * c + sigma * dc), dc)
        n = self.path.noise_level(t)
        shifted, dn = n - self.epsilon, (dsigma - n * ds) / s
        skip = data / (shifted.square() + data)
        dskip = -2 * shifted * dn * skip.square() / data
        return Scalings(
            dskip / s - skip * ds / s.square(),
            out * (dn * s * c + shifted * ds * c + shifted * s * dc),
            dc,
        )

    def c_noise(self, t: Tensor) -> Tensor:
        """Return the time input of the network."""
        if self.noise == "identity":
            return t
        if self.noise == "angle":
            return torch.atan2(self.path.sigma(t), self.sigma_data * self.path.s(t))
        return (0.25 if self.noise == "log" else 250.0) * self.path.noise_level(t).log()

    def dc_noise(self, t: Tensor) -> Tensor:
        """Return c_noise'(t)."""
        if self.noise == "identity":
            return torch.ones_like(t)
        s, sigma, ds, dsigma = self.path.s(t), self.path.sigma(t), self.path.ds(t), self.path.dsigma(t)
        if self.noise == "angle":
            squares = sigma.square() + (self.sigma_data * s).square()
            return self.sigma_data * (dsigma * s - sigma * ds) / squares
        return (0.25 if self.noise == "log" else 250.0) * (dsigma / sigma - ds / s)


def combined(scalings: Scalings, x_t: Tensor, F: Tensor) -> Tensor:
    """Return c_skip x_t + c_out F in the dtype of x_t. (B, ...)."""
    c_skip, c_out = (like(c, x_t) for c in scalings[:2])
    return c_skip * x_t + c_out * F.to(x_t.dtype)
