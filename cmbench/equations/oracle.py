"""Closed-form denoisers E[x_0 | x] of the EDM path, and the exact flow of their PF-ODE.

`pf_ode.velocity` takes them to other paths by a change of scale and clock. An oracle is a teacher without error:
`oracle.denoise(x, sigma)` takes x (B, ...) and sigma (B,) and returns E[x_0 | x] (B, ...). Labels (B,), if given,
condition on the mixture's component or on the points with that label.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cmbench.equations.pf_ode import Denoiser

_LOGITS_AT_ONCE = 2**24  # bounds the (B, points) table in memory: 128 MiB of float64
_FLOAT64_KEPT = 2**25  # numbers: 256 MiB


class GaussianMixture:
    """p(x_0) = sum_k w_k N(m_k, C_k) with full covariances.

    Args:
        weights: (K,), positive, summing to one.
        means: (K, d).
        covariances: (K, d, d), symmetric, positive semi-definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        self.weights, self.means = weights.double(), means.double()
        self.cumulative = self.weights.cumsum(0)  # on the CPU: torch's sum on a GPU is not always reproducible
        self.variances, self.axes = torch.linalg.eigh(covariances.double())  # (K, d), (K, d, d)

    def to(self, device: torch.device) -> "GaussianMixture":
        """Move all tensors, in place."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))
        return self

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x] = sum_k p(k | x) (m_k + C_k (C_k + sigma^2 I)^-1 (x - m_k)). x (B, d) -> (B, d)."""
        y, variance = self._in_axes(x), sigma.double()[:, None, None].square()
        logits = self._log_joint(y, variance)
        if labels is not None:
            others = torch.arange(len(self.weights), device=x.device) != labels[:, None]
            logits = logits.masked_fill(others, -torch.inf)
        shrunk = y * self.variances / (self.variances + variance)
        posterior_means = self.means + torch.einsum("kde,bke->bkd", self.axes, shrunk)
        return torch.einsum("bk,bkd->bd", logits.softmax(dim=1), posterior_means).to(x.dtype)

    def component(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the most likely component of each point at its noise level. x (B, d), sigma (B,) -> (B,)."""
        return self._log_joint(self._in_axes(x), sigma.double()[:, None, None].square()).argmax(dim=1)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n points (n, d) and their components (n,), on the generator's device."""
        device = generator.device
        u = torch.rand(n, dtype=torch.float64, generator=generator, device=device)
        k = torch.searchsorted(self.cumulative.to(device), u).clamp_max(len(self.weights) - 1)
        z = torch.randn(n, self.means.shape[1], dtype=torch.float64, generator=generator, device=device)
        scaled = self.variances.to(device)[k].clamp_min(0).sqrt() * z
        return self.means.to(device)[k] + torch.einsum("bde,be->bd", self.axes.to(device)[k], scaled), k

    def _in_axes(self, x: Tensor) -> Tensor:
        """Return x - m_k in the axes of C_k. (B, d) -> (B, K, d)."""
        return torch.einsum("kde,bkd->bke", self.axes, x.double()[:, None] - self.means)

    def _log_joint(self, y: Tensor, variance: Tensor) -> Tensor:
        """Return log w_k + log N(x; m_k, C_k + sigma^2 I). (B, K, d) -> (B, K)."""
        total = self.variances + variance
        return self.weights.log() - 0.5 * (y.square() / total + (2 * torch.pi * total).log()).sum(dim=2)


class FinitePoints:
    """p(x_0) uniform over a finite data set: E[x_0 | x] is a softmax over the points.

    It visits the points in chunks with a running maximum, so that 60,000 pictures fit in memory. Squared distances are
    float64, for at sigma = .002 the logits divide them by 8e-6.

    Args:
        points: (M, ...).
        labels: (M,), needed only for conditional denoising.
    """

    def __init__(self, points: Tensor, labels: Tensor | None = None) -> None:
        self.points, self.labels = points, labels
        self._kept: tuple[Tensor, Tensor] | None = None

    def to(self, device: torch.device) -> "FinitePoints":
        """Move all tensors, in place."""
        self.points, self._kept = self.points.to(device), None
        self.labels = None if self.labels is None else self.labels.to(device)
        return self

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return E[x_0 | x] = sum_i softmax_i(-||x - x_i||^2 / (2 sigma^2)) x_i. x (B, ...) -> (B, ...)."""
        flat, precision = x.flatten(1).double(), 0.5 / sigma.double().square()[:, None]
        top = flat.new_full((len(x), 1), -torch.inf)
        total = flat.new_zeros((len(x), 1))
        mean = torch.zeros_like(flat)
        chunk = max(1, _LOGITS_AT_ONCE // max(len(x), flat.shape[1]))
        for start in range(0, len(self.points), chunk):
            points, squares = self._in_float64(slice(start, start + chunk))
            logits = -precision * _squared_distances(flat, points, squares)
            if labels is not None:
                logits = self._only(logits, labels, start)
            new_top = torch.maximum(top, logits.amax(dim=1, keepdim=True))
            safe_top = new_top.nan_to_num(neginf=0.0)  # a chunk may have no point with the label
            rescale, weights = (top - safe_top).exp(), (logits - safe_top).exp()
            total = total * rescale + weights.sum(dim=1, keepdim=True)
            mean = mean * rescale + weights @ points
            top = new_top
        return (mean / total).to(x.dtype).view_as(x)

    def _in_float64(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return points (m, d) and their squared norms (m,). Few enough points are converted once and kept.

        An integrator asks some hundred times: for 6,000 patches the conversion took four fifths of its time.
        """
        if self.points.numel() > _FLOAT64_KEPT:
            points = self.points[rows].flatten(1).double()
            return points, points.square().sum(dim=1)
        if self._kept is None:
            whole = self.points.flatten(1).double()
            self._kept = whole, whole.square().sum(dim=1)
        return self._kept[0][rows], self._kept[1][rows]

    def _only(self, logits: Tensor, labels: Tensor, start: int) -> Tensor:
        """Mask the points of a chunk with another label."""
        if self.labels is None:
            raise ValueError("the points have no labels")
        here = self.labels[start : start + logits.shape[1]]
        return logits.masked_fill(here != labels[:, None], -torch.inf)


def _squared_distances(x: Tensor, points: Tensor, squares: Tensor) -> Tensor:
    """Return ||x_b - y_i||^2 in float64 by one matrix product. (B, d), (M, d), ||y_i||^2 (M,) -> (B, M)."""
    both = x.square().sum(dim=1, keepdim=True) + squares
    return (both - 2 * x @ points.T).clamp_min_(0)


def flow(denoiser: Denoiser, x: Tensor, sigma_from: float, sigma_to: float, rtol: float = 1e-10) -> Tensor:
    """Return the exact PF-ODE flow of x (B, ...) from one noise level to another, up or down. See `flow_through`."""
    return flow_through(denoiser, x, sigma_from, [sigma_to], rtol)[0]


def flow_through(
    denoiser: Denoiser, x: Tensor, sigma_from: float, sigmas: Sequence[float], rtol: float = 1e-10
) -> Tensor:
    """Return the points of the exact PF-ODE trajectories of x at some noise levels, by scipy's DOP853 in u = log sigma.

    In u the ODE dx/dsigma = (x - D) / sigma becomes dx/du = x - D(x, e^u), which has no singularity.

    Args:
        denoiser: D of the EDM path, evaluated in float64.
        x: (B, ...) at noise level `sigma_from`.
        sigma_from: in (0, inf).
        sigmas: (n,), in (0, inf), ascending or descending from `sigma_from`; the result is (n, B, ...).
        rtol: relative and absolute tolerance of the integrator.

    Raises:
        ArithmeticError: the integrator gave up, or the denoiser is not finite.
    """
    from scipy.integrate import solve_ivp  # here because it is slow to import and training does not need it

    def dxdu(u: float, y: np.ndarray) -> np.ndarray:
        points = torch.from_numpy(y).to(x.device).view(x.shape)
        sigma = points.new_full((len(x),), float(np.exp(u)))
        slope = (points - denoiser(points, sigma)).flatten().cpu().numpy()
        if not np.isfinite(slope).all():  # otherwise scipy would shorten its step for ever
            raise ArithmeticError(f"the PF-ODE could not be integrated: not finite at noise level {np.exp(u):.3g}")
        return slope

    u = np.log(np.array(sigmas, dtype=np.float64))
    start = x.double().flatten().cpu().numpy()
    span = (float(np.log(sigma_from)), float(u[-1]))
    solution = solve_ivp(dxdu, span, start, method="DOP853", t_eval=u, rtol=rtol, atol=rtol)
    if not solution.success:
        raise ArithmeticError(f"the PF-ODE could not be integrated: {solution.message}")
    return torch.from_numpy(solution.y.T.copy()).to(x.device, x.dtype).view(len(u), *x.shape)
