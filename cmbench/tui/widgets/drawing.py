"""The content of a snapshot's files: pixels, points, or one line that says why there are none."""

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from cmbench.rundir.files import read
from cmbench.text import brief
from cmbench.tui.widgets.film import Film, Plane
from cmbench.tui.widgets.tiles import split

_LARGEST = 1 << 26  # bytes of a file
_MOST_PIXELS = 1 << 26
_MOST_POINTS = 20_000
_KEPT = 24  # drawings: enough for both sides of a blink and some steps back, but not for a whole run


@dataclass(frozen=True, eq=False)
class Pixels:
    """A picture, (H, W, 3) from 0 to 255; for a grid of samples also the samples, (rows, columns, h, w, 3).

    `note` says what of the samples is shown, if it is not all.
    """

    image: np.ndarray
    tiles: np.ndarray | None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Points:
    """Finite points (n, 2), the number of points that are not finite, and the data (m, 2) to match, if known."""

    xy: np.ndarray
    lost: int
    data: np.ndarray | None = None


Drawing = Pixels | Points | Film | Plane | str


@lru_cache(maxsize=_KEPT)
def load(picture: Path, points: Path | None, stamps: object = None) -> Drawing:
    """Read the points, or the picture if there are none; `stamps` distinguishes new files of the same name."""
    try:
        return (points and _points(points)) or _pixels(picture)
    except FileNotFoundError:
        return f"{picture.name} is missing"
    except UnidentifiedImageError:
        return f"{picture.name} is not a PNG"
    except Exception as error:  # Pillow's decoders raise errors of any kind on a damaged file
        return f"{picture.name} cannot be read: {error}"


def _pixels(path: Path) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about large pictures, which are refused below
        with Image.open(io.BytesIO(read(path, _LARGEST)), formats=["PNG"]) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise ValueError(f"{file.width}x{file.height} pixels are too many")
            image, note = np.asarray(file.convert("RGB")), file.info.get("Comment", "")
    return Pixels(image, split(image), brief(note) if isinstance(note, str) else "")


def _points(path: Path) -> Points | None:
    try:
        tensors = load_safetensors(read(path, _LARGEST))
        xy = _in_the_plane(tensors["samples"])
    except (OSError, KeyError, TypeError, ValueError, SafetensorError):
        return None
    finite = np.isfinite(xy).all(axis=1)
    if xy.shape[1] != 2:
        return None
    try:
        data = _in_the_plane(tensors["data"])
    except (KeyError, TypeError, ValueError):
        data = np.empty((0, 0))
    is_told = data.shape[1] == 2 and bool(np.isfinite(data).all())
    return Points(xy[finite], int((~finite).sum()), data if is_told else None)


def _in_the_plane(samples: np.ndarray) -> np.ndarray:
    """Return the first two coordinates of some samples; for samples on a line, value and rank, as a distribution."""
    xy = samples.reshape(len(samples), -1)[:_MOST_POINTS, :2].astype(float)
    if xy.shape[1] == 1:
        rank = xy.argsort(axis=0).argsort(axis=0)
        xy = np.concatenate([xy, 2 * (rank + 0.5) / len(rank) - 1], axis=1)
    return xy
