"""EDM2's magnitude-preserving U-Net, config G (Karras et al. 2024, section 2 and appendix B; figures 20 to 22).

No layer has a bias, and none normalises groups: sizes of activations are kept by how layers are made
(`layers.magnitude`). The tensors have the names and layouts of the published weights, so these load as they are.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, dropout

from cmbench.config import Channels, Fraction, Ints, Positive
from cmbench.config import Config as BaseConfig
from cmbench.errors import UsageError
from cmbench.layers.attention import attention
from cmbench.layers.embedding import TimeEmbedding, each_time
from cmbench.layers.magnitude import (
    MPFourier,
    MPLayer,
    force_norms,
    mp_cat,
    mp_silu,
    mp_sum,
    mp_time_embedding,
    normalised,
    pixel_norm,
)
from cmbench.layers.norm import pnorm
from cmbench.layers.resampling import doubled
from cmbench.networks._levels import Level, check_heads, check_heights, heads_of, levels_of
from cmbench.networks._pictures import pictures
from cmbench.networks._settings import AttentionHeights, Depth, Multipliers

_LARGEST_SIZE = 2**16
_CLIP = 256.0  # bound of a block's output, as published: half precision overflows beyond 65,504


class Config(BaseConfig):
    """[network] kind = "edm2". The defaults are those of EDM2-S."""

    idle = {"dropout_sizes": ("dropout", (0.0,))}  # noqa: RUF012

    width: Channels = Field(192, ge=2, multiple_of=2, description="channels of a level over its multiplier, even")
    multipliers: Multipliers = (1, 2, 3, 4)
    depth: Depth = 3
    attention: AttentionHeights = (16, 8)
    head_channels: Channels = Field(64, description="channels of an attention head; fewer channels do not attend")
    embedding: TimeEmbedding = Field("fourier", description="time embedding: fourier, as published, or positional")
    embedding_scale: Positive = Field(1.0, description="factor on the embedding's frequencies")
    double_norm: bool = Field(False, description="condition by normalised scale and shift (ADN), not by scale alone")
    label_share: Fraction = Field(0.5, description="share of the label beside the time")
    skip_share: Fraction = Field(0.5, description="share of the skip connection beside what comes from below")
    block_share: Fraction = Field(0.3, description="share of what a block computes beside its input")
    attention_share: Fraction = Field(0.3, description="share of what attention computes beside its input")
    dropout: Fraction = Field(0.0, description="share of a block's channels-times-pixels dropped in training")
    dropout_sizes: Ints = Field((), description="picture heights (pixels) at which blocks drop; empty: all")
    log_variance_channels: int = Field(
        128, ge=0, le=2**16, description="size of the head that predicts the log of the loss; 0: no head"
    )
    class_conditional: bool = Field(False, description="give the network the labels")

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if not all(1 <= size <= _LARGEST_SIZE for size in self.dropout_sizes):
            raise ValueError(f"dropout_sizes: found {list(self.dropout_sizes)}, allowed: from 1 to {_LARGEST_SIZE}")
        return self


class Network(nn.Module):
    """F_theta(x, c_noise, labels) for x (B, C, H, W), divisible by 2 once per level after the first.

    The log-variance head has no gradient until an objective asks for it (`train_log_variance`).

    Raises:
        UsageError: the data are not pictures, cannot be halved that often, or a key names a size that never occurs.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        super().__init__()
        self.unet = UNet(config, shape, classes, times)
        self.logvar_fourier, self.logvar_linear = None, None
        if config.log_variance_channels:
            self.logvar_fourier = MPFourier(config.log_variance_channels)
            self.logvar_linear = MPLayer(config.log_variance_channels, 1).requires_grad_(False)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,) or (B, times), labels (B,) -> (B, C, H, W)."""
        return self.unet(x, c_noise, labels)

    @property
    def time(self) -> nn.Module:
        """The embedding of the first time."""
        return self.unet.emb_fourier

    @property
    def more_times(self) -> nn.ModuleList:
        """The layers of the times after the first."""
        return self.unet.more_times

    def before_step(self) -> None:
        """Set the weights to unit size. See `contracts.PreparesWeights`."""
        force_norms(self)

    def train_log_variance(self) -> None:
        """Let the log-variance head learn. See `contracts.HasLogVariance`.

        Raises:
            UsageError: the network has no head.
        """
        if self.logvar_linear is None:
            raise UsageError("network.log_variance_channels: found 0, allowed for a log variance of the network: above")
        self.logvar_linear.requires_grad_(True)

    def log_variance(self, c_noise: Tensor) -> Tensor:
        """Return u, the log of the size of the loss at c_noise (Karras et al. 2024, section 2.3). (B,) -> (B,)."""
        assert self.logvar_fourier is not None and self.logvar_linear is not None  # noqa: PT018
        return self.logvar_linear(self.logvar_fourier(c_noise)).squeeze(1)


class UNet(nn.Module):
    """The U-Net of `Network`. Its blocks are called by their pictures' size, as the published ones: `16x16_block0`."""

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int) -> None:
        super().__init__()
        colours, size = pictures("edm2", shape)
        levels = levels_of(size, config.width, config.multipliers, config.attention)
        check_heights("dropout_sizes", config.dropout_sizes, levels)
        check_heads(config.head_channels, levels)
        first, embedded = levels[0].channels, max(level.channels for level in levels)
        self.label_share, self.skip_share = config.label_share, config.skip_share
        embedding = config.embedding, first, config.embedding_scale
        self.emb_fourier = mp_time_embedding(*embedding)
        self.emb_noise = MPLayer(first, embedded)
        self.more_times = nn.ModuleList(
            nn.Sequential(mp_time_embedding(*embedding), MPLayer(first, embedded)) for _ in range(times - 1)
        )
        self.emb_label = MPLayer(classes, embedded) if classes else None
        self.enc, skips = _encoder(config, colours, levels, embedded)
        self.dec = _decoder(config, skips, levels, embedded)
        self.out_conv, self.out_gain = MPLayer(first, colours, 3), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,) or (B, times), labels (B,) -> (B, C, H, W)."""
        emb = self.embedded(c_noise, labels)
        h, skips = torch.cat([x, torch.ones_like(x[:, :1])], dim=1), []  # the ones stand in for biases
        for layer in self.enc.values():
            h = layer(h, emb) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for name, layer in self.dec.items():
            if "_block" in name:
                h = mp_cat(h, skips.pop(), self.skip_share)
            h = layer(h, emb)
        return self.out_conv(h, self.out_gain)

    def embedded(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return the embedding of times and labels, (B, embedded). No labels count as a label without content."""
        first, *others = each_time(c_noise)
        emb = self.emb_noise(self.emb_fourier(first))
        for c, layer in zip(others, self.more_times, strict=True):
            emb = mp_sum(emb, layer(c), 0.5)
        if self.emb_label is not None:
            of_label = torch.zeros_like(emb) if labels is None else self.emb_label.unit().T[labels]
            emb = mp_sum(emb, of_label, self.label_share)
        return mp_silu(emb)


def _encoder(config: Config, colours: int, levels: Sequence[Level], embedded: int) -> tuple[nn.ModuleDict, list[int]]:
    """Return the layers from the picture to the lowest level, and the channels of their outputs."""
    c = levels[0].channels
    layers, skips = nn.ModuleDict({f"{levels[0].name}_conv": MPLayer(colours + 1, c, 3)}), [c]
    for level in levels:
        if level is not levels[0]:
            layers[f"{level.name}_down"] = Block(config, level, c, c, embedded, "down")
            skips.append(c)
        for i in range(config.depth):
            layers[f"{level.name}_block{i}"] = Block(config, level, c, level.channels, embedded, "enc", level.attends)
            c = level.channels
            skips.append(c)
    return layers, skips


def _decoder(config: Config, skips: Sequence[int], levels: Sequence[Level], embedded: int) -> nn.ModuleDict:
    """Return the layers from the lowest level to the picture's size, which take up all `skips`."""
    lowest, layers, left = levels[-1], nn.ModuleDict(), [*skips]
    c = lowest.channels
    for i, attends in enumerate((True, False)):
        layers[f"{lowest.name}_in{i}"] = Block(config, lowest, c, c, embedded, "dec", attends)
    for level in reversed(levels):
        if level is not lowest:
            layers[f"{level.name}_up"] = Block(config, level, c, c, embedded, "up")
        for i in range(config.depth + 1):
            layers[f"{level.name}_block{i}"] = Block(
                config, level, c + left.pop(), level.channels, embedded, "dec", level.attends
            )
            c = level.channels
    return layers


Kind = Literal["enc", "down", "dec", "up"]


class Block(nn.Module):
    """x, resampled, beside conv(silu(scale(t) conv(silu(x)))), then attention.

    In the encoder x has its pixels normalised first. s = 1 + gain W emb scales. With `double_norm` it is
    (norm(y) pnorm(s) + pnorm(b)) / sqrt(2) instead, as adaptive double normalisation has it (Lu & Song 2024, section
    4.1), at unit size. b has no gain, which pnorm would take away.
    """

    def __init__(
        self, config: Config, level: Level, c_in: int, c_out: int, embedded: int, kind: Kind, attends: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.double_norm = kind, config.double_norm
        self.block_share, self.attention_share = config.block_share, config.attention_share
        drops = not config.dropout_sizes or level.size[0] in config.dropout_sizes
        self.dropout = config.dropout if drops else 0.0
        self.emb_gain = nn.Parameter(torch.zeros(()))
        self.emb_linear = MPLayer(embedded, (1 + config.double_norm) * c_out)
        self.encodes = kind in ("enc", "down")
        self.conv_res0 = MPLayer(c_out if self.encodes else c_in, c_out, 3)
        self.conv_res1 = MPLayer(c_out, c_out, 3)
        self.conv_skip = MPLayer(c_in, c_out, 1) if c_in != c_out else None
        self.heads = heads_of(c_out, config.head_channels) if attends else 0
        if self.heads:
            self.attn_qkv, self.attn_proj = MPLayer(c_out, 3 * c_out, 1), MPLayer(c_out, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, c_in, H, W), emb (B, embedded) -> (B, c_out, H, W), or half or twice the size."""
        x = _resampled(x, self.kind)
        if self.encodes:
            x = pixel_norm(x if self.conv_skip is None else self.conv_skip(x))
        y = mp_silu(self._conditioned(self.conv_res0(mp_silu(x)), emb))
        y = self.conv_res1(dropout(y, self.dropout, self.training))
        if not self.encodes and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, self.block_share)
        if self.heads:
            x = mp_sum(x, self._attend(x), self.attention_share)
        return x.clamp(-_CLIP, _CLIP)

    def _conditioned(self, y: Tensor, emb: Tensor) -> Tensor:
        if not self.double_norm:
            return y * (1 + self.emb_linear(emb, self.emb_gain))[:, :, None, None].to(y.dtype)
        scale, shift = self.emb_linear(emb).chunk(2, dim=1)
        scale, shift = (pnorm(a)[:, :, None, None].to(y.dtype) for a in (1 + self.emb_gain * scale, shift))
        return mp_sum(pixel_norm(y) * scale, shift, 0.5)

    def _attend(self, x: Tensor) -> Tensor:
        """Return attention over the pixels with queries, keys and values of unit size, whose products are bounded."""
        B, _, H, W = x.shape
        qkv = normalised(self.attn_qkv(x).reshape(B, self.heads, -1, 3, H * W), 2)
        q, k, v = qkv.transpose(2, 4).unbind(dim=3)  # each (B, heads, pixels, channels)
        return self.attn_proj(attention(q, k, v).transpose(2, 3).reshape(x.shape))


def _resampled(x: Tensor, kind: Kind) -> Tensor:
    """Return x (B, C, H, W) at half the size, by means of 2x2 pixels, or at twice the size, by repeating each pixel."""
    if kind == "down":
        return avg_pool2d(x, 2)
    return doubled(x) if kind == "up" else x
