"""The Fréchet distance between Gaussians (Dowson & Landau 1982), and the moments of many samples, block by block."""

import torch
from torch import Tensor

_AT_ONCE = 8192  # samples of a block


class GaussianSums:
    """Collects blocks of samples, and gives mean and unbiased covariance in float64.

    Blocks are put together by Chan, Golub and LeVeque 1983, which cancels nothing.
    """

    def __init__(self) -> None:
        self.n = 0
        self._mean = self._square = torch.zeros(0, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Add samples x (n, ...), flattened, n > 0."""
        for part in x.flatten(1).split(_AT_ONCE):
            rows = part.double()
            mean = rows.mean(dim=0)
            centred = rows - mean
            square, n = centred.T @ centred, len(rows)
            if self.n:
                total, step = self.n + n, mean - self._mean
                square = self._square + square + torch.outer(step, step) * (self.n * n / total)
                mean = self._mean + step * (n / total)
            self.n, self._mean, self._square = self.n + n, mean, square

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean (d,) and covariance (d, d) of the n > 1 samples."""
        return self._mean, self._square / (self.n - 1)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (d,) and unbiased covariance (d, d) of samples x (n, ...), flattened, n > 1, in float64."""
    sums = GaussianSums()
    sums.add(x)
    return sums.moments()


def squared_distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Return |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of means m (d,) and covariances C (d, d).

    tr (C_1 C_2)^(1/2) is the sum of the roots of the eigenvalues of the symmetric C_1^(1/2) C_2 C_1^(1/2). This needs
    no complex root, and works without full rank, as for fewer samples than dimensions.
    """
    (m_1, C_1), (m_2, C_2) = one, other
    values, axes = torch.linalg.eigh(C_1)
    root = axes * values.clamp_min(0).sqrt() @ axes.T
    crossed = torch.linalg.eigvalsh(root @ C_2 @ root).clamp_min(0).sqrt().sum()
    square = (m_1 - m_2).square().sum() + C_1.trace() + C_2.trace() - 2 * crossed
    return max(float(square), 0.0)
