"""How much a consistency function varies along the trajectories that it was distilled from."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cmbench.equations.oracle import flow_through

_RTOL = 1e-5  # of the flows: above the rounding of a float32 teacher, below the error of any student


class SelfConsistencyError:
    """||f_theta(x_t, t) - f_theta(x_s, s)|| for neighbouring points of a trajectory of the teacher's PF-ODE.

    Consistency means f(x_t, t) = f(x_s, s) there (Song et al. 2023, definition 1). Unlike the distance to the end of
    the trajectory, it shows at which times f changes. The sum over all pairs is at least that distance.

    Args:
        denoise: the teacher's D of the EDM path, (x, sigma) -> E[x_0 | x], in the dtype of x.
        x_0: (n, ...), data; the trajectories start at these with noise.
        sigmas: (m,), descending noise levels, m > 1.
        generator: draws the noise, on the CPU.
    """

    def __init__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        x_0: Tensor,
        sigmas: Sequence[float],
        generator: torch.Generator,
    ) -> None:
        def in_its_type(x: Tensor, sigma: Tensor) -> Tensor:
            return denoise(x.to(x_0.dtype), sigma.to(x_0.dtype)).double()

        noise = torch.randn(x_0.shape, generator=generator, dtype=torch.float64).to(x_0.device)
        self.sigmas, start = sigmas, x_0.double() + sigmas[0] * noise
        self.x = flow_through(torch.no_grad()(in_its_type), start, sigmas[0], sigmas, _RTOL).to(x_0.dtype)

    @torch.no_grad()
    def each(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the change of f from each noise level to the next, (m - 1, n), for f on the EDM path, (x, sigma)."""
        ends = [f(x, x.new_full((len(x),), sigma)) for x, sigma in zip(self.x, self.sigmas, strict=True)]
        return torch.stack(ends).diff(dim=0).flatten(2).norm(dim=2)
