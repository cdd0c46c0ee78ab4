"""The U-Net of residual blocks that DDPM++, NCSN++ and ADM share. Modules have the names of the published weights."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cmbench.networks._levels import Level
from cmbench.networks._residual import Block, Resample, Style

Encoder = Literal["standard", "skip", "residual"]


class Trunk(nn.Module):
    """Encoder and decoder, whose modules are named by level: enc.16x16_conv, enc.8x8_down, dec.8x8_in0, dec.16x16_up.

    Each level of the encoder has `depth` blocks, and of the decoder one more: as many as the encoder has outputs, which
    they take from the last to the first. The decoder begins with a block that attends and one that does not.

    Args:
        colours: channels of the pictures.
        first: channels after the first convolution.
        levels: from the largest pictures to the smallest.
        depth: blocks of each level.
        style: of the blocks.
        encoder: whether smaller pictures enter the encoder as well: "skip", the noisy picture, at each level;
            "residual", as a second, shallow encoder.
        attends_often: whether all blocks of a decoder's level attend where it attends; otherwise the last alone.
    """

    def __init__(
        self,
        colours: int,
        first: int,
        levels: Sequence[Level],
        depth: int,
        style: Style,
        encoder: Encoder = "standard",
        attends_often: bool = False,
    ) -> None:
        super().__init__()
        self.enc = nn.ModuleDict({f"{levels[0].name}_conv": nn.Conv2d(colours, first, 3, padding=1)})
        c, aux, skips = first, colours, [first]
        for level in levels:
            if level is not levels[0]:
                self.enc[f"{level.name}_down"] = Block(c, c, style, resample="down")
                if encoder == "skip":
                    self.enc[f"{level.name}_aux_skip"] = AuxSkip(aux, c, style.taps)
                if encoder == "residual":
                    self.enc[f"{level.name}_aux_residual"] = AuxResidual(aux, c, style.taps)
                    aux = c
                skips.append(c)
            for i in range(depth):
                self.enc[f"{level.name}_block{i}"] = Block(c, level.channels, style, level.attends)
                c = level.channels
                skips.append(c)
        self.dec = nn.ModuleDict()
        for level in reversed(levels):
            if level is levels[-1]:
                self.dec[f"{level.name}_in0"] = Block(c, c, style, attends=True)
                self.dec[f"{level.name}_in1"] = Block(c, c, style)
            else:
                self.dec[f"{level.name}_up"] = Block(c, c, style, resample="up")
            for i in range(depth + 1):
                attends = level.attends and (attends_often or i == depth)
                self.dec[f"{level.name}_block{i}"] = Block(c + skips.pop(), level.channels, style, attends)
                c = level.channels

    def through(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the decoder's last channels. x (B, colours, H, W), emb (B, embedded) -> (B, channels, H, W)."""
        skips: list[Tensor] = []
        h, aux = x, x
        for layer in self.enc.values():
            if isinstance(layer, (AuxSkip, AuxResidual)):
                h, aux = layer(h, aux)
                skips[-1] = h
                continue
            h = layer(h, emb) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for name, layer in self.dec.items():
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], dim=1) if "_block" in name else h, emb)
        return h


class AuxSkip(nn.Conv2d):
    """Add the picture, made smaller, to the encoder through a convolution of single pixels."""

    def __init__(self, c_in: int, c_out: int, taps: Sequence[int]) -> None:
        super().__init__(c_in, c_out, 1)
        self.resample = Resample("down", taps)

    def forward(self, h: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """h (B, c_out, H, W), aux (B, c_in, 2H, 2W) -> the new h, and aux for the next level."""
        aux = self.resample(aux)
        return h + super().forward(aux), aux


class AuxResidual(nn.Conv2d):
    """Join a second encoder, of one convolution a level, with the first; the sum goes on in both."""

    def __init__(self, c_in: int, c_out: int, taps: Sequence[int]) -> None:
        super().__init__(c_in, c_out, 3, padding=len(taps) // 2)  # wide enough for the filter, which pads nothing
        self.resample = Resample("down", taps, pads=False)

    def forward(self, h: Tensor, aux: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """h (B, c_out, H, W), aux (B, c_in, 2H, 2W) -> the new h, and aux for the next level."""
        h = (h + self.resample(super().forward(aux))) * math.sqrt(0.5)
        return h, h


def augment_vector(labels: Tensor | None, count: int, like: Tensor) -> Tensor:
    """Return the labels of an augmentation, (B, count), in the dtype of `like` (B, ...); zeros where there are none.

    Zeros, and not a pass without the labels' layer: DistributedDataParallel waits for a gradient of every weight.
    """
    return like.new_zeros(like.shape[0], count) if labels is None else labels.to(like.dtype)


def class_vector(labels: Tensor | None, classes: int, like: Tensor, dropped: float = 0.0) -> Tensor:
    """Return the labels as rows of a one and zeros, (B, classes); all zeros where there is none, or it is dropped.

    Args:
        labels: (B,) or None.
        classes: the number of labels.
        like: (B, ...), whose dtype the rows get.
        dropped: share of the labels that are dropped, which draws from torch's own generator as dropout does.
    """
    if labels is None:
        return torch.zeros(like.shape[0], classes, dtype=like.dtype, device=like.device)
    rows = (labels[:, None] == torch.arange(classes, device=labels.device)).to(like.dtype)
    if dropped:
        rows = rows * (torch.rand(like.shape[0], 1, device=like.device) >= dropped)
    return rows
