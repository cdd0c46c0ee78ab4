"""Features of the Inception network of FID (Szegedy et al. 2015; Heusel et al. 2017), by the torch-fidelity package.

The package would read its weights as a pickle, which may run code. Here they are read as tensors alone.
"""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from cmbench.errors import UsageError
from cmbench.finite import as_bytes
from cmbench.statedicts import files

_AT_ONCE = 64
_FILE = "weights-inception-2015-12-05-6726825d.pth"
# pytorch-fid's pt_inception-2015-12-05-6726825d.pth and torch-fidelity's file above are the same bytes
PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class Inception:
    """The 2,048 features of TensorFlow's FID network, for pictures (n, 1 or 3, H, W) in [-1, 1].

    Pictures are rounded to 256 levels; the package enlarges them to 299 pixels, as in the original.

    Args:
        shape: of a picture.
        device: where features are computed.
        weights: the file of the weights; None for the file in torch's folder, which is fetched if it is not there.
        any_weights: take others than the published ones.

    Raises:
        UsageError: the samples are not pictures, the package or its weights are missing, or the weights are others.
    """

    def __init__(
        self, shape: tuple[int, ...], device: torch.device, weights: Path | None = None, any_weights: bool = False
    ) -> None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UsageError(
                f"--features: found 'inception' for samples of shape {list(shape)}, allowed for them: pixels "
                "(it takes pictures of one or three colours)"
            )
        try:
            from torch_fidelity import feature_extractor_inceptionv3 as package
        except ImportError:
            raise UsageError(
                "--features: 'inception' needs the torch-fidelity package: pip install 'cmbench[inception]'"
            ) from None
        tensors = read_weights(weights or _fetched(package.URL_INCEPTION_V3), any_weights)
        self._net = _built(package, tensors).to(device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the features, (n, 2048)."""
        parts = (as_bytes(part).expand(-1, 3, -1, -1) for part in x.split(_AT_ONCE))
        return torch.cat([self._net(part)[0] for part in parts])


def read_weights(path: Path, any_weights: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a file of weights; no code of it is run.

    Raises:
        UsageError: it cannot be read, or is not the published one.
    """
    check(path, any_weights)
    with files.opened(path) as file:
        return {entry.name: entry.read() for entry in file.entries}


def check(path: Path, any_weights: bool = False) -> str:
    """Return the SHA-256 of a file of weights.

    Raises:
        UsageError: it cannot be read, or is not the published one.
    """
    with files.opened(path) as file:
        found = file.sha256
    if found != PUBLISHED and not any_weights:
        allowed = f"allowed: {PUBLISHED[:12]}…, that of {_FILE}, or --any-weights, whose figures are no FID"
        raise UsageError(f"--inception-weights: {path}: found SHA-256 {found[:12]}…, {allowed}")
    return found


def _fetched(url: str) -> Path:
    """Return the file in torch's folder; fetch it if it is not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / _FILE
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=PUBLISHED, progress=False)
    except (URLError, OSError, RuntimeError) as error:
        why = getattr(error, "reason", None) or error
        raise UsageError(
            f"--features: 'inception' needs its weights, which could not be fetched ({why}); name their file by "
            f"--inception-weights, or put {_FILE} into {path.parent}"
        ) from None
    return path


def _built(package: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the package's network with these weights. It asks for them by a function of its module."""
    before = package.load_state_dict_from_url
    package.load_state_dict_from_url = lambda *_, **__: tensors
    try:
        return package.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except (RuntimeError, ValueError, TypeError):
        raise UsageError(
            "--inception-weights: found tensors of other names or shapes than Inception has, allowed: "
            f"{_FILE} or pt_inception-2015-12-05-6726825d.pth"
        ) from None
    finally:
        package.load_state_dict_from_url = before
