"""A picture file as an array: decoded, resized to cover height and width, and cropped at the centre."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cmbench.pictures import decode

Source = tuple[str, Path | bytes]  # a name for messages, and a file or its content


@dataclass(frozen=True)
class Shaping:
    """What makes an array of a picture.

    Attributes:
        height, width: of the array.
        channels: 3 for colours, 1 for grey.
        alpha: what shows through.
        reader: "cmbench", or "torchvision", which reads as earlier versions did.
    """

    height: int
    width: int
    channels: int = 3
    alpha: decode.Alpha = "white"
    reader: str = "cmbench"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an array, (C, H, W)."""
        return self.channels, self.height, self.width

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)


def array_of(source: Path | bytes, shaping: Shaping) -> tuple[np.ndarray, frozenset[str]]:
    """Return a picture as an array (C, H, W) of uint8, and its peculiarities as `decode.read` has them.

    Raises:
        RefusedError: the picture cannot be read, or is absurdly long.
    """
    if shaping.reader == "torchvision":
        image, marks = decode.as_torchvision(source)
    else:
        image, marks = decode.read(source, shaping.alpha)
    decode.refuse_absurd_shape(image, shaping.height, shaping.width)
    if shaping.channels == 1:
        image = image.convert("L")  # ITU-R 601; a grey picture stays as it is
    return _channels_first(_cropped(_covering(image, shaping), shaping)), marks


def _covering(image: Image.Image, shaping: Shaping) -> Image.Image:
    """Resize a picture to the least size that covers height and width, as torchvision's Resize does for squares."""
    (width, height), (wide, high) = image.size, (shaping.width, shaping.height)
    is_narrow = width * high <= wide * height
    size = (wide, int(wide * height / width)) if is_narrow else (int(high * width / height), high)
    return image if size == image.size else image.resize(size, resample=Image.Resampling.BILINEAR)


def _cropped(image: Image.Image, shaping: Shaping) -> Image.Image:
    """Crop a picture at the centre, with half pixels rounded to even as torchvision's CenterCrop does."""
    left, top = (round((a - b) / 2) for a, b in zip(image.size, (shaping.width, shaping.height), strict=True))
    return image.crop((left, top, left + shaping.width, top + shaping.height))


def _channels_first(image: Image.Image) -> np.ndarray:
    x = np.asarray(image)
    return x[None] if x.ndim == 2 else np.ascontiguousarray(x.transpose(2, 0, 1))
