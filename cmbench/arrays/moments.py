"""Range, mean and standard deviation of many numbers, in blocks; and a check that each is finite, which is kept."""

import hashlib
import json
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cmbench import caches, progress, regular
from cmbench.arrays.layout import Layout, channels_second
from cmbench.arrays.stored import Stored
from cmbench.errors import UsageError
from cmbench.progress import Count
from cmbench.rundir import files

_EXPENSIVE = 1 << 28  # bytes; what was found of larger arrays is kept
_LARGEST = 1 << 24  # bytes of what is kept
_KEYS = ("low", "high", "mean", "deviation")


@dataclass(frozen=True)
class Moments:
    """Range, mean and standard deviation (over n, not n - 1) of all numbers of an array."""

    low: float
    high: float
    mean: float
    deviation: float


class Sums:
    """Collects blocks (n, C, ...), and gives the moments of each channel and of all.

    Means and squares of blocks are put together by Chan, Golub and LeVeque 1983, which cancels nothing.
    """

    def __init__(self) -> None:
        self._n = 0.0
        self._mean = self._square = np.zeros(0)
        self._low = self._high = np.zeros(0)

    def add(self, x: np.ndarray) -> None:
        """Add a block (n, C, ...), n > 0; each channel counts alike."""
        x = x.astype(np.float64).reshape(len(x), x.shape[1] if x.ndim > 1 else 1, -1)
        axes, n = (0, 2), x.shape[0] * x.shape[2]
        mean = x.mean(axis=axes)
        square = np.square(x - mean[:, None]).sum(axis=axes)
        low, high = x.min(axis=axes), x.max(axis=axes)
        if not self._n:
            self._n, self._mean, self._square, self._low, self._high = n, mean, square, low, high
            return
        total, step = self._n + n, mean - self._mean
        self._square = self._square + square + np.square(step) * self._n * n / total
        self._mean = self._mean + step * n / total
        self._n, self._low, self._high = total, np.minimum(self._low, low), np.maximum(self._high, high)

    def channels(self) -> list[Moments]:
        """Return the moments of each channel."""
        deviation = np.sqrt(self._square / self._n)
        return [Moments(*map(float, each)) for each in zip(self._low, self._high, self._mean, deviation, strict=True)]

    def whole(self) -> Moments:
        """Return the moments of all numbers together."""
        mean = float(self._mean.mean())
        variance = float((self._square / self._n + np.square(self._mean - mean)).mean())
        return Moments(float(self._low.min()), float(self._high.max()), mean, variance**0.5)


def checked(stored: Stored, layout: Layout, path: Path, key: str) -> list[Moments] | None:
    """Return the moments of each channel of floats, all of which are finite; None for bytes, which always are.

    All rows are read, in blocks. What was found of more than 256 MiB is kept in the user's cache, until size, times or
    place of the file change.

    Args:
        stored: the array, (M, ...), M > 0.
        layout: where its channels are; points have one a coordinate.
        path: its file.
        key: of the recipe, for messages.

    Raises:
        UsageError: a value is not finite; the message says where the first one is.
    """
    if stored.is_bytes:
        return None
    kept = _kept(stored, layout, path) if stored.is_mapped and stored.nbytes > _EXPENSIVE else None
    if kept is not None and (found := _read(kept)) is not None:
        return found
    is_long = stored.nbytes > _EXPENSIVE
    with progress.told().counting("checking values", len(stored)) if is_long else nullcontext(lambda n: None) as done:
        found = _looked_at(stored, layout, key, done)
    if kept is not None:
        _keep(kept, found)
    return found


def _looked_at(stored: Stored, layout: Layout, key: str, done: Count) -> list[Moments]:
    sums = Sums()
    for block in stored.blocks():
        x = stored.rows(block)
        if not (finite := _finite(x)).all():
            place = _first(x, finite, block.start)
            raise UsageError(f"{key}: {stored.where}: {place}; allowed: finite numbers of float32")
        sums.add(channels_second(x, layout))
        done(len(x))
    return sums.channels()


def _finite(x: np.ndarray) -> np.ndarray:
    """Return which numbers are finite as float32."""
    with np.errstate(over="ignore"):
        return np.isfinite(x.astype(np.float32, copy=False))


def _first(x: np.ndarray, finite: np.ndarray, start: int) -> str:
    row, *place = np.argwhere(~finite)[0].tolist()
    value = x[(row, *place)]
    return f"sample {start + row:,} is {value} at [{', '.join(map(str, place))}]"


def _kept(stored: Stored, layout: Layout, path: Path) -> Path | None:
    """Return where the moments of an array are kept."""
    try:
        about = path.stat()
    except OSError:
        return None
    stamps = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    name = repr((stamps, stored.where, stored.shape, stored.type_name, layout)).encode(errors="surrogateescape")
    with suppress(RuntimeError):  # no home folder
        return caches.folder("arrays") / f"{hashlib.blake2b(name, digest_size=16).hexdigest()}.json"
    return None


def _read(path: Path) -> list[Moments] | None:
    try:
        found = json.loads(regular.read(path, _LARGEST))["channels"]
        return [Moments(*(float(each[key]) for key in _KEYS)) for each in found]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path, found: list[Moments]) -> None:
    """Write what was found; a cache that cannot be written is done without."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, json.dumps({"channels": [asdict(each) for each in found]}).encode())
