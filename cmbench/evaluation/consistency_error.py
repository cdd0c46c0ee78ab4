"""The distance of a model to the true consistency function, for data with a closed-form denoiser."""

from collections.abc import Callable

import torch
from torch import Tensor

from cmbench.equations.oracle import flow_through

_RTOL = 1e-6  # of the flows: far below the error of any network
_ZERO = 1e-4  # noise level from which the denoiser itself takes the last step to zero


class TrueConsistencyError:
    """||f_theta(x_t, t) - Phi_{t -> 0}(x_t)|| on exact trajectories, which are integrated once.

    One set of trajectories serves all noise levels: its points at a level are distributed like the noisy data of that
    level, and the ends are the same.

    Args:
        denoise: D of the EDM path, (x, sigma) -> E[x_0 | x].
        x_0: (n, ...), data; the trajectories start at these with noise.
        sigmas: (m,), descending noise levels at which f is evaluated.
        epsilon: the noise level at which f is the identity, where the trajectories end; 0 means the limit.
        generator: draws the noise, on the CPU.
    """

    def __init__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x_0: Tensor,
        sigmas: list[float],
        epsilon: float,
        generator: torch.Generator,
    ) -> None:
        noise = torch.randn(x_0.shape, generator=generator, dtype=torch.float64).to(x_0.device)
        start, end = x_0.double() + sigmas[0] * noise, epsilon or min(_ZERO, 0.1 * sigmas[-1])
        passed = flow_through(denoise, start, sigmas[0], [*sigmas, end], _RTOL)
        self.sigmas, self.x = sigmas, passed[:-1].to(x_0.dtype)
        last = passed[-1]
        self.end = (last if epsilon else denoise(last, last.new_full((len(last),), end))).to(x_0.dtype)

    def of(self, f: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
        """Return the mean norm of the error at each noise level. f is a function of the EDM path, (x, sigma)."""
        return self.each(f).mean(dim=1).tolist()

    @torch.no_grad()
    def each(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the norm of each error at each noise level, (m, n). f is a function of the EDM path, (x, sigma)."""
        ends = [f(x, x.new_full((len(x),), sigma)) for x, sigma in zip(self.x, self.sigmas, strict=True)]
        return (torch.stack(ends) - self.end).flatten(2).norm(dim=2)
