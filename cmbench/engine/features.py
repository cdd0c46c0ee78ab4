"""The features that measures of samples compare: the samples themselves, or features of them."""

from pathlib import Path

import torch
from torch import Tensor

from cmbench.engine.judge import Features, as_they_are
from cmbench.errors import UsageError
from cmbench.model import products

PIXELS, INCEPTION = "pixels", "inception"


def identity_of_inception(weights: Path, any_weights: bool) -> str:
    """Return what identifies Inception's features with the weights of a file.

    Raises:
        UsageError: it cannot be read, or is not the published one.
    """
    from cmbench.features.inception import PUBLISHED, check

    found = check(weights, any_weights)
    return INCEPTION if found == PUBLISHED else f"{INCEPTION} {found}"


def named(
    which: str,
    shape: tuple[int, ...],
    device: torch.device,
    weights: Path | None = None,
    any_weights: bool = False,
) -> Features:
    """Return the features that `--features` means, for samples of `shape`.

    Args:
        which: "pixels" (the samples as they are), "inception", the safetensors file of a classifier, or an ONNX graph.
        shape: of a sample.
        device: where features are computed.
        weights: the file of Inception's weights; None for the usual place.
        any_weights: take others than the published ones.

    Raises:
        UsageError: the features are not available, or are for other samples.
    """
    if which == PIXELS:
        return as_they_are
    found = _of_network(which, shape, device, weights, any_weights)

    def exact(x: Tensor) -> Tensor:
        with products("highest", device):  # torch's default on a GPU is TF32 in convolutions
            return found(x)

    return exact


def _of_network(
    which: str, shape: tuple[int, ...], device: torch.device, weights: Path | None, any_weights: bool
) -> Features:
    if which == INCEPTION:
        from cmbench.features.inception import Inception

        return Inception(shape, device, weights, any_weights)
    if which.endswith(".onnx"):
        from cmbench.features.exported import Exported

        return Exported(Path(which), shape, device)
    from cmbench.features.classifier import Classifier

    if not which.endswith(".safetensors"):
        raise UsageError(f"--features: found '{which}', allowed: pixels, inception, .safetensors or .onnx")
    classifier = Classifier.load(Path(which))
    if classifier.shape != shape:
        found, allowed = list(classifier.shape), list(shape)
        raise UsageError(f"--features: {which} is of samples of shape {found}, allowed: {allowed}, as the run's")
    return classifier.to(device).features
