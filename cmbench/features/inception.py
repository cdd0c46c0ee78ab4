"""Features of the Inception network of FID (Szegedy et al. 2015; Heusel et al. 2017), by the torch-fidelity package."""

from urllib.error import URLError

import torch
from torch import Tensor

from cmbench.errors import UsageError
from cmbench.finite import as_bytes

_AT_ONCE = 64
_FILE = "weights-inception-2015-12-05-6726825d.pth"


class Inception:
    """The 2,048 features of TensorFlow's FID network, for pictures (n, 1 or 3, H, W) in [-1, 1].

    Pictures are rounded to 256 levels; the package enlarges them to 299 pixels, as in the original.

    Raises:
        UsageError: the samples are not pictures, or the package or its weights are missing.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UsageError(
                f"--features: found 'inception' for samples of shape {list(shape)}, allowed for them: pixels "
                "(it takes pictures of one or three colours)"
            )
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise UsageError(
                "--features: 'inception' needs the torch-fidelity package: pip install 'cmbench[inception]'"
            ) from None
        try:
            self._net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device)
        except (URLError, OSError) as error:
            raise UsageError(
                f"--features: 'inception' needs its weights, which could not be fetched ({error}); "
                f"put {_FILE} into {torch.hub.get_dir()}/checkpoints"
            ) from None

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the features, (n, 2048)."""
        levels = as_bytes(x).expand(-1, 3, -1, -1)
        return torch.cat([self._net(part)[0] for part in levels.split(_AT_ONCE)])
