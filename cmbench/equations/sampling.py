"""Samplers. f and the denoiser are callables (x, sigma) -> x_0 on the EDM path; sigma is a tensor (B,)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from cmbench.equations import pf_ode
from cmbench.equations.gaussian_path import EDM, GaussianPath, like
from cmbench.equations.timesteps import karras_grid
from cmbench.randomness import Part


def consistency_sigmas(steps: int, sigma_min: float, sigma_max: float) -> list[float]:
    """Return the noise levels of a sampler of n = `steps` steps: the Karras grid from sigma_max, without sigma_min."""
    return karras_grid(steps + 1, sigma_min, sigma_max).flip(0)[:-1].tolist()


@torch.no_grad()
def multistep_consistency(
    f: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    sigmas: Sequence[float],
    sigma_min: float,
    generator: torch.Generator | Callable[[], Tensor],
    part: Part | None = None,
) -> Tensor:
    """Sample with f, then add noise and apply f again for each further sigma (Song et al. 2023, alg. 1).

    Args:
        f: the consistency function.
        noise: eps ~ N(0, I), (B, ...); the first point is sigmas[0] * eps.
        sigmas: descending noise levels in (sigma_min, sigma_max]; their number is the number of steps.
        sigma_min: the noise level at which f is the identity; may be 0.
        generator: draws the noise of the further steps on its own device, which may differ from that of f; or a
            function that returns it for each step, (B, ...).
        part: the rows at hand of a larger batch, each of which gets the noise of its place there.
    """
    x = f(sigmas[0] * noise, noise.new_full((len(noise),), sigmas[0]))
    for sigma in sigmas[1:]:
        if isinstance(generator, torch.Generator):
            shape = (part.whole if part else len(x), *x.shape[1:])
            z = torch.randn(shape, dtype=x.dtype, device=generator.device, generator=generator)
            z = (z[part.rows] if part else z).to(x.device)
        else:
            z = generator().to(x.device, x.dtype)
        noisy = x + (sigma**2 - sigma_min**2) ** 0.5 * z
        x = f(noisy, noise.new_full((len(noise),), sigma))
    return x


@torch.no_grad()
def heun_ode(denoiser: pf_ode.Denoiser, noise: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Integrate the PF-ODE down the noise levels with Heun steps, then apply D (Karras et al. 2022, alg. 1).

    Args:
        denoiser: D of the EDM path.
        noise: eps ~ N(0, I), (B, ...).
        sigmas: descending noise levels; the last step, to zero, is an Euler step, which equals D.
    """
    v = pf_ode.velocity(denoiser, EDM())
    x = sigmas[0] * noise
    for sigma, lower in pairwise(sigmas):
        x = pf_ode.heun_step(v, x, noise.new_full((len(x),), sigma), noise.new_full((len(x),), lower))
    return denoiser(x, noise.new_full((len(x),), sigmas[-1]))


def even_sigmas(steps: int, sigma_max: float, path: GaussianPath) -> list[float]:
    """Return the noise levels of `steps` times, evenly spaced from t(sigma_max) down to zero, without zero."""
    start = path.t_of_noise_level(torch.tensor(sigma_max, dtype=torch.float64))
    return path.noise_level(start * torch.arange(steps, 0, -1, dtype=torch.float64) / steps).tolist()


@torch.no_grad()
def average_velocity(
    u: Callable[[Tensor, Tensor, Tensor], Tensor], noise: Tensor, times: Sequence[Tensor], path: GaussianPath
) -> Tensor:
    """Sample by z_r = z_t - (t - r) u(z_t, t, r) from time to time, the last step to r = 0 (Geng et al. 2025, alg. 2).

    Args:
        u: the average velocity, of (B, ...), (B,) and (B,).
        noise: eps ~ N(0, I), (B, ...).
        times: descending times of the path, tensors of one element.
        path: the path; z starts as sigma(t) eps.
    """
    z = like(path.sigma(times[0]), noise) * noise
    for t, r in pairwise([*times, torch.zeros_like(times[0])]):
        z = z - like(t - r, z) * u(z, t.expand(len(z)), r.expand(len(z)))
    return z
