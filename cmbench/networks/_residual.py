"""The residual blocks of DDPM++, NCSN++ and ADM, which also change the size of pictures.

Song et al. 2021, appendix H; Dhariwal & Nichol 2021, section 3; the three in one form: Karras et al. 2022, appendix F.
Modules have the names of the published weights, so that these load by name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, silu

from cmbench.layers.attention import attention
from cmbench.layers.norm import ScaleShift

_GROUPS, _GROUP_CHANNELS = 32, 4  # of a group norm: at most, and at least
Direction = Literal["up", "down"]
QkvOrder = Literal["by_channel", "by_head", "whole"]


@dataclass(frozen=True)
class Style:
    """What the blocks of a network have in common.

    Attributes:
        embedded: length of the embedding.
        dropout: share of a block's channels-times-pixels dropped in training.
        heads: the number of heads of an attention over so many channels; 0: no attention.
        taps: the resampling filter along each side.
        eps: of the group norms.
        skip_scale: factor on the sum of a branch and its skip connection.
        adaptive: whether the embedding scales and shifts after the second norm; otherwise it is added before it.
        double_norm: whether scale and shift are normalised (ADN). Then they come after the norm in any case.
        projects: whether a skip connection that resamples has a convolution even where the channels stay.
        qkv: how the channels of q, k and v lie in the output of one convolution: beside each other for each channel
            (Karras et al. 2022) or for each head (Dhariwal & Nichol 2021), or all of q, then k, then v (Song et al.
            2023). These are the orders of the released code.
    """

    embedded: int
    dropout: float
    heads: Callable[[int], int]
    taps: Sequence[int]
    eps: float
    skip_scale: float
    adaptive: bool
    double_norm: bool
    projects: bool
    qkv: QkvOrder = "by_channel"


class Block(nn.Module):
    """y = a (skip(x) + conv1(dropout(silu(norm1(conv0(silu(norm0(x)))))))), then a (y + attention(y)); a: skip_scale.

    Both ways to the first sum resample, if asked to. The second norm is conditioned on the embedding: norm1(h + b), or
    norm1(h) s + b if `adaptive` (see ScaleShift).
    """

    def __init__(
        self, c_in: int, c_out: int, style: Style, attends: bool = False, resample: Direction | None = None
    ) -> None:
        super().__init__()
        self.skip_scale = style.skip_scale
        self.resample = Resample(resample, style.taps) if resample else nn.Identity()
        self.norm0, self.conv0 = group_norm(c_in, style.eps), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = (
            ScaleShift(style.embedded, c_out, style.double_norm)
            if style.adaptive or style.double_norm
            else nn.Linear(style.embedded, c_out)
        )
        self.norm1, self.conv1 = group_norm(c_out, style.eps), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.dropout = nn.Dropout(style.dropout)
        projects = c_in != c_out or (resample is not None and style.projects)
        self.skip = nn.Conv2d(c_in, c_out, 1) if projects else nn.Identity()
        self.heads, self.order = style.heads(c_out) if attends else 0, style.qkv
        if self.heads:
            self.norm2, self.qkv = group_norm(c_out, style.eps), nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, c_in, H, W), emb (B, embedded) -> (B, c_out, H', W')."""
        h = self._conditioned(self.conv0(self.resample(silu(self.norm0(x)))), emb)
        h = self.conv1(self.dropout(silu(h)))
        x = (self.skip(self.resample(x)) + h) * self.skip_scale
        return (x + self._attended(x)) * self.skip_scale if self.heads else x

    def _conditioned(self, h: Tensor, emb: Tensor) -> Tensor:
        if not isinstance(self.affine, ScaleShift):
            return self.norm1(h + self.affine(emb)[:, :, None, None])
        scale, shift = self.affine.pair(emb)
        return self.norm1(h) * scale[:, :, None, None] + shift[:, :, None, None]

    def _attended(self, x: Tensor) -> Tensor:
        """Attend over the pixels. By channel, 3 c, 3 c + 1 and 3 c + 2 of `qkv` are channel c of q, k and v."""
        B, C, H, W = x.shape
        heads, each = self.heads, C // self.heads
        axes = {"by_channel": ((heads, each, 3), 3), "by_head": ((heads, 3, each), 2), "whole": ((3, heads, each), 1)}
        shape, axis = axes[self.order]
        three = self.qkv(self.norm2(x)).reshape(B, *shape, H * W).unbind(axis)
        q, k, v = (part.transpose(2, 3) for part in three)  # each (B, heads, pixels, channels)
        return self.proj(attention(q, k, v).transpose(2, 3).reshape(B, C, H, W))


class Resample(nn.Module):
    """Halve or double both sides with a filter, the same for each channel; constant pictures stay constant.

    Args:
        direction: "down" or "up".
        taps: the filter along each side, of even length: [1, 1] averages or repeats pixels, [1, 3, 3, 1] is smoother.
        pads: whether pixels of zero surround the picture, so that the size is halved exactly.
    """

    kernel: Tensor

    def __init__(self, direction: Direction, taps: Sequence[int], pads: bool = True) -> None:
        super().__init__()
        self.direction, self.pad = direction, (len(taps) // 2 - 1) * pads
        side = torch.tensor([float(tap) for tap in taps])
        self.register_buffer("kernel", (side.outer(side) / sum(taps) ** 2)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, C, H/2, W/2) or (B, C, 2H, 2W)."""
        C = x.shape[1]
        kernel = self.kernel.expand(C, 1, -1, -1)
        if self.direction == "up":  # four pixels for each
            return conv_transpose2d(x, 4 * kernel, stride=2, padding=self.pad, groups=C)
        return conv2d(x, kernel, stride=2, padding=self.pad, groups=C)


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return a norm of 32 groups, or of fewer with at least four channels each."""
    groups = max(1, min(_GROUPS, channels // _GROUP_CHANNELS))
    return nn.GroupNorm(math.gcd(groups, channels), channels, eps)
