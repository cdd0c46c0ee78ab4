"""Embeddings of the time c_noise (B,) -> (B, channels), in float32 at least, whatever the network's precision."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

TimeEmbedding = Literal["positional", "fourier"]


class Positional(nn.Module):
    """Sines and cosines at geometric frequencies from 1 down to 1/10000 (Vaswani et al. 2017, section 3.5)."""

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 1.0) -> None:
        super().__init__()
        exponent = torch.arange(channels // 2) / max(channels // 2 - 1, 1)
        self.register_buffer("frequencies", scale * torch.exp(-math.log(10_000) * exponent), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """Return cos and sin of scale * omega * c."""
        angle = _at_least_float32(c)[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Fourier(nn.Module):
    """Sines and cosines at random frequencies N(0, scale^2), drawn once and kept with the weights.

    emb(c) = sin(2 pi scale omega c + phi) of seed section 5.2; Song et al. 2021 use scale 16, a positional embedding
    amounts to about .02.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(channels // 2))

    def forward(self, c: Tensor) -> Tensor:
        """Return cos and sin of 2 pi scale omega c."""
        angle = 2 * math.pi * _at_least_float32(c)[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def _at_least_float32(c: Tensor) -> Tensor:
    return c.to(torch.promote_types(c.dtype, torch.float32))


def time_embedding(kind: TimeEmbedding, channels: int, scale: float) -> nn.Module:
    """Return the embedding that a recipe names; `channels` is even."""
    return {"positional": Positional, "fourier": Fourier}[kind](channels, scale)
