"""A classifier in a safetensors file; measures may compare its features."""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cmbench.config import Config, Ints
from cmbench.errors import UsageError
from cmbench.text import cut

FORMAT = "cmbench-classifier-1"
_AT_ONCE = 1024
_LAYERS = ("Conv2d", "Linear", "ReLU", "SiLU", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "BatchNorm2d", "Flatten")


class About(Config):
    """The metadata of the file, under "classifier" as JSON."""

    format: str = Field(FORMAT, pattern=f"^{FORMAT}$", description=FORMAT)
    shape: Ints = Field(description="of a sample")
    layers: list[tuple[str, dict[str, Any]]] = Field(
        description="torch.nn's names with their arguments, called in turn", min_length=1
    )
    features: int = Field(ge=1, description="the output of so many layers are the features")


class Classifier(nn.Module):
    """A sequence of torch.nn layers. The last gives the logits, an earlier one the features.

    The file holds the tensors of a torch.nn.Sequential ("0.weight", "0.bias", ...) and `About` in its metadata.
    """

    def __init__(self, about: About) -> None:
        super().__init__()
        self.about, self.shape = about, tuple(about.shape)
        self.net = nn.Sequential(*(getattr(nn, name)(**arguments) for name, arguments in about.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of samples (n, *shape), (n, classes)."""
        return self.net(x)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Return the features of samples (n, *shape), (n, d)."""
        return torch.cat([self.net[: self.about.features](part).flatten(1) for part in x.split(_AT_ONCE)])

    def to_safetensors(self) -> bytes:
        """Return the classifier as the bytes of its file."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.net.state_dict().items()}
        return save(tensors, {"classifier": self.about.model_dump_json()})

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read a classifier.

        Raises:
            UsageError: the file cannot be read, or holds no classifier.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = (file.metadata() or {}).get("classifier", "{}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file is no dict
        except (OSError, SafetensorError) as error:
            raise UsageError(f"--features: {path} cannot be read: {error}") from None
        try:
            classifier = cls(_checked(about))
            classifier.net.load_state_dict(tensors)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = cut(" ".join(str(error).split()), 200)
            raise UsageError(
                f"--features: {path} is no classifier ({reason}), allowed: what `cmbench classifier` writes"
            ) from None
        return classifier.eval().requires_grad_(False)


def _checked(text: str) -> About:
    try:
        about = About.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"metadata: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    if unknown := [name for name, _ in about.layers if name not in _LAYERS]:
        raise ValueError(f"layers: found '{unknown[0]}', allowed: {', '.join(_LAYERS)}")
    if about.features > len(about.layers):
        raise ValueError(f"features: found {about.features}, allowed: up to {len(about.layers)}")
    return about
