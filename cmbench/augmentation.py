"""Pictures changed at random in training, with labels that tell the network how (Karras et al. 2022, appendix F.2).

The network learns the distribution of changed pictures given the change, and samples with labels of zero: no change.
So the changes do not leak into the samples. The changes are those of StyleGAN2-ADA (Karras et al. 2020).
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from cmbench.config import Config, Strings
from cmbench.errors import did_you_mean
from cmbench.randomness import StepRandom

# The changes in the order of their labels, and how many each has.
LABELS = {"flip_x": 1, "flip_y": 1, "scale": 1, "rotate": 2, "stretch": 2, "shift": 2}
_LOG2_SCALE, _LOG2_STRETCH, _SHIFT = 0.2, 0.2, 0.125  # standard deviations; of the shift over the picture's side
_ALONG_AXES = 0.5  # share of the stretches along the picture's sides, as in the public code
_UNIFORM, _NORMAL = 10, 4  # numbers that a picture's change takes
_AT_ONCE = 64  # pictures that are resampled together, which bounds memory
_EDGE = 3  # pixels beyond the picture that its filter reaches
# The wavelet filter sym6 (Daubechies 1992, section 8.1.1): orthonormal to its shifts by two.
_SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466),
    *(0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578),
    *(0.0017677118642428036, -0.007800708325034148),
)
# Pixels by which the filter, which is not quite symmetric, moves the doubled picture to the left and up.
_AHEAD = (len(_SYM6) - 1) / 4 - sum(k * tap for k, tap in enumerate(_SYM6)) / sum(_SYM6) / 2


class Augmented(Config):
    """Settings of data that may be augmented: a data set's Config inherits them, and needs nothing else."""

    idle = {"augment_by": ("augment", (0.0,))}  # noqa: RUF012

    augment: float = Field(
        0.0, ge=0, le=1, description="probability of each change but flip_x, of which the network is told; 0: none"
    )
    augment_by: Strings = Field(tuple(LABELS), description=f"the changes: {', '.join(LABELS)}")

    @model_validator(mode="after")
    def _known_changes(self) -> "Augmented":
        for name in self.augment_by:
            if name not in LABELS:
                allowed = f"{', '.join(LABELS)}{did_you_mean(name, LABELS)}"
                raise ValueError(f"augment_by: found '{name}', allowed: {allowed}")
        if not self.augment_by or len(set(self.augment_by)) < len(self.augment_by):
            raise ValueError(f"augment_by: found {list(self.augment_by)}, allowed: one or more different changes")
        return self


class Change(NamedTuple):
    """How each of n pictures changes, (n,) each; zeros are no change.

    Attributes:
        flip_x, flip_y: 1 to mirror the picture from side to side, from top to bottom.
        scale: log2 of the factor, over .2.
        angle: of a rotation, in radians, counter-clockwise.
        stretch: log2 of the factor along an axis, by which the other axis shrinks, over .2.
        axis: the angle of that axis, counter-clockwise from the right.
        shift_x, shift_y: to the right and down, over an eighth of the picture's side.
    """

    flip_x: Tensor
    flip_y: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    axis: Tensor
    shift_x: Tensor
    shift_y: Tensor

    def labels(self) -> dict[str, list[Tensor]]:
        """Return what the network is told of each kind of change."""
        return {
            "flip_x": [self.flip_x],
            "flip_y": [self.flip_y],
            "scale": [self.scale],
            "rotate": [self.angle.cos() - 1, self.angle.sin()],
            "stretch": [self.stretch * self.axis.cos(), self.stretch * self.axis.sin()],
            "shift": [self.shift_x, self.shift_y],
        }


class Augmentation:
    """The augmentation of a recipe.

    Attributes:
        size: the number of labels.
    """

    def __init__(self, settings: Augmented) -> None:
        self.p, self.names = settings.augment, [name for name in LABELS if name in settings.augment_by]
        self.size = sum(LABELS[name] for name in self.names)

    def __call__(self, x_0: Tensor, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return changed pictures and their labels.

        Args:
            x_0: the pictures at hand, (B, C, H, W).
            random: of the step and the part: each picture's change depends on its place in the whole batch.

        Returns:
            The pictures, and the labels (B, size), in the order of LABELS.
        """
        change = self.change(len(x_0), random)
        told = change.labels()
        return changed(x_0, change), torch.stack([label for name in self.names for label in told[name]], dim=1)

    def change(self, n: int, random: StepRandom) -> Change:
        """Draw the change of each of the n pictures at hand. Half of all are mirrored, if any may be."""

        def numbers(n: int, generator: torch.Generator) -> Tensor:
            uniform = torch.rand(n, _UNIFORM, generator=generator, device=random.device)
            return torch.cat([uniform, torch.randn(n, _NORMAL, generator=generator, device=random.device)], dim=1)

        drawn = random.draw("augment", n, numbers)
        u, z = drawn[:, :_UNIFORM].unbind(1), drawn[:, _UNIFORM:].unbind(1)

        def chosen(name: str, gate: Tensor, value: Tensor) -> Tensor:
            return torch.where(gate < (self.p if name in self.names else 0.0), value, 0.0)

        around, axis = math.pi * (2 * u[5] - 1), math.pi * (2 * u[7] - 1)
        return Change(
            flip_x=(u[0] < 0.5).float() * ("flip_x" in self.names),
            flip_y=chosen("flip_y", u[1], (u[2] < 0.5).float()),
            scale=chosen("scale", u[3], z[0]),
            angle=chosen("rotate", u[4], around),
            stretch=chosen("stretch", u[6], z[1]),
            axis=torch.where(u[8] < _ALONG_AXES, 0.0, axis),
            shift_x=chosen("shift", u[9], z[2]),
            shift_y=chosen("shift", u[9], z[3]),
        )


def changed(x: Tensor, change: Change) -> Tensor:
    """Return pictures x (n, C, H, W) after their change; those that are at most mirrored have only their own pixels."""
    column = (slice(None), None, None, None)
    x = torch.where(change.flip_x[column] > 0, x.flip(-1), x)
    x = torch.where(change.flip_y[column] > 0, x.flip(-2), x)
    moves = torch.stack([change.scale, change.angle, change.stretch, change.shift_x, change.shift_y]).any(dim=0)
    sources = source(change, x.shape[-2], x.shape[-1])
    parts = zip(x.split(_AT_ONCE), sources.split(_AT_ONCE), strict=True)
    return torch.where(moves[column], torch.cat([_resampled(own, theta) for own, theta in parts]), x)


def source(change: Change, H: int, W: int) -> Tensor:
    """Return for each picture the map from a place to the place its colour comes from, (n, 2, 3), in pixels.

    Places are (right, down) of the picture's centre. The picture is scaled, rotated, stretched, and shifted; this is
    the inverse.
    """
    s, r = torch.exp2(-_LOG2_SCALE * change.scale), torch.exp2(-_LOG2_STRETCH * change.stretch)
    turned_back = _rotation(change.angle)  # places have y downwards, so this turns clockwise for a reader
    along = _rotation(-change.axis)
    squeezed = along @ torch.diag_embed(torch.stack([r, 1 / r], dim=1)) @ along.mT
    linear = s[:, None, None] * turned_back @ squeezed
    shift = _SHIFT * torch.stack([W * change.shift_x, H * change.shift_y], dim=1)
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)


def _rotation(angle: Tensor) -> Tensor:
    """Return ((cos, -sin), (sin, cos)), (n, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)


def _resampled(x: Tensor, sources: Tensor) -> Tensor:
    """Return pictures (n, C, H, W) whose colours come from their `sources` (n, 2, 3), mirrored at the border once.

    They are doubled in size by an orthonormal filter, read there between four pixels, and halved by the same filter: a
    picture that stays where it is stays what it is.
    """
    n, C, H, W = x.shape
    moved = _AHEAD * (sources[:, :, :2].sum(dim=2) - 1)  # so that a turn about the centre is one
    sources = torch.cat([sources[:, :, :2], (sources[:, :, 2] + moved)[:, :, None]], dim=2)
    wide = pad(x, (W - 1, W - 1, H - 1, H - 1), mode="reflect")
    as_x = x.dtype, x.device
    doubled = _doubling(wide.shape[-2], *as_x) @ wide @ _doubling(wide.shape[-1], *as_x).mT
    # From fractions of half a side to pixels, through the sources, and back to fractions of half the wide sides.
    ends = torch.tensor([W / 2 + _EDGE, H / 2 + _EDGE, 1.0], dtype=x.dtype, device=x.device)
    wide_ends = torch.tensor([wide.shape[-1] / 2, wide.shape[-2] / 2], dtype=x.dtype, device=x.device)
    theta = sources.to(x.dtype) * ends / wide_ends[:, None]
    shape = [n, C, 2 * (H + 2 * _EDGE), 2 * (W + 2 * _EDGE)]
    read = grid_sample(doubled, affine_grid(theta, shape, align_corners=False), align_corners=False)
    down, across = (_doubling(side + 2 * _EDGE, *as_x)[:, _EDGE:-_EDGE] for side in (H, W))
    return down.mT @ read @ across


@lru_cache(maxsize=16)
def _doubling(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the filter that doubles a side, (2 side, side): pixel j adds the taps to the places around 2 j + 1/2."""
    taps = torch.tensor(_SYM6, dtype=torch.float64)
    tap = torch.arange(2 * side)[:, None] - 2 * torch.arange(side) + len(taps) // 2 - 1
    inside = (tap >= 0) & (tap < len(taps))
    return torch.where(inside, taps[tap.clamp(0, len(taps) - 1)], 0.0).to(device, dtype)
