"""A network on a path: the consistency function f_theta and the denoiser D_theta made from one F_theta."""

import torch
from torch import Tensor, nn

from cmbench.equations import boundary
from cmbench.equations.boundary import Scalings
from cmbench.equations.gaussian_path import GaussianPath, like

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}


class Model(nn.Module):
    """F_theta with the parameterisations of its path.

    Every method takes x_t (B, ...), t (B,), labels (B,) or None, on the model's own path, and returns (B, ...).
    Inputs are brought to the EDM path by x_t / s(t) and sigma(t) / s(t). F_theta alone runs in the chosen
    precision; times and scalings stay as they are given.

    Args:
        F_theta: the raw network.
        shape: the shape of one sample, e.g. (1, 8, 8) or (2,).
        path: the path of x_t and t.
        sigma_data: standard deviation of the data.
        sigma_min: noise level at which f is the identity.
        sigma_max: noise level at which sampling starts.
        precision: "float32" or "bfloat16" (autocast).
    """

    def __init__(
        self,
        F_theta: nn.Module,
        shape: tuple[int, ...],
        path: GaussianPath,
        sigma_data: float,
        sigma_min: float,
        sigma_max: float,
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.F_theta, self.shape, self.path = F_theta, shape, path
        self.sigma_data, self.sigma_min, self.sigma_max = sigma_data, sigma_min, sigma_max
        self.autocast = AUTOCAST[precision]

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return f_theta(x_t, t) = c_skip x + c_out F_theta(c_in x, c_noise), exactly x at sigma_min."""
        sigma = self.path.noise_level(t)
        scalings = boundary.consistency_scalings(sigma, self.sigma_data, self.sigma_min)
        return self._parameterised(x_t / like(self.path.s(t), x_t), scalings, labels)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return D_theta(x_t, t), the estimate of E[x_0 | x_t]."""
        scalings = boundary.denoiser_scalings(self.path.noise_level(t), self.sigma_data)
        return self._parameterised(x_t / like(self.path.s(t), x_t), scalings, labels)

    def _parameterised(self, x: Tensor, scalings: Scalings, labels: Tensor | None) -> Tensor:
        c_skip, c_out, c_in = (like(c, x) for c in scalings[:3])
        with torch.autocast(x.device.type, self.autocast, enabled=self.autocast is not None):
            F = self.F_theta(c_in * x, scalings.c_noise, labels)
        return c_skip * x + c_out * F.to(x.dtype)
