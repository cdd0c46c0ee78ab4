"""Scikit-learn's 1,797 handwritten digits of 8x8 pixels (Alpaydin & Kaynak 1998): real data without a download."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from cmbench.augmentation import Augmented
from cmbench.finite import Finite


class Config(Augmented):
    """[data] kind = "digits"."""


class Data(Finite):
    """Grey pictures (1, 8, 8) with the digit as the label; a fifth of each class is held out."""

    def __init__(self, config: Config, device: torch.device) -> None:
        digits = load_digits()
        pictures = (torch.from_numpy(digits.images) * (255 / 16)).round().to(torch.uint8)[:, None]
        train, test = train_test_split(range(len(pictures)), test_size=0.2, stratify=digits.target, random_state=0)
        labels = torch.from_numpy(digits.target)
        super().__init__(pictures[train], labels[train], pictures[test], labels[test], device)
