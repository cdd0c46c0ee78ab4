"""A file of pictures as an array: a picture resized to cover height and width and cropped, or as it is, of one size."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from cmbench import regular
from cmbench.pictures import decode
from cmbench.pictures.decode import RefusedError

Source = tuple[str, Path | bytes]  # a name, and a file or its content
ARRAY = ".npy"
LARGEST = 1 << 28  # bytes of a file of an archive


class Maker(Protocol):
    """What makes arrays of files, all of one shape and type; a worker process can be sent it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array, (C, H, W)."""

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers, uint8 or float32."""

    def as_dict(self) -> dict[str, Any]:
        """Return whatever the arrays depend on, by name."""

    def array_of(self, name: str, source: Path | bytes) -> tuple[np.ndarray, frozenset[str]]:
        """Return a file as an array, and its peculiarities as `decode.read` has them. Raises RefusedError."""


@dataclass(frozen=True)
class Shaping:
    """Makes an array of a picture of any size.

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

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return np.dtype(np.uint8)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return asdict(self)

    def array_of(self, name: str, source: Path | bytes) -> tuple[np.ndarray, frozenset[str]]:
        """Return a picture as an array (C, H, W) of uint8, and its peculiarities as `decode.read` has them.

        Raises:
            RefusedError: the picture cannot be read, or is absurdly long.
        """
        if self.reader == "torchvision":
            image, marks = decode.as_torchvision(source)
        else:
            image, marks = decode.read(source, self.alpha)
        decode.refuse_absurd_shape(image, self.height, self.width)
        image = _of_channels(image, self.channels)
        return _channels_first(_cropped(_covering(image, self), self)), marks


@dataclass(frozen=True)
class Alike:
    """Takes pictures as RGB or as grey, and arrays in .npy as they are: all like the first one.

    Attributes:
        first: its name.
        shape: its shape, (C, H, W).
        type_name: of its numbers, uint8 or float32.
        channels: of pictures: 3 for colours, 1 for grey.
    """

    first: str
    shape: tuple[int, ...]
    type_name: str
    channels: int = 3

    @classmethod
    def to(cls, name: str, source: Path | bytes, channels: int = 3) -> "Alike":
        """Return what takes files like this one. Raises RefusedError if it cannot be read."""
        x, _ = _as_it_is(name, source, channels)
        return cls(name, x.shape, x.dtype.name, channels)

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return np.dtype(self.type_name)

    def as_dict(self) -> dict[str, Any]:
        """Return shape and type; the shape has the channels."""
        return {"as_they_are": True, "shape": list(self.shape), "type": self.type_name}

    def array_of(self, name: str, source: Path | bytes) -> tuple[np.ndarray, frozenset[str]]:
        """Return a picture or an array as (C, H, W), and a picture's peculiarities.

        Raises:
            RefusedError: it cannot be read, or is not like the first one.
        """
        x, marks = _as_it_is(name, source, self.channels)
        if x.shape != self.shape or x.dtype != self.dtype:
            allowed = f"allowed: {list(self.shape)} {self.type_name}, as {self.first}"
            raise RefusedError(f"found {list(x.shape)} {x.dtype.name}, {allowed}")
        return x, marks


def _as_it_is(name: str, source: Path | bytes, channels: int) -> tuple[np.ndarray, frozenset[str]]:
    if not name.lower().endswith(ARRAY):
        picture, marks = decode.read(source)
        return _channels_first(_of_channels(picture, channels)), marks
    try:
        content = source if isinstance(source, bytes) else regular.read(source, LARGEST, links=True)
        x = npy.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy raises all kinds of errors at damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise RefusedError(reason) from None
    return _checked(x), frozenset()


def _checked(x: np.ndarray) -> np.ndarray:
    """Return an array as (C, H, W), uint8 or float32."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and len(x) != 1) or 0 in x.shape:
        raise RefusedError(f"an array of shape {list(x.shape)}, allowed: (C, H, W)")
    if x.dtype.kind != "f" and x.dtype != np.uint8:
        raise RefusedError(f"an array of {x.dtype.name}, allowed: uint8 or floats")
    with np.errstate(over="ignore"):
        x = x.reshape(x.shape[-3:]).astype(np.uint8 if x.dtype == np.uint8 else np.float32)
    if not np.isfinite(x).all():
        raise RefusedError("it holds numbers that are not finite, or beyond float32")
    return x


def _of_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return a picture in RGB, or for one channel its luma (ITU-R 601); a grey picture keeps its values."""
    return image.convert("L") if channels == 1 else image


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
