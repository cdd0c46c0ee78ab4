"""Reference statistics of FID: mean and covariance of features, as EDM's .npz has them (`mu`, `sigma`).

Files made here also say what they are of: features, shape, number of samples, mean of each channel.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cmbench import progress, regular
from cmbench.arrays import formats
from cmbench.contracts import Data
from cmbench.engine.judge import Features
from cmbench.equations.frechet import GaussianSums, moments, squared_distance
from cmbench.errors import UsageError
from cmbench.finite import Finite, as_float
from cmbench.text import shown

ENDLESS = 50_000  # samples of data that are drawn without end: as many as published figures take
_AT_ONCE = 256  # samples
_LARGEST = 1 << 14  # dimensions
_ROUNDED = 1e-3  # by how much a covariance may be off, as in half precision
_PICKLES = (".pkl", ".pickle")
_KEY = "--reference"


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics that samples are compared with.

    Attributes:
        path: of the file.
        mu: (d,), float64.
        sigma: (d, d), float64.
        features: what they are of, as `_figures.identity` names it; empty if the file does not say.
        shape: of the samples; empty if the file does not say.
        n: number of samples; 0 if the file does not say.
        channels: mean of each channel, in [-1, 1]; empty if the file does not say.
    """

    path: Path
    mu: Tensor
    sigma: Tensor
    features: str = ""
    shape: tuple[int, ...] = ()
    n: int = 0
    channels: tuple[float, ...] = ()

    def distance(self, x: Tensor) -> float:
        """Return the squared Fréchet distance of features x (n, ...), n > 1, to these statistics."""
        return squared_distance(moments(x), (self.mu.to(x.device), self.sigma.to(x.device)))

    def check(self, x: Tensor) -> None:
        """Refuse features x (n, ...) of another dimension.

        Raises:
            UsageError: they have one.
        """
        x = x.flatten(1)
        if x.shape[1] != len(self.mu):
            found, allowed = f"found mu of {len(self.mu):,} dimensions", f"{x.shape[1]:,}, as the features"
            raise UsageError(f"{_KEY}: {self.path}: {found}, allowed: {allowed}")


def read(path: Path, features: str) -> Reference:
    """Read statistics for features of this identity.

    Raises:
        UsageError: the file cannot be read, is no such file, or is of other features.
    """
    if path.suffix.lower() in _PICKLES or _starts_as_pickle(path):
        raise UsageError(
            f"{_KEY}: {path}: a pickle, which may run code; allowed: .npz with mu and sigma; docs/figures.md says how "
            "to convert it where its code is"
        )
    if path.suffix.lower() != ".npz":
        raise UsageError(f"{_KEY}: found {shown(str(path), 200)}, allowed: .npz with mu and sigma")
    arrays = {name: stored.values for name, stored in formats.opened(path, _KEY).items()}
    _refuse_damaged(path)
    if missing := [name for name in ("mu", "sigma") if name not in arrays]:
        there = ", ".join(map(shown, list(arrays)[:8])) or "nothing"
        raise UsageError(f"{_KEY}: {path}: found {there}, allowed: mu and sigma ({' and '.join(missing)} missing)")
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or not 0 < len(mu) <= _LARGEST or sigma.shape != (len(mu), len(mu)):
        found = f"mu {list(mu.shape)}, sigma {list(sigma.shape)}"
        raise UsageError(f"{_KEY}: {path}: found {found}, allowed: (d,) and (d, d), d up to {_LARGEST:,}")
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f" or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UsageError(f"{_KEY}: {path}: mu or sigma holds what is no finite number")
    if not np.allclose(sigma, sigma.T, rtol=1e-4, atol=1e-8):
        raise UsageError(f"{_KEY}: {path}: sigma is not symmetric, as a covariance is")
    if not _is_covariance(sigma):
        raise UsageError(f"{_KEY}: {path}: sigma is no covariance: found a variance below 0, or a correlation beyond 1")
    own = _text(arrays.get("features"))
    if own and own != features:
        raise UsageError(f"{_KEY}: {path}: made of features {shown(own, 80)}, asked for {shown(features, 80)}")
    mean, covariance = (torch.from_numpy(np.array(each, np.float64)) for each in (mu, sigma))
    n = _numbers(arrays.get("n"))
    return Reference(
        path,
        mean,
        covariance,
        features=own,
        shape=tuple(map(int, _numbers(arrays.get("shape")))),
        n=int(n[0]) if n else 0,
        channels=tuple(_numbers(arrays.get("channels"))),
    )


def identity(path: Path) -> str:
    """Return the SHA-256 of a file. Raises UsageError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with regular.opened(path, links=True) as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
    except OSError as error:
        raise UsageError(f"{_KEY}: {path} cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


def made(data: Data, features: Features, identity: str, n: int | None, all_of_it: bool) -> tuple[bytes, int, int]:
    """Return the bytes of a file of statistics, the number of samples, and the dimension.

    Args:
        data: the data.
        features: of samples.
        identity: of the features.
        n: number of training samples; None for all.
        all_of_it: take the held-out samples as well.

    Raises:
        UsageError: there are fewer than two samples.
    """
    sums, channels, count = GaussianSums(), torch.zeros(0, dtype=torch.float64), 0
    blocks = list(_parts(data, n, all_of_it))
    with progress.told().counting("computing features", sum(len(each) for each in blocks), unit="samples") as done:
        for block in blocks:
            for start in range(0, len(block), _AT_ONCE):
                x = as_float(block[start : start + _AT_ONCE])
                sums.add(features(x.to(_device(data))))
                own = x.double().flatten(2).mean(dim=2).sum(dim=0).cpu() if x.ndim > 2 else torch.zeros(0)
                channels, count = (channels + own if count else own), count + len(x)
                done(len(x))
    if count < 2:
        raise UsageError(f"data: found {count} samples, allowed: 2 or more")
    mu, sigma = (each.cpu().numpy() for each in sums.moments())
    buffer = io.BytesIO()
    means = channels.numpy() / count
    np.savez(buffer, mu=mu, sigma=sigma, channels=means, features=[identity], n=[count], shape=list(data.shape))
    return buffer.getvalue(), count, len(mu)


def _parts(data: Data, n: int | None, all_of_it: bool) -> Iterator[Tensor]:
    """Yield sets of samples, which may lie in a file."""
    if not isinstance(data, Finite) or n is not None:
        yield data.train_sample(n or ENDLESS)
        return
    yield data.train  # type: ignore[misc]
    if all_of_it:
        yield data.test  # type: ignore[misc]


def _device(data: Data) -> torch.device:
    return data.device if isinstance(data, Finite) else data.held_out(1).device


def _starts_as_pickle(path: Path) -> bool:
    try:
        with regular.opened(path, links=True) as file:
            return file.read(1) == b"\x80"
    except OSError as error:
        raise UsageError(f"{_KEY}: {path} cannot be read: {error.strerror or error}") from None


def _refuse_damaged(path: Path) -> None:
    """Compare the checksums of an archive's members, which mapped arrays are read without."""
    with regular.opened(path, links=True) as file, zipfile.ZipFile(file) as archive:
        try:
            damaged = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError):
            damaged = path.name
    if damaged is not None:
        raise UsageError(f"{_KEY}: {path}: damaged at {shown(damaged)}: its checksum is another")


def _is_covariance(sigma: np.ndarray) -> bool:
    """Return whether variances are not negative, and no entry is larger than Cauchy and Schwarz allow."""
    variances = np.diag(sigma).astype(np.float64)
    if (variances < -_ROUNDED * np.abs(variances).max()).any():
        return False
    deviations = np.sqrt(variances.clip(0))
    bound = np.outer(deviations, deviations) * (1 + _ROUNDED) + _ROUNDED * variances.max()
    return bool((np.abs(sigma) <= bound).all())


def _text(values: np.ndarray | None) -> str:
    return str(values[0]) if values is not None and values.dtype.kind == "U" and values.shape == (1,) else ""


def _numbers(values: np.ndarray | None) -> list[float]:
    """Return the numbers of a small array; none if it is not there, or holds what is no finite number."""
    if values is None or values.dtype.kind not in "iuf" or values.size > 16 or not np.isfinite(values).all():
        return []
    return [float(each) for each in values.flatten()]
