"""A stand-in for data whose files are not here: normal noise of the same shape and standard deviation."""

import torch

from cmbench.finite import Finite

_SIZE = 256  # samples, in training and held out


def like(shape: tuple[int, ...], classes: int, sigma_data: float, device: torch.device) -> Finite:
    """Return a data set of samples N(0, sigma_data^2) of `shape`, with labels in turn, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    train, test = sigma_data * torch.randn(2, _SIZE, *shape, generator=generator)
    labels = torch.arange(_SIZE) % classes
    labels[-1] = classes - 1  # however many there are, Finite counts them by the highest
    return Finite(train, labels, test, labels, device)
