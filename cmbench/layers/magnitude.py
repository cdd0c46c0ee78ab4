"""Layers that keep the size of what passes through them (Karras et al. 2024, section 2.2 and 2.3, appendix B).

The size, or magnitude, of a tensor is its root mean square. Weights are used at unit size, whatever their own size is.
So activations neither grow nor shrink, and the learning rate alone says how fast weights turn.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, silu

from cmbench.layers.embedding import Positional, TimeEmbedding

_EPS = 1e-4  # added to each size that something is divided by
_SILU = 0.596  # the size of silu(x) for x ~ N(0, 1); appendix B, eq. 81


def normalised(x: Tensor, dims: int | tuple[int, ...]) -> Tensor:
    """Return x over its root mean square along `dims`, which is taken at least in float32. The shape of x."""
    exact = torch.promote_types(x.dtype, torch.float32)
    size = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=exact)
    over = [dims] if isinstance(dims, int) else dims
    count = math.prod(x.shape[dim] for dim in over)
    return x / (_EPS + size / math.sqrt(count)).to(x.dtype)


def pixel_norm(x: Tensor) -> Tensor:
    """Return x (B, C, ...) with the channels of each pixel at unit size (ibid., eq. 30)."""
    return normalised(x, 1)


def mp_silu(x: Tensor) -> Tensor:
    """Return silu(x) over its size for standard normal x (ibid., eq. 81)."""
    return silu(x) / _SILU


def mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return the weighted sum of a and b, independent and of unit size, at unit size; b has `share` (ibid., eq. 88)."""
    size = math.hypot(1 - share, share)
    return a * ((1 - share) / size) + b * (share / size)


def mp_cat(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return the channels of a and then of b, scaled such that b has `share` of what a layer sees (ibid., eq. 103).

    a (B, M, ...), b (B, N, ...) -> (B, M + N, ...).
    """
    M, N = a.shape[1], b.shape[1]
    whole = math.sqrt((M + N) / ((1 - share) ** 2 + share**2))
    return torch.cat([a * (whole * (1 - share) / math.sqrt(M)), b * (whole * share / math.sqrt(N))], dim=1)


class MPLayer(nn.Module):
    """A linear layer or a k x k convolution, without bias and with weights of unit size (ibid., eq. 47).

    Each output's weights are divided by their norm, so a gradient step turns them but does not scale them. As steps are
    orthogonal to the weights, their own size grows; see `force_norms`.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, *(kernel, kernel)[: 2 * bool(kernel)]))

    def unit(self) -> Tensor:
        """Return the weights with each output's at unit size."""
        return normalised(self.weight, tuple(range(1, self.weight.ndim)))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Return the layer's output times `gain`, a number. x (B, c_in) or (B, c_in, H, W)."""
        weight = self.unit() * (gain / math.sqrt(self.weight[0].numel()))
        if weight.ndim == 2:
            return linear(x, weight)
        return conv2d(x, weight, padding=weight.shape[-1] // 2)


def mp_layers(network: nn.Module) -> Iterator[MPLayer]:
    """Yield the layers of a network that use their weights at unit size."""
    return (module for module in network.modules() if isinstance(module, MPLayer))


@torch.no_grad()
def force_norms(network: nn.Module) -> None:
    """Set the weights themselves to unit size (forced weight normalisation; Karras et al. 2024, section 2.3).

    The network stays the same function. Without it weights grow from step to step, and the effective learning rate
    falls as they do.
    """
    for layer in mp_layers(network):
        layer.weight.copy_(layer.unit())


class MPFourier(nn.Module):
    """sqrt(2) cos(f c + phi), f ~ N(0, (2 pi scale)^2) and phi uniform, drawn once and saved (ibid., eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * scale * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))

    def forward(self, c: Tensor) -> Tensor:
        """Return the embedding in the dtype of the frequencies. c (B,) -> (B, channels)."""
        exact = torch.promote_types(c.dtype, torch.float32)  # large angles need a float64 time
        angle = c.to(exact)[:, None] * self.freqs + self.phases
        return (math.sqrt(2) * angle.cos()).to(self.freqs.dtype)

    def derivative_norm(self) -> float:
        """Return ||d emb / d c||_2, as its root mean square over the phases: sqrt(sum f^2)."""
        return self.freqs.double().norm().item()


class MPPositional(Positional):
    """sqrt(2) times the positional embedding, which gives it unit size at every time; `channels` is even."""

    def forward(self, c: Tensor) -> Tensor:
        """Return the embedding in the dtype of the frequencies. c (B,) -> (B, channels)."""
        return math.sqrt(2) * super().forward(c)

    def derivative_norm(self) -> float:
        """Return ||d emb / d c||_2, which is constant in c."""
        return math.sqrt(2) * super().derivative_norm()


def mp_time_embedding(kind: TimeEmbedding, channels: int, scale: float) -> MPFourier | MPPositional:
    """Return the embedding that a recipe names; `channels` is even."""
    return MPFourier(channels, scale) if kind == "fourier" else MPPositional(channels, scale)
