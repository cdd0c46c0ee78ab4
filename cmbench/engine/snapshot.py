"""Snapshots as files: a grid of pictures, or a scatter of points and the points themselves."""

import io
import re
import shutil

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save as save_safetensors
from torch import Tensor
from torch.nn.functional import interpolate

from cmbench.rundir.files import make_folder, write_atomically
from cmbench.rundir.layout import RunDir

NAME = r"[0-9]{8,15}_[0-9]{1,6}step\.(?:png|safetensors)|[0-9]{8,15}_(?:film|plane)\.safetensors"  # a step's files
_SMALLEST_TILE = 32  # pixels; smaller pictures are enlarged by a whole factor
_SCATTER = 128  # cells of a scatter's side, three pixels each
_EXTENT = 1.5  # a scatter shows [-1.5, 1.5]^2: three standard deviations


def write(run: RunDir, step: int, samples: dict[int, Tensor], data: Tensor | None = None) -> list[str]:
    """Write the snapshots of a step and return the names of the files.

    Args:
        run: the run.
        step: number of steps taken.
        samples: by number of sampler steps.
        data: held-out points, to be shown behind samples that are points.

    Raises:
        OSError: the files cannot be written.
    """
    names = []
    make_folder(run.snapshots)
    for sampler_steps, x in samples.items():
        stem = f"{step:08d}_{sampler_steps}step"
        write_atomically(run.snapshots / f"{stem}.png", to_png(x))
        names.append(f"{stem}.png")
        if x.ndim != 4:
            tensors = {"samples": x} if data is None else {"samples": x, "data": data}
            points = save_safetensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
            write_atomically(run.snapshots / f"{stem}.safetensors", points)
    return names


def abandon_after(run: RunDir, step: int) -> None:
    """Move the snapshots after `step` to snapshots/abandoned/: new snapshots may be at other steps."""
    for path in run.snapshots.glob("[0-9]*"):
        if re.fullmatch(NAME, path.name) and int(path.name.partition("_")[0]) > step:
            make_folder(run.abandoned_snapshots)
            shutil.move(path, run.abandoned_snapshots / path.name)  # to another disk, if that folder is a link


def as_seen(x: Tensor) -> tuple[Tensor, str]:
    """Return pictures (n, 1 or 3, H, W) in [-1, 1] for samples (n, C, H, W), and a caption if they show only a part.

    Latents have any number of channels and values around 0. Their first three channels become colours, and -1.5 to 1.5,
    three standard deviations, become -1 to 1. One or three channels are taken for pictures as they are.
    """
    channels = x.shape[1]
    if channels in (1, 3):
        return x, ""
    shown = 3 if channels > 3 else 1
    which = f"channels 1 to {shown}" if shown > 1 else "channel 1"
    return x[:, :shown] / _EXTENT, f"{which} of {channels}, from -{_EXTENT:g} to {_EXTENT:g}"


def to_png(x: Tensor, columns: int | None = None) -> bytes:
    """Return a PNG of samples: pictures as a grid, points as a scatter of the first two coordinates.

    The grid is a square, or has so many columns. What `as_seen` says of latents stands in the PNG's text "Comment".
    """
    from torchvision.utils import save_image  # here, since the import is slow and no run needs it at once

    buffer = io.BytesIO()
    seen, caption = as_seen(x) if x.ndim == 4 else (x, "")
    save_image(grid(seen, columns) if x.ndim == 4 else scatter(x), buffer, format="png")
    return _captioned(buffer.getvalue(), caption) if caption else buffer.getvalue()


def _captioned(png: bytes, caption: str) -> bytes:
    """Return a PNG with a comment."""
    told, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    told.add_text("Comment", caption)
    with Image.open(io.BytesIO(png)) as image:
        image.save(buffer, format="png", pnginfo=told)
    return buffer.getvalue()


def grid(x: Tensor, columns: int | None = None) -> Tensor:
    """Arrange pictures (n, C, H, W) in [-1, 1] in a square, or in so many columns, (3, H', W') in [0, 1]."""
    from torchvision.utils import make_grid

    factor = max(1, -(-_SMALLEST_TILE // min(x.shape[-2:])))
    tiles = interpolate(x.detach().cpu().float().clamp(-1, 1) * 0.5 + 0.5, scale_factor=float(factor), mode="nearest")
    return make_grid(tiles, nrow=columns or round(len(x) ** 0.5), padding=2, pad_value=0.5)


def scatter(x: Tensor) -> Tensor:
    """Draw the first two coordinates of points (n, d) on white, darker where they are dense, (3, 384, 384)."""
    points = x.detach().cpu().flatten(1)[:, :2].double().numpy()
    if points.shape[1] == 1:  # on a line: with the rank as second coordinate, this draws the distribution function
        rank = points.argsort(axis=0).argsort(axis=0)
        points = np.concatenate([points, 2 * (rank + 0.5) / len(rank) - 1], axis=1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=_SCATTER, range=[[-_EXTENT, _EXTENT]] * 2)
    dense = max(1.0, float(np.quantile(counts[counts > 0], 0.9))) if counts.any() else 1.0
    ink = np.where(counts > 0, 0.4 + 0.6 * np.minimum(1.0, counts / dense), 0.0)[::-1].copy()
    picture = 1 - torch.from_numpy(ink).float() * torch.tensor([0.85, 0.6, 0.25])[:, None, None]
    return interpolate(picture[None], scale_factor=3.0, mode="nearest")[0]
