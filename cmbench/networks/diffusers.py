"""Networks of the diffusers package, unmodified: its U-Net for pictures, and DiT (Peebles & Xie 2023).

One is made from the keys of its own config, or from a local folder with `config.json` and weights as safetensors.
Nothing is fetched, and no pickle is read.
"""

import inspect
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cmbench import regular
from cmbench.config import Config as BaseConfig
from cmbench.errors import UsageError, did_you_mean
from cmbench.networks._pictures import pictures
from cmbench.text import shown

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_LARGEST_CONFIG, _LARGEST_WEIGHTS = 2**20, 2**36  # bytes
_REFUSALS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError)  # of diffusers
_NONE = "none"  # TOML has no null
_OTHER_NAMES = {"Transformer2DModel": "DiTTransformer2DModel"}  # what DiT's published folders say
_CHANNELS = ("in_channels", "out_channels")
_LABELS = {"UNet2DModel": "num_class_embeds", "DiTTransformer2DModel": "num_embeds_ada_norm"}


class Config(BaseConfig):
    """[network] kind = "diffusers".

    With `folder` alone, its config.json is read once and written out as `model` and `settings`: a run keeps those.
    """

    model: Literal["UNet2DModel", "DiTTransformer2DModel"] = Field("UNet2DModel", description="class of diffusers")
    settings: dict[str, Any] = Field({}, description="keys of that class's config; 'none' for null")
    folder: str = Field("", description="local folder with config.json and weights to start from; empty: none")
    class_conditional: bool = Field(False, description="give the network the labels")

    @model_validator(mode="before")
    @classmethod
    def _from_folder(cls, given: Any) -> Any:
        folder = given.get("folder") if isinstance(given, dict) else None
        if not folder or not isinstance(folder, str) or given.get("settings"):
            return given
        place = Path(folder).expanduser().absolute()
        found = _config_of(place)
        name = found.get("_class_name")
        name = _OTHER_NAMES.get(name, name) if isinstance(name, str) else name
        if not isinstance(name, str) or name not in _LABELS:
            raise ValueError(f"folder: found {shown(name)} in {place / _CONFIG}, allowed: {', '.join(_LABELS)}")
        if given.get("model", name) != name:
            raise ValueError(f"model: found {shown(given['model'])}, allowed for {place}: {name}")
        own = {key: _NONE if value is None else value for key, value in found.items() if not key.startswith("_")}
        return {**given, "model": name, "settings": own, "folder": str(place)}


def _config_of(folder: Path) -> dict[str, Any]:
    """Return config.json of a folder.

    Raises:
        ValueError: it cannot be read, or is no JSON object.
    """
    try:
        found = json.loads(regular.read(folder / _CONFIG, _LARGEST_CONFIG, links=True))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "not JSON"
        raise ValueError(f"folder: found {folder}, whose {_CONFIG} cannot be read: {why}") from None
    if not isinstance(found, dict):
        raise ValueError(f"folder: found {folder}, whose {_CONFIG} is no table")
    return found


class Network(nn.Module):
    """F_theta(x, c_noise, labels) for x (B, C, H, W): the diffusers network `net`, whose timestep is c_noise.

    Networks that predict a variance too, as DiT's, have it cut off: F_theta are the first C channels.

    Raises:
        UsageError: the package is missing, or the settings, the data or the objective do not fit the network.
    """

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int, times: int = 1) -> None:
        super().__init__()
        if times != 1:
            raise UsageError("network.kind: found 'diffusers', allowed for an objective of two times: unet, dit, edm2")
        self.colours, size = pictures("diffusers", shape)
        self.folder, self.model = config.folder, config.model
        settings = _settings(config, self.colours, size, classes)
        self.net = _built(config.model, settings)
        self._unlabelled = False  # whether this pass has no labels
        if (embedding := getattr(self.net, "class_embedding", None)) is not None:
            embedding.register_forward_hook(self._silenced)
        if config.model == "DiTTransformer2DModel":
            for module in self.net.modules():
                if hasattr(module, "dropout_prob"):
                    module.dropout_prob = 0.0  # dropping labels is the objective's, with random numbers of the step
        found = self.net.config.out_channels or self.net.config.in_channels
        if found not in (self.colours, 2 * self.colours) or self.net.config.in_channels != self.colours:
            raise UsageError(
                f"network.settings: found {self.net.config.in_channels} channels in and {found} out, allowed for these "
                f"data: {self.colours} in, {self.colours} out, or {2 * self.colours} with a variance, which is cut off"
            )

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return F_theta. x (B, C, H, W), c_noise (B,), labels (B,) -> (B, C, H, W)."""
        self._unlabelled = labels is None
        if labels is None and self.model == "DiTTransformer2DModel":
            labels = torch.full((x.shape[0],), self.net.config.num_embeds_ada_norm, device=x.device)  # its empty label
        elif labels is None and self.net.class_embedding is not None:
            labels = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)  # any, as `_silenced` takes it away
        (y,) = self.net(x, c_noise, class_labels=labels, return_dict=False)
        return y[:, : self.colours]

    def _silenced(self, module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        """Let no labels count as a label without content, where the U-Net insists on some."""
        return torch.zeros_like(embedded) if self._unlabelled else embedded

    def bring_weights(self) -> None:
        """Load the folder's weights. See `contracts.BringsWeights`.

        Raises:
            UsageError: they cannot be read, or belong to another network.
        """
        if self.folder:
            self.net.load_state_dict(_weights_of(Path(self.folder), self.net.state_dict()))


def _settings(config: Config, colours: int, size: tuple[int, int], classes: int) -> dict[str, Any]:
    """Return the keys for the class: the recipe's, and what the data say where it says nothing."""
    own = {key: None if value == _NONE else value for key, value in config.settings.items()}
    of_labels, dit = _LABELS[config.model], config.model == "DiTTransformer2DModel"
    if dit and size[0] != size[1]:
        found = f"{size[0]}x{size[1]}"
        raise UsageError(f"network.kind: found 'diffusers' for pictures of {found}, allowed for DiT: square pictures")
    if classes:
        own.setdefault(of_labels, classes)
    labels = own.get(of_labels)
    if classes and (not isinstance(labels, int) or labels < classes) and own.get("class_embed_type") is None:
        raise UsageError(f"network.settings.{of_labels}: found {shown(labels)}, allowed: at least {classes} classes")
    if not classes and not dit and (labels is not None or own.get("class_embed_type") is not None):
        raise UsageError("network.class_conditional: found false, allowed for a network with labels: true")
    own.setdefault("sample_size", size[0] if size[0] == size[1] else list(size))
    for key in _CHANNELS:
        own.setdefault(key, colours)
    return own


def _built(model: str, settings: dict[str, Any]) -> Any:
    """Return the network with random weights.

    Raises:
        UsageError: the package is missing, or it refuses the settings.
    """
    cls = _class_of(model)
    known = list(inspect.signature(cls.__init__).parameters)[1:]
    # Published folders hold keys of former versions, which say that something is not there.
    own = {key: value for key, value in settings.items() if key in known or value not in (None, False)}
    if unknown := [key for key in own if key not in known]:
        raise UsageError(
            f"network.settings.{unknown[0]}: unknown key{did_you_mean(unknown[0], known)} (allowed: {', '.join(known)})"
        )
    try:
        return cls(**own)
    except _REFUSALS as error:
        why = " ".join(str(error).split())
        raise UsageError(f"network.settings: {model} does not take them: {why}") from None


def _class_of(model: str) -> Any:
    """Return a class of the package.

    Raises:
        UsageError: the package is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it loads a lot, of which nothing is used here
            import diffusers

            return getattr(diffusers, model)
    except (ImportError, RuntimeError):  # it raises RuntimeError where one of its own parts cannot be imported
        raise UsageError(
            "network.kind: 'diffusers' needs the diffusers package: pip install 'cmbench[diffusers]'"
        ) from None


def _weights_of(folder: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a folder, which must be those that are expected."""
    path = folder / _WEIGHTS
    try:
        found = load(regular.read(path, _LARGEST_WEIGHTS, links=True))
    except FileNotFoundError:
        raise UsageError(f"network.folder: found {folder}, allowed: a folder with {_WEIGHTS}{_else(folder)}") from None
    except (OSError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"network.folder: {path} cannot be read as safetensors: {why}") from None
    missing, unexpected = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or unexpected:
        name, what = (min(missing), "lacks") if missing else (min(unexpected), "has")
        count = len(missing) + len(unexpected)
        raise UsageError(f"network.folder: {path} {what} {name:.80}, of another network ({count} names differ)")
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            shapes = f"found {list(found[name].shape)}, allowed: {list(tensor.shape)}"
            raise UsageError(f"network.folder: {path}: {name:.80}: {shapes}")
        if found[name].is_floating_point() and not found[name].isfinite().all():
            raise UsageError(f"network.folder: {path}: {name:.80} holds numbers that are not finite")
    return found


def _else(folder: Path) -> str:
    """Return what else a folder offers that is not read."""
    others = [name for name in ("diffusion_pytorch_model.bin", f"{_WEIGHTS}.index.json") if (folder / name).exists()]
    if not others:
        return ""
    how = "a pickle" if others[0].endswith(".bin") else "weights in several files"
    return f"; {others[0]} is {how}: save them anew with save_pretrained(folder, max_shard_size='100GB')"
