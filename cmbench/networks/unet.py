"""A U-Net for pictures of 8x8 to 64x64: residual blocks conditioned through their norms, with optional attention.

The blocks follow the DDPM++ networks of EDM and consistency models (Song et al. 2021; Karras et al. 2022).
"""

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from cmbench.config import Channels, Fraction, Layers, Positive
from cmbench.config import Config as BaseConfig
from cmbench.layers.attention import attention
from cmbench.layers.embedding import TimeEmbedding, add_times, each_time, more_times, time_embedding
from cmbench.layers.norm import ScaleShift
from cmbench.layers.resampling import doubled
from cmbench.networks._levels import Level, levels_of
from cmbench.networks._pictures import pictures
from cmbench.networks._settings import AttentionHeights, Multipliers

_GROUP_CHANNELS = 8  # channels that share a group norm's statistics


class Config(BaseConfig):
    """[network] kind = "unet"."""

    idle = {"heads": ("attention", ((),))}  # noqa: RUF012

    width: Channels = Field(32, ge=8, multiple_of=8, description="channels of the first level, a multiple of 8")
    multipliers: Multipliers = (1, 2)
    depth: Layers = Field(2, description="residual blocks of each level")
    attention: AttentionHeights = ()
    heads: Channels = Field(1, description="heads of each attention")
    double_norm: bool = Field(False, description="normalise scale and shift of each norm (ADN)")
    embedding: TimeEmbedding = Field("positional", description="time embedding: positional or fourier")
    embedding_scale: Positive = Field(1.0, description="factor on the embedding's frequencies")
    dropout: Fraction = Field(0.0, description="share of a block's channels-times-pixels dropped in training")
    class_conditional: bool = Field(False, description="give the network the labels")

    @model_validator(mode="after")
    def _whole(self) -> "Config":
        if self.width % self.heads:
            raise ValueError(f"heads: found {self.heads}, allowed: a divisor of width {self.width}")
        return self


class Network(nn.Module):
    """F_theta(x, c_noise, labels) for x (B, C, H, W), H and W divisible by 2 once per level after the first.

    Raises:
        UsageError: the data are not pictures, cannot be halved that often, or `attention` names a height that never
            occurs.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        super().__init__()
        colours, size = pictures("unet", shape)
        levels = levels_of(size, config.width, config.multipliers, config.attention)
        embedded = 4 * config.width
        embedding = config.embedding, config.width, config.embedding_scale
        self.time = time_embedding(*embedding)
        self.label = nn.Embedding(classes, config.width) if classes else None
        self.embed = nn.Sequential(
            nn.Linear(config.width, embedded), nn.SiLU(), nn.Linear(embedded, embedded), nn.SiLU()
        )

        def block(c_in: int, level: Level) -> Block:
            heads = config.heads if level.attends else 0
            return Block(c_in, level.channels, embedded, config.dropout, heads, config.double_norm)

        c = levels[0].channels
        self.input = nn.Conv2d(colours, c, 3, padding=1)
        self.down, skips = nn.ModuleList(), [c]
        for level in levels:
            if level is not levels[0]:
                self.down.append(Downsample(c))
                skips.append(c)
            for _ in range(config.depth):
                self.down.append(block(c, level))
                c = level.channels
                skips.append(c)
        self.middle = nn.ModuleList([block(c, levels[-1]) for _ in range(2)])
        self.up = nn.ModuleList()
        for level in reversed(levels):
            for _ in range(config.depth + 1):
                self.up.append(block(c + skips.pop(), level))
                c = level.channels
            if level is not levels[0]:
                self.up.append(Upsample(c))
        self.output = nn.Sequential(_group_norm(c), nn.SiLU(), _zero(nn.Conv2d(c, colours, 3, padding=1)))
        self.more_times = more_times(times, *embedding, embedded)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,) or (B, times), labels (B,) -> (B, C, H, W)."""
        first, *others = each_time(c_noise)
        emb = self.time(first)
        if self.label is not None and labels is not None:
            emb = emb + self.label(labels)
        emb = self.embed[1:](add_times(self.embed[0](emb), others, self.more_times))
        h = self.input(x)
        skips = [h]
        for layer in self.down:
            h = layer(h, emb)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, emb)
        for layer in self.up:
            h = layer(torch.cat([h, skips.pop()], dim=1) if isinstance(layer, Block) else h, emb)
        return self.output(h)


class Block(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x))))))), then attention.

    The second norm is conditioned: y = norm(x) * s(t) + b(t), or with `double_norm` y = norm(x) * pnorm(s(t)) +
    pnorm(b(t)); see ScaleShift. A block starts as its skip connection, which is the identity if c_in = c_out.
    """

    def __init__(
        self, c_in: int, c_out: int, embedded: int, dropout: float, heads: int, double_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm_0, self.conv_0 = _group_norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = ScaleShift(embedded, c_out, double_norm)
        self.norm_1, self.conv_1 = _group_norm(c_out), _zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attention = Attention(c_out, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, c_in, H, W), emb (B, embedded) -> (B, c_out, H, W)."""
        h = self.conv_0(silu(self.norm_0(x)))
        scale, shift = self.affine.pair(emb)
        h = self.norm_1(h) * scale[:, :, None, None] + shift[:, :, None, None]
        h = self.conv_1(self.dropout(silu(h)))
        return self.attention(self.skip(x) + h)


class Attention(nn.Module):
    """x + proj(softmax(q k / sqrt(d)) v) over the pixels. It starts as the identity."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = _group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.proj = _zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> the same shape."""
        B, C, H, W = x.shape
        qkv = self.qkv(self.norm(x)).reshape(B, 3, self.heads, C // self.heads, H * W)
        q, k, v = qkv.transpose(3, 4).unbind(dim=1)
        y = attention(q, k, v)
        return x + self.proj(y.transpose(2, 3).reshape(B, C, H, W))


class Downsample(nn.Module):
    """Halve the size with a strided convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H/2, W/2)."""
        return self.conv(x)


class Upsample(nn.Module):
    """Double the size by repeating pixels, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, 2H, 2W)."""
        return self.conv(doubled(x))


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(max(1, channels // _GROUP_CHANNELS), channels)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
