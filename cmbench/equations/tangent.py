"""The tangent df/dt of the consistency function along a trajectory."""

from torch import Tensor

from cmbench.equations.gaussian_path import like


def finite_difference(f_t: Tensor, f_r: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """Return (f(x_t, t) - f(x_r, r)) / (t - r), the tangent that a discrete objective already holds. (B, ...)."""
    return (f_t - f_r) / like(t - r, f_t)


def norm(tangent: Tensor) -> Tensor:
    """Return the L2 norm of each sample's tangent. (B, ...) -> (B,)."""
    return tangent.flatten(1).norm(dim=1)
