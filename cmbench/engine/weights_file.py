"""Weights from a file that other code has written, with the network and path that a recipe names for it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmbench import recipe as recipes
from cmbench.engine import build
from cmbench.engine.weights import Trained, shell_of
from cmbench.errors import UsageError, prefixing
from cmbench.model import Model
from cmbench.recipe import Recipe, is_own_class
from cmbench.statedicts import files, openai
from cmbench.statedicts.files import Entry, File
from cmbench.statedicts.match import Match, match, refuse_misfits
from cmbench.statedicts.names import OPENAI
from cmbench.tables import Start, Teacher
from cmbench.text import cut

FLOATS = ("float64", "float32", "float16", "bfloat16")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
_AS_STUDENT = ("precision", "matmul_precision")  # keys of [train]
_ROUNDING = 1e-3  # of constants, which a file may hold in half precision
# What weights compute -> objectives that train it, the first that knows the path; none of them needs a teacher.
TRAINED_BY = {"denoiser": ("denoise",), "consistency": ("ct", "continuous"), "average_velocity": ("meanflow",)}


@dataclass(frozen=True)
class Weights:
    """What a file has of a network.

    Attributes:
        file: closed.
        match: its tensors by the network's names.
        converted: numbers of tensors by the type that they had in the file, where it is another.
        tensors: by the network's names, floats as float32; empty if only names and shapes were asked for.
        constants: the values of the match's constants, likewise.
    """

    file: File
    match: Match
    converted: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    constants: Sequence[Tensor] = ()

    @property
    def source(self) -> dict[str, str]:
        """Where the weights come from, for meta.json."""
        named = {"weights": self.match.weights} if self.match.weights else {}
        types = {"converted": self.types} if self.converted else {}
        return {"file": str(self.file.path), "sha256": self.file.sha256, **named, **types}

    @property
    def types(self) -> str:
        """The types that became float32, in words; empty if all were."""
        return ", ".join(f"{n} tensors from {dtype}" for dtype, n in self.converted.items())


@dataclass(frozen=True)
class Asked:
    """Which weights are meant.

    Attributes:
        file: of weights, or a folder of diffusers.
        weights: which of its state dicts; empty if there is only one.
        allow_missing: patterns of names that it may lack.
        allow_unexpected: patterns of names that it may have beyond the network's.
    """

    file: Path
    weights: str = ""
    allow_missing: Sequence[str] = ()
    allow_unexpected: Sequence[str] = ()


def recipe_of(config: Teacher | Start, student: Recipe, table: str) -> Recipe:
    """Return the recipe that stands for a file's weights: their network, path and objective.

    Args:
        config: the student's [teacher] or [start].
        student: its complete recipe, from which everything comes that the table leaves out.
        table: "teacher" or "start", for messages.
    """
    path = config.path or student.path.model_dump(mode="json")
    kind = objective_for(config.function or "denoiser", path["kind"], f"{table}.function")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(config.file or "").stem).strip("-_")[:64] or "weights"
    tables = {"name": name, "seed": student.seed, "data": student.data, "path": path}
    network = described(config.network, Path(config.file or "")) if config.network else student.network
    tables |= {"network": network, "objective": {"kind": kind}}
    tables |= {"ema": {"lengths": []}, "train": {key: getattr(student.train, key) for key in _AS_STUDENT}}
    return unplaced(build.complete(recipes.check_tables(tables, table), table))


def described(network: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return a table [network] which, for a network of diffusers without settings, names the folder that has them.

    Args:
        network: the table.
        file: of its weights; of diffusers, a folder with its config.json.
    """
    if network.get("kind") == "diffusers" and not (network.get("settings") or network.get("folder")):
        for folder in files.places(file):
            if (folder / "config.json").is_file():
                kept = {key: own for key, own in network.items() if key not in ("model", "settings")}
                return {**kept, "folder": str(folder)}
    return dict(network)


def unplaced(recipe: Recipe) -> Recipe:
    """Return a complete recipe whose network of diffusers has no folder: its settings stand in the recipe by now."""
    if recipe.network["kind"] != "diffusers":
        return recipe
    return recipe.model_copy(update={"network": {**recipe.network, "folder": ""}})


def objective_for(function: str, path: str, key: str = "function") -> str:
    """Return the objective that stands for what weights compute on a path.

    Raises:
        UsageError: there is no such function on this path.
    """
    for kind in TRAINED_BY[function]:
        if path in build.component("objective", kind)[0].paths:
            return kind
    paths = ", ".join(p for kind in TRAINED_BY[function] for p in build.component("objective", kind)[0].paths)
    raise UsageError(f"{key}: found '{function}' on path '{path}', allowed for it: the paths {paths}")


def load(
    config: Teacher | Start, student: Recipe, shape: tuple[int, ...], classes: int, device: torch.device, table: str
) -> Trained:
    """Load the weights that [teacher] or [start] names by file.

    Args:
        config: the table.
        student: the complete recipe.
        shape: of one sample of its data.
        classes: of its data.
        device: where the model goes.
        table: "teacher" or "start", for messages.

    Raises:
        UsageError: the file cannot be read, or does not fit the network.
    """
    recipe = recipe_of(config, student, table)
    with prefixing(f"{table}.file"):
        asked = Asked(
            Path(config.file or ""), config.weights or "", config.allow_missing or (), config.allow_unexpected or ()
        )
        return trained(read(asked, recipe, shape, classes), recipe, shape, classes, device)


def read(asked: Asked, recipe: Recipe, shape: tuple[int, ...], classes: int, only_names: bool = False) -> Weights:
    """Read the tensors of a recipe's network from a file.

    Args:
        asked: which file, and what of it.
        recipe: complete.
        shape: of one sample.
        classes: of the data.
        only_names: read no tensor, and refuse nothing that does not match.

    Raises:
        UsageError: the file cannot be read, does not fit, or holds values that are no weights.
    """
    network = (shell_of(recipe, shape, classes) or build.model(recipe, shape, classes, torch.device("cpu"))).F_theta
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    constants = {name for name, _ in network.named_buffers()} - expected.keys()
    buffers, kind = {name for name, _ in network.named_buffers()}, recipe.network["kind"]
    ordered = kind == "diffusers" or is_own_class(kind)  # it is the very class of the file's code
    with files.opened(asked.file) as file:
        found = match(file, expected, kind, asked.weights, constants, buffers, ordered)
        kinds = Counter(entry.dtype for entry in found.pairs.values() if entry.dtype in FLOATS)
        converted = {dtype: n for dtype, n in kinds.items() if dtype != "float32"}
        if found.author == OPENAI and (why := openai.difference(recipe.network, expected)):
            raise UsageError(f"{file.path}: has the names of OpenAI's network, but {why}")
        if only_names:
            return Weights(file, found, converted, {})
        refuse_misfits(found, str(file.path), asked.allow_missing, asked.allow_unexpected)
        tensors = {name: _sound(entry, file) for name, entry in found.pairs.items()}
        return Weights(file, found, converted, tensors, [_sound(entry, file) for _, entry in found.constants])


def trained(found: Weights, recipe: Recipe, shape: tuple[int, ...], classes: int, device: torch.device) -> Trained:
    """Return the model of a recipe with weights from a file; those that may be missing follow from the seed.

    Raises:
        UsageError: the values do not fit the network.
    """
    model = build.model(recipe, shape, classes, device)
    _fill(model, found)
    objective, _ = build.component("objective", recipe.objective["kind"])
    return Trained(model.eval(), recipe, objective.sampler, classes, 0, "none", 0.0, found.source)


def _fill(model: Model, found: Weights) -> None:
    """Set a model's weights; refuse values that the network cannot take."""
    network, match = model.F_theta, found.match
    own, built = network.state_dict(), dict(network.named_buffers())
    for name, tensor in found.tensors.items():
        if own[name].is_floating_point() != tensor.is_floating_point():
            here, there = (str(t.dtype).removeprefix("torch.") for t in (own[name], tensor))
            raise UsageError(f"{found.file.path}: {cut(name, 80)}: found {there}, allowed: {here}")
    network.load_state_dict({**own, **found.tensors})
    for name, tensor in found.tensors.items():
        if not _equal(own[name], tensor):
            raise UsageError(
                f"{found.file.path}: {cut(name, 80)}: has other values than the tensor that shares its place in the "
                "network; allowed: equal ones"
            )
    for (name, entry), tensor in zip(match.constants, found.constants, strict=True):
        if not _equal(built[name], tensor, _ROUNDING):
            raise UsageError(
                f"{found.file.path}: {cut(entry.name, 80)}: has other values than the network's settings give; "
                "allowed: the settings of the file's network"
            )


def _equal(here: Tensor, there: Tensor, tolerance: float = 0.0) -> bool:
    here = here.detach().cpu()
    return here.shape == there.shape and torch.allclose(here, there.to(here.dtype), rtol=tolerance, atol=tolerance)


def _sound(entry: Entry, file: File) -> Tensor:
    """Read a tensor, floats as float32.

    Raises:
        UsageError: it has another type, or values that are not finite.
    """
    name = f"{file.path}: {cut(entry.name, 80)}"
    if entry.dtype not in (*FLOATS, *_INTEGERS):
        raise UsageError(f"{name}: found {entry.dtype}, allowed: {', '.join(FLOATS)}")
    try:
        tensor = entry.read().contiguous()
    except Exception as error:  # the file may be damaged where its header does not say so
        raise UsageError(f"{name}: cannot be read: {' '.join(str(error).split())[:120]}") from None
    if not tensor.is_floating_point():
        return tensor.clone()
    tensor = tensor.to(torch.float32, copy=True)
    if lost := int((~tensor.isfinite()).sum()):
        raise UsageError(f"{name}: {lost:,} of {tensor.numel():,} values are not finite in float32")
    return tensor
