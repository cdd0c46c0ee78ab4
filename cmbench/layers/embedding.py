"""Embeddings of a time c_noise (B,) -> (B, channels), at least in float32 whatever the network's precision."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

TimeEmbedding = Literal["positional", "fourier"]


class Positional(nn.Module):
    """Sines and cosines at geometric frequencies from 1 down to 1/10000 (Vaswani et al. 2017, section 3.5).

    Args:
        channels: length of the embedding, even.
        scale: factor on the frequencies.
        endpoint: whether the last frequency is 1/10000; otherwise that would be the next one.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 1.0, endpoint: bool = True) -> None:
        super().__init__()
        exponent = torch.arange(channels // 2) / max(channels // 2 - endpoint, 1)
        self.register_buffer("frequencies", scale * torch.exp(-math.log(10_000) * exponent), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """Return cos and sin of scale * omega * c, in the dtype of the frequencies."""
        return _cos_and_sin(c, self.frequencies, 1.0)

    def derivative_norm(self) -> float:
        """Return ||d emb / d c||_2 = sqrt(sum (scale omega)^2), which is constant in c."""
        return self.frequencies.double().norm().item()


class Fourier(nn.Module):
    """Sines and cosines at random frequencies N(0, scale^2), drawn once and saved with the weights.

    emb(c) = sin(2 pi scale omega c + phi) (Lu & Song 2024, section 4.1). Song et al. 2021 use scale 16; a positional
    embedding corresponds to a scale of about .02.
    """

    frequencies: Tensor

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("frequencies", scale * torch.randn(channels // 2))

    def forward(self, c: Tensor) -> Tensor:
        """Return cos and sin of 2 pi scale omega c, in the dtype of the frequencies."""
        return _cos_and_sin(c, self.frequencies, 2 * math.pi)

    def derivative_norm(self) -> float:
        """Return ||d emb / d c||_2 = 2 pi sqrt(sum (scale omega)^2), which is constant in c."""
        return 2 * math.pi * self.frequencies.double().norm().item()


def _cos_and_sin(c: Tensor, frequencies: Tensor, turn: float) -> Tensor:
    """Take the angles in the dtype of c, as large ones need a float64 time; return the dtype of the frequencies."""
    angle = turn * c.to(torch.promote_types(c.dtype, torch.float32))[:, None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=1).to(frequencies.dtype)


def time_embedding(kind: TimeEmbedding, channels: int, scale: float, endpoint: bool = True) -> Positional | Fourier:
    """Return the embedding that a recipe names; `channels` is even. See Positional for `endpoint`."""
    return Positional(channels, scale, endpoint) if kind == "positional" else Fourier(channels, scale)


def more_times(times: int, kind: TimeEmbedding, channels: int, scale: float, width: int) -> nn.ModuleList:
    """Return the layers for the times after the first: for each an embedding and a first linear layer.

    Their outputs (B, width) are added to that of the first time. (Geng et al. 2025, section 4.1, condition on t and
    t - r; their table 1c compares the choices.)
    """
    return nn.ModuleList(
        nn.Sequential(time_embedding(kind, channels, scale), nn.Linear(channels, width)) for _ in range(times - 1)
    )


def embeddings_of(network: nn.Module) -> list[Any]:
    """Return the embedding of each time, as far as the network exposes them and their steepness.

    They are `time` and the first layer of each of `more_times`, if they have a derivative_norm().
    """
    more = getattr(network, "more_times", None)
    found = [getattr(network, "time", None), *(layers[0] for layers in more or ())]
    return [embedding for embedding in found if hasattr(embedding, "derivative_norm")]


def add_times(h: Tensor, others: Sequence[Tensor], layers: nn.ModuleList) -> Tensor:
    """Return h (B, width) of the first time plus the output of `more_times` for each other time, (B,) each."""
    for c, layer in zip(others, layers, strict=True):
        h = h + layer(c)
    return h


def each_time(c_noise: Tensor) -> tuple[Tensor, ...]:
    """Split c_noise, (B,) for one time or (B, times), into (B,) for each."""
    return (c_noise,) if c_noise.ndim == 1 else c_noise.unbind(dim=1)
