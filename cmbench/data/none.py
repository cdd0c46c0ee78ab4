"""No data: the shape of samples and the number of classes alone, for weights that are imported without their data."""

import math

import torch
from pydantic import Field, model_validator

from cmbench.config import Config as BaseConfig
from cmbench.config import Ints
from cmbench.errors import UsageError

_LARGEST = 1 << 22  # numbers in a sample


class Config(BaseConfig):
    """[data] kind = "none"."""

    shape: Ints = Field((), description="shape of a sample, needed: [C, H, W] of pictures, [d] of points")
    classes: int = Field(1, ge=1, le=2**20, description="number of labels")

    @model_validator(mode="after")
    def _is_a_shape(self) -> "Config":
        if not self.shape or min(self.shape) < 1 or math.prod(self.shape) > _LARGEST:
            raise ValueError(f"shape: found {list(self.shape)}, allowed: sizes from 1, such as [3, 32, 32]")
        return self


class Data:
    """A data set that cannot be read.

    Raises:
        UsageError: always: there is nothing to train on or to compare with.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        raise UsageError("data.kind: found 'none', allowed here: data with samples, such as those of a recipe")

    @staticmethod
    def shape_and_classes(config: Config) -> tuple[tuple[int, ...], int]:
        """Return the shape of a sample and the number of labels."""
        return config.shape, config.classes
