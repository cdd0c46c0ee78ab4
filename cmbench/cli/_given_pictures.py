"""The user's own pictures and mask for `cmbench edit`: read, and of the size that the run has."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cmbench.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from cmbench.pictures.decode import Alpha

_HALF = 128  # of 255: the least grey of a mask that counts as white


def read(paths: list[Path], shape: tuple[int, ...], factor: int | None) -> "Tensor":
    """Return pictures as samples (n, C, H, W) in [-1, 1].

    Args:
        paths: of the pictures.
        shape: of a sample, (1 or 3, H, W).
        factor: to be enlarged by; pictures of the size divided by it are then allowed too.

    Raises:
        UsageError: a file is no picture, or has another size.
    """
    import numpy as np

    from cmbench.engine.edit import of_bytes

    return of_bytes(np.stack([_samples(path, shape, factor) for path in paths]))


def mask(path: Path, shape: tuple[int, ...]) -> "Tensor":
    """Return what is white in a mask, boolean (1, 1, H, W). What is transparent is not: white may be all that is drawn.

    Raises:
        UsageError: the file is no picture, has another size, or nothing in it is white.
    """
    import numpy as np
    import torch

    image = _opened(path, "--mask", alpha="black").convert("L")
    _check_size(path, "--mask", image.size, [shape[-2:]])
    white = np.asarray(image) >= _HALF
    if not white.any():
        raise UsageError(f"--mask {path}: found no white, allowed: white where the picture is to be painted anew")
    return torch.from_numpy(white)[None, None]


def _samples(path: Path, shape: tuple[int, ...], factor: int | None) -> "np.ndarray":
    import numpy as np

    channels, height, width = shape
    image = _opened(path, "--picture").convert("L" if channels == 1 else "RGB")
    sizes = [(height, width), *([(height // factor, width // factor)] if factor else [])]
    _check_size(path, "--picture", image.size, sizes)
    x = np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)
    if factor and image.height < height:
        x = x.repeat(factor, axis=1).repeat(factor, axis=2)
    return x


def _opened(path: Path, option: str, alpha: "Alpha" = "white") -> "Image.Image":
    from cmbench.pictures import decode

    try:
        return decode.read(path, alpha)[0]
    except decode.RefusedError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error}") from None


def _check_size(path: Path, option: str, found: tuple[int, int], allowed: "Sequence[tuple[int, ...]]") -> None:
    if (found[1], found[0]) not in allowed:
        sizes = " or ".join(f"{width}x{height}" for height, width in allowed)
        raise UsageError(f"{option} {path}: found {found[0]}x{found[1]} pixels (width x height), allowed: {sizes}")
