"""Distances d(x, y) between predictions, per sample: (B, ...) and (B, ...) -> (B,)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cmbench.errors import UsageError

Distance = Callable[[Tensor, Tensor], Tensor]
DistanceName = Literal["l2", "norm", "pseudo_huber", "lpips"]

_LARGEST_C = 1e18  # its square still fits a float32
_LPIPS_SIZE = 224  # smaller pictures are enlarged to this, as in Song et al. 2023, app. C


def l2(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean square over all elements, as in the released code of Song et al. 2023."""
    return (x - y).square().flatten(1).mean(dim=1)


def norm(x: Tensor, y: Tensor) -> Tensor:
    """Return ||x - y||_2 over the whole vector: pseudo-Huber at c = 0 (Geng et al. 2024)."""
    return (x - y).flatten(1).norm(dim=1)


def pseudo_huber(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Return sqrt(||x - y||^2 + c^2) - c over the whole vector (Song & Dhariwal 2023, section 3.3)."""
    square = (x - y).square().flatten(1).sum(dim=1)
    return square / (torch.sqrt(square + c**2) + c)  # the same number without cancellation near zero


def pseudo_huber_c(dimensions: int) -> float:
    """Return c = .00054 sqrt(D) (Song & Dhariwal 2023, section 3.3)."""
    return 0.00054 * dimensions**0.5


class LPIPS:
    """Learned perceptual distance on VGG features (Zhang et al. 2018), by the torchmetrics package.

    It takes pictures (B, 1 or 3, H, W) in [-1, 1] and enlarges smaller ones to 224 pixels.

    Raises:
        UsageError: the package or its VGG weights are missing.
    """

    def __init__(self) -> None:
        try:
            from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
        except ImportError:
            raise UsageError(
                "objective.distance: 'lpips' needs the torchmetrics package: pip install 'cmbench[lpips]'"
            ) from None
        try:
            self.net: nn.Module = LearnedPerceptualImagePatchSimilarity(net_type="vgg").net
        except (URLError, OSError) as error:
            raise UsageError(
                "objective.distance: 'lpips' needs torchvision's vgg16 weights, which could not be fetched "
                f"({error}); put vgg16-397923af.pth into {torch.hub.get_dir()}/checkpoints"
            ) from None
        self.net.requires_grad_(False)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance of each pair, (B,)."""
        net = self.net.to(x.device)
        return net(self._enlarge(x), self._enlarge(y)).flatten()

    @staticmethod
    def _enlarge(x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1)
        if x.shape[-1] >= _LPIPS_SIZE:
            return x
        return interpolate(x, size=_LPIPS_SIZE, mode="bilinear", align_corners=False)


def named(kind: DistanceName, shape: tuple[int, ...], huber_c: float) -> Distance:
    """Return the distance that a recipe names, for samples of `shape`; a huber_c of 0 means the published value.

    Raises:
        UsageError: the square of huber_c exceeds float32, or the data for lpips are not pictures of one or three
            colours.
    """
    if kind in ("l2", "norm"):
        return l2 if kind == "l2" else norm
    if kind == "pseudo_huber":
        if huber_c > _LARGEST_C:
            raise UsageError(f"objective.huber_c: found {huber_c:g}, allowed: up to {_LARGEST_C:g}")
        return partial(pseudo_huber, c=huber_c or pseudo_huber_c(math.prod(shape)))
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UsageError(
            f"objective.distance: found 'lpips' for data of shape {shape}, allowed: 'l2', 'norm' or 'pseudo_huber' "
            "(lpips compares pictures of one or three colours)"
        )
    return LPIPS().distance
