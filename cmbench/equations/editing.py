"""Editing without training (Song et al. 2023, algorithm 4 and appendix D), on any Gaussian path.

f is a callable (x_t, t) -> x_0 on the path; pictures x and y are (B, ...), times t are tensors of one element. An
orthogonal A takes a picture to numbers of which the mask Omega says what is missing, 1, and what is known, 0:

    inpainting        A = identity, Omega = 1 at the missing pixels
    colourisation     A = Q over the channels, first column the luminance; Omega = 1 at the two others
    super-resolution  A = Q over each p x p patch, first column 1/p, the patch's mean times p; Omega = 1 at the others
    strokes           A = identity, Omega = 1 everywhere, from a middle noise level

The algorithm is approximate: f does not know what is known, and pixels are only put back between its evaluations. So
its results are no draws from p(x | known), even with the exact f. docs/editing.md has figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from cmbench.equations import pf_ode
from cmbench.equations.gaussian_path import EDM, GaussianPath, like

Consistency = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> x_0, on the path
LUMINANCE = (0.2989, 0.5870, 0.1140)  # of red, green and blue (Song et al. 2023, appendix D)
_PARALLEL = 1e-6  # radians between latents, below which the great circle is the straight line


@dataclass(frozen=True)
class Transform:
    """An orthogonal A with its inverse, pictures (B, ...) to numbers (B, ...), and the mask Omega of those.

    Attributes:
        A: the transform.
        inverse: A^-1.
        omega: boolean, true at what is missing; it is broadcast against the numbers.
    """

    A: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    omega: Tensor

    def merged(self, y: Tensor, x: Tensor | float) -> Tensor:
        """Return A^-1 [ (A y) (1 - Omega) + (A x) Omega ]: what is known from y, the rest from x. (B, ...).

        It selects instead of multiplying: with A = identity known pixels stay equal to the last bit.
        """
        missing = self.A(x) if isinstance(x, Tensor) else torch.full_like(self.A(y), x)
        return self.inverse(torch.where(self.omega.to(y.device), missing, self.A(y)))


def inpainting(missing: Tensor) -> Transform:
    """Return A = identity and Omega = `missing`, boolean, which is broadcast against (B, ...)."""
    return Transform(lambda x: x, lambda x: x, missing)


def colourisation() -> Transform:
    """Return A = Q over the three channels of (B, 3, H, W); the luminance is known, the other two are missing."""
    Q = orthogonal(torch.tensor(LUMINANCE, dtype=torch.float64))
    omega = torch.tensor([False, True, True])[:, None, None]
    return Transform(
        lambda x: torch.einsum("blij,lk->bkij", x, Q.to(x)), lambda y: torch.einsum("bkij,lk->blij", y, Q.to(y)), omega
    )


def superresolution(p: int) -> Transform:
    """Return A = Q over each p x p patch of (B, C, H, W); its mean is known. p divides H and W.

    A takes pictures to (B, C, p^2, H/p, W/p). `merged(y, 0)` has each patch's mean in all of its pixels.
    """
    Q = orthogonal(torch.full((p * p,), 1 / p, dtype=torch.float64))
    omega = (torch.arange(p * p) > 0)[:, None, None]

    def A(x: Tensor) -> Tensor:  # noqa: N802
        patches = pixel_unshuffle(x, p).unflatten(1, (x.shape[1], p * p))
        return torch.einsum("bcmij,mk->bckij", patches, Q.to(x))

    def inverse(y: Tensor) -> Tensor:
        return pixel_shuffle(torch.einsum("bckij,mk->bcmij", y, Q.to(y)).flatten(1, 2), p)

    return Transform(A, inverse, omega)


def orthogonal(first: Tensor) -> Tensor:
    """Return an orthogonal matrix (d, d) whose first column is `first` (d,), scaled to length 1; d > 1.

    By QR, that is by Householder's reflections, as the paper builds its Q. The other columns are any completion: no
    result but for its rounding and its draws depends on them.
    """
    matrix = torch.eye(len(first), dtype=first.dtype)
    matrix[:, 0] = first
    Q, R = torch.linalg.qr(matrix)
    return Q * R[0, 0].sign()


def grey(x: Tensor) -> Tensor:
    """Return the grey picture of a colourful one, all of whose channels are 0.2989 R + 0.587 G + 0.114 B. (B, 3, H, W).

    The weights sum to .9999. They are scaled to sum to one, so that white stays white.
    """
    weights = torch.tensor(LUMINANCE, dtype=torch.float64)
    weights = (weights / weights.sum()).to(x)
    return torch.einsum("bcij,c->bij", x, weights)[:, None].expand_as(x)


def noised(x: Tensor, z: Tensor, t: Tensor, path: GaussianPath, epsilon: float = 0.0) -> Tensor:
    """Return a point at time t of a path from pictures x at noise level epsilon, and z ~ N(0, I). (B, ...).

    x_t = s(t) x + sqrt(sigma(t)^2 - s(t)^2 epsilon^2) z. On the EDM path this is x + sqrt(t^2 - epsilon^2) z.
    """
    spread = (path.sigma(t).square() - (path.s(t) * epsilon).square()).clamp_min(0).sqrt()
    return like(path.s(t), x) * x + like(spread, x) * z


@torch.no_grad()
def edited(
    f: Consistency,
    y: Tensor,
    transform: Transform,
    times: Sequence[Tensor],
    path: GaussianPath,
    epsilon: float,
    draw: Callable[[], Tensor],
) -> Tensor:
    """Edit a picture y by zero-shot editing (Song et al. 2023, algorithm 4). (B, ...) -> (B, ...).

    Args:
        f: the consistency function.
        y: the reference. What Omega calls missing is not looked at.
        transform: A, its inverse and Omega.
        times: descending t_1 > ... > t_N of the path, each a tensor of one element.
        path: the path of f.
        epsilon: the noise level at which f is the identity; may be 0.
        draw: returns z ~ N(0, I), (B, ...); it is called once for each time.
    """
    y = transform.merged(y, 0.0)
    return _refined(f, y, lambda x: transform.merged(y, x), times, path, epsilon, draw)


@torch.no_grad()
def painted(
    f: Consistency,
    y: Tensor,
    times: Sequence[Tensor],
    path: GaussianPath,
    epsilon: float,
    draw: Callable[[], Tensor],
) -> Tensor:
    """Make a picture that follows a painting y: algorithm 4 with Omega = 1 from a middle time t_1. (B, ...).

    Only the noise at t_1 lets y through (SDEdit, Meng et al. 2022). Line 2 of algorithm 4 would set all of y to zero
    where Omega = 1, so it is left out, as in the paper's results. Arguments are those of `edited`.
    """
    return _refined(f, y, lambda x: x, times, path, epsilon, draw)


def _refined(
    f: Consistency,
    y: Tensor,
    merged: Callable[[Tensor], Tensor],
    times: Sequence[Tensor],
    path: GaussianPath,
    epsilon: float,
    draw: Callable[[], Tensor],
) -> Tensor:
    x = merged(f(noised(y, draw(), times[0], path), times[0].expand(len(y))))
    for t in times[1:]:
        x = merged(f(noised(x, draw(), t, path, epsilon), t.expand(len(y))))
    return x


@torch.no_grad()
def interpolated(f: Consistency, z_1: Tensor, z_2: Tensor, shares: Sequence[float], t: Tensor) -> Tensor:
    """Return f of the points between two latents on a great circle (Song et al. 2023, appendix D). (n, B, ...).

    In the paper the latents are those that two samples were drawn from. It does not say which latents given pictures
    have, and f has no inverse that it could be asked for. So they come from one of these:

    - `latents_by_noise`, for a consistency function alone;
    - `latents_by_ode`, where the velocity of the PF-ODE is known: diffusion models and average velocities.

    Args:
        f: the consistency function.
        z_1, z_2: (B, ...), points at time t.
        shares: of the second latent, 0 to 1 each; their number is n.
        t: the time of the latents, of one element.
    """
    return torch.stack([f(slerp(z_1, z_2, share), t.expand(len(z_1))) for share in shares])


def slerp(z_1: Tensor, z_2: Tensor, share: float) -> Tensor:
    """Return sin((1 - a) psi) / sin(psi) z_1 + sin(a psi) / sin(psi) z_2, psi the angle between them. (B, ...)."""
    cosine = torch.cosine_similarity(z_1.flatten(1).double(), z_2.flatten(1).double(), dim=1)
    psi = cosine.clamp(-1, 1).acos()
    straight = psi < _PARALLEL
    whole = torch.where(straight, 1.0, psi.sin())
    first = torch.where(straight, 1 - share, ((1 - share) * psi).sin() / whole)
    second = torch.where(straight, share, (share * psi).sin() / whole)
    return like(first, z_1) * z_1 + like(second, z_2) * z_2


def latents_by_noise(x: Tensor, z: Tensor, t: Tensor, path: GaussianPath) -> Tensor:
    """Return latents at a middle time: the pictures with noise, x_t = s(t) x + sigma(t) z. (B, ...).

    Both ends of an interpolation get the same z, so that the way between them is one of pictures, not of noise. f of
    such a latent is near x at small t, and forgets x at large t: ends are met only roughly.
    """
    return noised(x, z, t, path)


@torch.no_grad()
def latents_by_ode(denoiser: pf_ode.Denoiser, x: Tensor, sigmas: Sequence[float], path: GaussianPath) -> Tensor:
    """Return latents by integrating the PF-ODE up the noise levels with Heun steps. (B, ...).

    The solver runs on the EDM path; the result is scaled to the path by s(t).

    Args:
        denoiser: D of the EDM path.
        x: (B, ...), taken to be at noise level sigmas[0].
        sigmas: ascending noise levels, all positive.
        path: the path of the latents.
    """
    v = pf_ode.velocity(denoiser, EDM())
    for lower, sigma in pairwise(sigmas):
        x = pf_ode.heun_step(v, x, x.new_full((len(x),), lower), x.new_full((len(x),), sigma))
    t = path.t_of_noise_level(torch.tensor([sigmas[-1]], dtype=torch.float64, device=x.device))
    return like(path.s(t), x) * x
