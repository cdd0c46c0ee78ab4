"""Finite sets of points in the plane, standardised to a standard deviation of .5 for each coordinate."""

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.datasets import make_moons

from cmbench.config import Config as BaseConfig
from cmbench.config import NonNegative, Samples
from cmbench.finite import Finite


class Config(BaseConfig):
    """[data] kind = "points"."""

    name: Literal["spirals", "moons"] = Field("spirals", description="two interleaved spirals, or two half moons")
    size: Samples = Field(2000, description="points in the training set; as many again are held out")
    noise: NonNegative = Field(0.05, description="standard deviation of the noise on each coordinate, before scaling")


class Data(Finite):
    """Points with the arm or moon as the label."""

    def __init__(self, config: Config, device: torch.device) -> None:
        make = {"spirals": _spirals, "moons": _moons}[config.name]
        x, arms = make(2 * config.size, config.noise)
        x = 0.5 * (x - x.mean(axis=0)) / x.std(axis=0)
        order = np.random.default_rng(0).permutation(len(x))
        points, labels = torch.from_numpy(x[order]).float(), torch.from_numpy(arms[order])
        half = config.size
        super().__init__(points[:half], labels[:half], points[half:], labels[half:], device)


def _spirals(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Two Archimedean spirals of one and a half turns, evenly filled along the arm."""
    random = np.random.default_rng(0)
    angle = 3 * np.pi * np.sqrt(random.uniform(0.01, 1, n))
    labels = random.integers(0, 2, n)
    sign = 1 - 2 * labels
    arm = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) * sign[:, None] / (3 * np.pi)
    return arm + noise * random.standard_normal((n, 2)), labels


def _moons(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    return make_moons(n, noise=noise, random_state=0)
