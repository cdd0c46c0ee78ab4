"""The features that measures of samples compare: the samples themselves, or features of them."""

from pathlib import Path

import torch

from cmbench.engine.judge import Features, as_they_are
from cmbench.errors import UsageError

PIXELS, INCEPTION = "pixels", "inception"


def named(which: str, shape: tuple[int, ...], device: torch.device) -> Features:
    """Return the features that `--features` means, for samples of `shape`.

    Args:
        which: "pixels" (the samples as they are), "inception", or the safetensors file of a classifier.
        shape: of a sample.
        device: where features are computed.

    Raises:
        UsageError: the features are not available, or are for other samples.
    """
    if which == PIXELS:
        return as_they_are
    if which == INCEPTION:
        from cmbench.features.inception import Inception

        return Inception(shape, device)
    from cmbench.features.classifier import Classifier

    if not which.endswith(".safetensors"):
        raise UsageError(f"--features: found '{which}', allowed: pixels, inception, or a .safetensors file")
    classifier = Classifier.load(Path(which))
    if classifier.shape != shape:
        found, allowed = list(classifier.shape), list(shape)
        raise UsageError(f"--features: {which} is of samples of shape {found}, allowed: {allowed}, as the run's")
    return classifier.to(device).features
