"""Files of weights as other code saves them: of a plain network of PyTorch's, whose names are its own."""

import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn


class Own(nn.Module):
    """A network that somebody else has written."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 4), nn.SiLU(), nn.Linear(4, 2))


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(Own().state_dict())


SHAPES = {name: tuple(tensor.shape) for name, tensor in weights().items()}


class Acts:
    """Something in a pickle that runs a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def save(path: Path, value: object, old: bool = False) -> Path:
    """Save as the name's ending says; `old`: in PyTorch's format before 1.6."""
    if path.suffix == ".safetensors":
        save_file(value, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=not old)
    return path
