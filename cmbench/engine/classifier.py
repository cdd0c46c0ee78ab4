"""A small picture classifier for its features, in which the classes matter more than the pixels."""

import torch
from torch.nn.functional import cross_entropy

from cmbench.contracts import Data
from cmbench.errors import UsageError
from cmbench.features.classifier import About, Classifier
from cmbench.finite import Finite, as_float
from cmbench.randomness import StepRandom, forked_seed

_BATCH, _LR, _WIDTH = 128, 1e-3, 32
_AT_ONCE = 1024  # held-out pictures


def train(data: Data, steps: int, seed: int) -> Classifier:
    """Train two convolutions and two linear layers; the features are the 64 inputs of the last layer.

    Raises:
        UsageError: the data are not pictures, or have fewer than two classes.
    """
    if not isinstance(data, Finite) or len(data.shape) != 3 or data.classes < 2:
        raise UsageError("data.kind: allowed for a classifier: pictures of two or more classes (digits, images)")
    with forked_seed(seed):
        net = Classifier(_about(tuple(data.shape), data.classes)).to(data.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=_LR)
    for step in range(steps):
        x_0, labels = data.batch(_BATCH, StepRandom(data.device, seed, step))
        optimizer.zero_grad()
        cross_entropy(net(x_0), labels).backward()
        optimizer.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: Classifier, data: Data) -> float:
    """Return the share of held-out samples that are classified correctly."""
    assert isinstance(data, Finite)  # else `train` refuses
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(data.test), _AT_ONCE)]
    right = (
        net(as_float(data.test[part].to(data.device))).argmax(dim=1).cpu() == data.test_labels[part] for part in parts
    )
    return float(torch.cat(list(right)).double().mean())


def _about(shape: tuple[int, ...], classes: int) -> About:
    colours, height, width = shape
    picture = 2 * _WIDTH * ((height + 1) // 2) * ((width + 1) // 2)
    first = {"in_channels": colours, "out_channels": _WIDTH, "kernel_size": 3, "padding": 1}
    second = {"in_channels": _WIDTH, "out_channels": 2 * _WIDTH, "kernel_size": 3, "padding": 1, "stride": 2}
    layers = [("Conv2d", first), ("ReLU", {}), ("Conv2d", second), ("ReLU", {}), ("Flatten", {})]
    layers += [("Linear", {"in_features": picture, "out_features": 64}), ("ReLU", {})]
    logits = ("Linear", {"in_features": 64, "out_features": classes})
    return About(shape=shape, layers=[*layers, logits], features=len(layers))
