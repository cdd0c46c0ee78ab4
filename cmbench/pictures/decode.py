"""The picture of a file as upright RGB with 8 bits per channel, whatever its mode, depth and orientation.

    grey, palette, CMYK, YCbCr, HSV   as Pillow converts them; LAB through littleCMS, to sRGB
    16 bits per channel               0 to 65535 becomes 0 to 255; a 32-bit integer is read as 16 bits
    floats                            0 to 1 becomes 0 to 255
    alpha, transparent colours        over white or black, or refused
    EXIF's orientation                applied, 1 to 8
    several frames                    the first
    colour profiles                   not applied

Values out of range, other modes, and more pixels than Pillow accepts are refused.
"""

import io
import warnings
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps

from cmbench import regular

Alpha = Literal["white", "black", "refused"]
_ORIENTATION = 0x0112  # of EXIF
_GREY = {"1", "L", "LA", "La", "I", "F"}
_PLAIN = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
_WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
# Recognised by content, not by name. Formats that start programs, such as EPS, are left out.
_FORMATS = [
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "ICO",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
]


class RefusedError(Exception):
    """A picture that cannot be read, or whose values have no known meaning; the message says why."""


def read(source: Path | bytes, alpha: Alpha = "white") -> tuple[Image.Image, frozenset[str]]:
    """Return the picture of a file, or of a file's content, in mode RGB, and its peculiarities that were changed.

    These are any of "rotated", "grey", "transparent", "16-bit", "float", "animated" and the names of unusual modes.

    Raises:
        RefusedError: the file is damaged, truncated or too large, or the rules above do not cover it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e.g. about broken EXIF
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with _opened(source) as file, Image.open(file, formats=_formats()) as image:
                return upright_rgb(image, alpha)
        except RefusedError:
            raise
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise RefusedError(f"absurdly large: more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
        except Exception as error:  # decoders raise all kinds of errors at damaged files
            raise RefusedError(_reason(error, source)) from None


def as_torchvision(source: Path | bytes) -> tuple[Image.Image, frozenset[str]]:
    """Return the picture as ImageFolder reads it: as stored, without alpha, 16 bits cut off at 255.

    Raises:
        RefusedError: as in `read`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with _opened(source) as file, Image.open(file) as image:
                return image.convert("RGB"), frozenset()
        except Exception as error:
            raise RefusedError(_reason(error, source)) from None


def upright_rgb(image: Image.Image, alpha: Alpha = "white") -> tuple[Image.Image, frozenset[str]]:
    """Return an open picture as `read` does. Raises RefusedError, and Pillow's errors at damage."""
    found = {"rotated"} if image.getexif().get(_ORIENTATION, 1) in range(2, 9) else set()
    if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO's second picture is a thumbnail
        found.add("animated")
        image.seek(0)
    image.load()
    image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode in _GREY or mode.startswith("I;16"):
        found.add("grey")
    if mode not in _GREY | {"P", "PA", "RGB", "RGBA", "RGBX", "RGBa"} and not mode.startswith("I;16"):
        found.add(mode)
    if mode == "I" or mode.startswith("I;16"):
        found.add("16-bit")
        image = _of_16_bits(image)
    elif mode == "F":
        found.add("float")
        image = _of_floats(image)
    elif mode == "LAB":
        image = _of_lab(image)
    elif mode not in _PLAIN | _WITH_ALPHA:
        raise RefusedError(f"of mode {mode}, which is not known here")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image, is_transparent = _over(image, alpha)
        found |= {"transparent"} if is_transparent else set()
    return image.convert("RGB"), frozenset(found)


def refuse_absurd_shape(image: Image.Image, high: int, wide: int) -> None:
    """Refuse a picture so long and thin that it would fill the memory when it covers `high` x `wide` pixels."""
    width, height = image.size
    if max(wide * wide * height // width, high * high * width // height) > (Image.MAX_IMAGE_PIXELS or 2**31):
        raise RefusedError(f"absurdly long: {width}x{height} pixels")


def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _opened(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else regular.opened(source, links=True)


def _reason(error: Exception, source: Path | bytes) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        return "no picture, or a damaged one" if size else "empty"
    if isinstance(error, MemoryError):
        return "there is no memory for it"
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def _of_16_bits(image: Image.Image) -> Image.Image:
    x = np.asarray(image).astype(np.int64)
    if x.min() < 0 or x.max() > 65535:
        raise RefusedError(f"of 32-bit integers from {x.min()} to {x.max()}, allowed: 0 to 65535")
    grey = Image.fromarray(((255 * x + 32767) // 65535).astype(np.uint8))
    colour = image.info.get("transparency")
    if isinstance(colour, int):
        grey.putalpha(Image.fromarray(np.where(x == colour, 0, 255).astype(np.uint8)))
    return grey


def _of_floats(image: Image.Image) -> Image.Image:
    x = np.asarray(image)
    if not np.isfinite(x).all():
        raise RefusedError("of floats that are not finite")
    if x.min() < 0 or x.max() > 1:
        raise RefusedError(f"of floats from {x.min():g} to {x.max():g}, allowed: 0 to 1")
    return Image.fromarray(np.rint(255.0 * x).astype(np.uint8))


def _of_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # None is returned only for a picture changed in place
    return converted


def _over(image: Image.Image, alpha: Alpha) -> tuple[Image.Image, bool]:
    """Lay a picture over the colour that shows through it; return also whether any shows through."""
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)  # undoes colours premultiplied by alpha
    rgba = image.convert(straight).convert("RGBA")
    lowest, _ = rgba.getchannel("A").getextrema()
    if lowest == 255:
        return rgba, False
    if alpha == "refused":
        raise RefusedError("transparent in places, and data.alpha = 'refused'")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, alpha), rgba), True
