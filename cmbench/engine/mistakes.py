"""The usual mistakes of published figures, each found from samples and statistics, and told in one line."""

from collections.abc import Sequence

import torch
from torch import Tensor

PUBLISHED = 50_000  # samples of a published figure
_FAR_OUT, _SHARE = 1.5, 0.01  # pictures have few values beyond
_CLEAR = 0.02  # difference of channel means that is no chance


def of_size(n: int, dimensions: int, real: int = 0) -> list[str]:
    """Return what too few samples do to the distance of Gaussians.

    Args:
        n: number of samples.
        dimensions: of the features.
        real: number of real samples; 0 if it is not known.
    """
    found = []
    for count, what in ((n, "samples"), (real, "real samples")):
        if 0 < count <= dimensions:
            why = f"their covariance has not full rank in {dimensions:,} dimensions"
            found.append(f"too few {what}: of {count:,}, {why}")
    if n < PUBLISHED:
        found.append(f"biased upwards by the number of samples: {n:,}, while published figures take {PUBLISHED:,}")
    return found


def of_pictures(x: Tensor, channels: Sequence[float], shape: Sequence[int]) -> list[str]:
    """Return what seems wrong with pictures x (n, C, H, W), which should be in [-1, 1].

    Args:
        x: samples.
        channels: the real pictures' mean of each channel, in [-1, 1]; empty if it is not known.
        shape: of a real picture; empty if it is not known.
    """
    if x.ndim != 4 or not bool(x.isfinite().all()):
        return []
    found = _of_range(x, channels)
    if shape and tuple(shape) != tuple(x.shape[1:]):
        sizes = f"samples are {list(x.shape[1:])}, the reference was made of {list(shape)}"
        found.append(f"other sizes: {sizes}; resizing changes the figure")
    return found + _of_colours(x, channels)


def _of_range(x: Tensor, channels: Sequence[float]) -> list[str]:
    low, high = float(x.min()), float(x.max())
    beyond = float((x.abs() > _FAR_OUT).double().mean())
    span = f"samples have values from {low:.3g} to {high:.3g}, and pictures are taken for -1 to 1"
    if beyond > _SHARE:
        return [f"wrong range: {span}; {beyond:.0%} are beyond {_FAR_OUT:g}"]
    is_positive = low >= -_CLEAR and high <= 1 + _CLEAR
    if is_positive and (not channels or min(channels) < float(x.double().mean()) - _CLEAR):
        return [f"wrong range: {span}; none is below 0"]
    return []


def _of_colours(x: Tensor, channels: Sequence[float]) -> list[str]:
    """Compare the means of three channels with the real ones, in their order and reversed."""
    if x.shape[1] != 3 or len(channels) != 3:
        return []
    own, real = x.double().mean(dim=(0, 2, 3)).cpu(), torch.tensor(channels, dtype=torch.float64)
    off, reversed_off = (own - real).norm(), (own.flip(0) - real).norm()
    if not (off > _CLEAR and reversed_off < off / 2):
        return []
    means = f"{', '.join(f'{v:.3g}' for v in own)}, the real ones {', '.join(f'{v:.3g}' for v in real)}"
    return [f"wrong order of colours: means of channels are {means}; reversed they fit better"]
