"""The probability-flow ODE: score, denoiser and velocity of one path, and one step of a solver.

Shapes: x_t, score, denoised, dxdt (B, ...); t (B,).
"""

from collections.abc import Callable

from torch import Tensor

from cmbench.equations.gaussian_path import GaussianPath, like

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x, noise level) -> E[x_0 | x], on the EDM path
Velocity = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> dx_t/dt


def score_from_denoised(denoised: Tensor, x_t: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
    """Return grad log p_t(x_t) = -(x_t - s E[x_0 | x_t]) / sigma^2 (Tweedie; Karras et al. 2022, eq. 3)."""
    return (like(path.s(t), x_t) * denoised - x_t) / like(path.sigma(t), x_t).square()


def velocity_from_score(score: Tensor, x_t: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
    """Return dx_t/dt = (s'/s) x_t - sigma^2 (sigma'/sigma - s'/s) grad log p_t(x_t).

    Equation 4 of Karras et al. 2022, whose sigma is the noise level sigma / s here.
    """
    ds_over_s = like(path.ds(t) / path.s(t), x_t)
    dsigma_over_sigma = like(path.dsigma(t) / path.sigma(t), x_t)
    return ds_over_s * x_t - like(path.sigma(t), x_t).square() * (dsigma_over_sigma - ds_over_s) * score


def velocity_from_denoised(denoised: Tensor, x_t: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
    """Return dx_t/dt = s' E[x_0 | x_t] + sigma' E[eps | x_t]; equal to that from the score, but finite at s = 0."""
    eps = (x_t - like(path.s(t), x_t) * denoised) / like(path.sigma(t), x_t)
    return path.conditional_velocity(denoised, eps, t)


def velocity(denoiser: Denoiser, path: GaussianPath) -> Velocity:
    """Return the marginal velocity v(x_t, t) of a path from an EDM denoiser, by a change of scale and clock."""

    def v(x_t: Tensor, t: Tensor) -> Tensor:
        denoised = denoiser(x_t / like(path.s(t), x_t), path.noise_level(t))
        return velocity_from_denoised(denoised, x_t, t, path)

    return v


def euler_step(v: Velocity, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """Step from time t to r: x_t + (r - t) v(x_t, t). Local error O((t - r)^2)."""
    return x_t + like(r - t, x_t) * v(x_t, t)


def heun_step(v: Velocity, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """Step from time t to r with the mean of the slopes at both ends (Karras et al. 2022, alg. 1). O((t - r)^3)."""
    slope = v(x_t, t)
    x_r = x_t + like(r - t, x_t) * slope
    return x_t + like(r - t, x_t) * 0.5 * (slope + v(x_r, r))


SOLVERS = {"euler": euler_step, "heun": heun_step}
