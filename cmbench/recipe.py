"""Recipes: TOML files as checked tables, with `extends` and overrides. Imports no torch, so that views may use it.

The tables of components ([data], [network], [objective]) are checked by their own `Config` when the engine is built
(`engine.build`); all others are here.
"""

import re
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
import tomli_w
from pydantic import BeforeValidator, Field, model_validator

from cmbench.config import Config, Floats, Ints, NonNegative, Positive, PositiveInt, check
from cmbench.errors import UsageError, nearest

PACKAGE = Path(__file__).parent
COMPONENTS = {"data": "data", "network": "networks", "objective": "objectives"}  # table -> folder

Tables = dict[str, Any]
DEVICE = r"^(auto|cpu|cuda(:\d+)?)$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
# A length such as 0.999 may be written as a number.
EmaName = Annotated[str, BeforeValidator(lambda value: repr(value) if isinstance(value, float) else value)]


def is_own_class(kind: str) -> bool:
    """Return whether a kind has the form module:Class."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", kind) is not None


class PathTable(Config):
    """[path]: the probability path and its range, in EDM noise levels whatever the path."""

    kind: Literal["edm", "vp", "trigflow", "linear"] = Field("edm", description="edm, vp, trigflow or linear")
    sigma_data: Positive = Field(0.5, description="standard deviation of the data")
    sigma_min: Positive = Field(0.002, description="noise level at which f is the identity")
    sigma_max: Positive = Field(80.0, description="noise level at which sampling starts")

    @model_validator(mode="after")
    def _ordered(self) -> "PathTable":
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min: found {self.sigma_min}, allowed: less than sigma_max = {self.sigma_max}")
        return self


class Teacher(Config):
    """[teacher]: the denoiser that distillation follows."""

    kind: str = Field("oracle", description="oracle, run, or module:Class (built with the data set)")
    run: str = Field("", description="kind run: a selector: a path, a prefix, @latest or @latest:PREFIX")
    ema: EmaName = Field("", description="kind run: which EMA of it; empty: the first; none: the raw weights")
    initialise_student: bool = Field(False, description="kind run: start from the teacher's weights")

    @model_validator(mode="after")
    def _keys_fit(self) -> "Teacher":
        if self.kind not in ("oracle", "run") and not is_own_class(self.kind):
            hint = nearest(self.kind, ["oracle", "run"])
            raise ValueError(f"kind: found '{self.kind}', allowed: 'oracle', 'run' or 'module:Class'{hint}")
        if self.kind == "run" and not self.run:
            raise ValueError("run: missing, and kind = 'run' needs it (a path, a prefix, @latest or @latest:PREFIX)")
        if self.kind != "run" and (self.run or self.ema or self.initialise_student):
            raise ValueError(f"kind: found '{self.kind}', allowed: 'run' where run, ema or initialise_student is set")
        return self


class Optimizer(Config):
    """[optimizer]."""

    kind: Literal["radam", "adam", "adamw"] = Field("radam", description="radam, adam or adamw")
    lr: Positive = Field(1e-4, description="learning rate after the warm-up")
    betas: Floats = Field((0.9, 0.999), description="decay of the moments")
    eps: Positive = Field(1e-8, description="added to the root of the second moment")
    weight_decay: NonNegative = Field(0.0, description="decoupled for adamw, L2 for the others")
    warmup: int = Field(0, ge=0, description="steps of linear warm-up")
    decay: Literal["none", "cosine", "inverse_sqrt"] = Field("none", description="none, cosine or inverse_sqrt")
    decay_after: int = Field(0, ge=0, description="inverse_sqrt: constant until this step; cosine: likewise")
    clip: NonNegative = Field(0.0, description="largest norm of the gradient; 0: not clipped")

    @model_validator(mode="after")
    def _in_range(self) -> "Optimizer":
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: found {list(self.betas)}, allowed: two numbers in [0, 1)")
        if self.decay == "inverse_sqrt" and not self.decay_after:
            raise ValueError("decay_after: found 0, allowed: at least 1 for decay = 'inverse_sqrt'")
        return self


class Ema(Config):
    """[ema]: averages of the weights for sampling; the target's average belongs to the objective."""

    profile: Literal["constant", "power"] = Field("constant", description="constant decay, or EDM2's power function")
    lengths: Floats = Field((0.999,), description="constant: decays; power: sigma_rel; the first is sampled from")

    @model_validator(mode="after")
    def _in_range(self) -> "Ema":
        upper = 1.0 if self.profile == "constant" else 0.28
        if not all(0 < length < upper for length in self.lengths) or len(set(self.lengths)) < len(self.lengths):
            raise ValueError(f"lengths: found {list(self.lengths)}, allowed: different numbers in (0, {upper})")
        return self


class Train(Config):
    """[train]."""

    steps: PositiveInt = Field(1000, description="optimiser steps, the K of the curricula")
    batch_size: PositiveInt = Field(128, description="samples of a step")
    device: str = Field("auto", pattern=DEVICE, description="auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the network; bfloat16 by autocast")


class Log(Config):
    """[log]."""

    every: PositiveInt = Field(20, description="steps between rows of metrics.jsonl, means over them")


class Profile(Config):
    """[profile]."""

    every: int = Field(100, ge=0, description="steps between rows of profiles.jsonl; 0: never")
    bins: int = Field(32, ge=2, le=512, description="time bins, even in the sampler's own variable")


class Checkpoint(Config):
    """[checkpoint]."""

    every: int = Field(500, ge=0, description="steps between checkpoints; 0: at the end alone")
    keep: PositiveInt = Field(3, description="newest that stay, beside the best of those evaluated at their own step")


class Snapshot(Config):
    """[snapshot]."""

    every: int = Field(500, ge=0, description="steps between snapshots; 0: never")
    steps: Ints = Field((1, 2), description="sampler steps of each picture")
    n: PositiveInt = Field(64, description="samples, from latents that never change")

    @model_validator(mode="after")
    def _in_range(self) -> "Snapshot":
        if any(steps < 1 for steps in self.steps):
            raise ValueError(f"steps: found {list(self.steps)}, allowed: integers from 1")
        return self


class Evaluate(Config):
    """[evaluate]: sliced Wasserstein distance of samples to held-out data."""

    every: int = Field(500, ge=0, description="steps between evaluations; 0: never")
    steps: Ints = Field((1, 2), description="sampler steps; the first decides which checkpoint is best")
    n: PositiveInt = Field(1000, description="samples, from latents that never change")

    @model_validator(mode="after")
    def _in_range(self) -> "Evaluate":
        if not self.steps or any(steps < 1 for steps in self.steps):
            raise ValueError(f"steps: found {list(self.steps)}, allowed: one or more integers from 1")
        return self


class Recipe(Config):
    """A whole recipe. Component tables stay plain until `engine.build` checks them."""

    name: str = Field(pattern=NAME, description="letters, digits, _ and -")
    seed: int = Field(0, ge=0, lt=2**63, description="all randomness follows from it")
    data: Tables
    path: PathTable = PathTable()
    network: Tables
    objective: Tables
    teacher: Teacher | None = None
    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    train: Train = Train()
    log: Log = Log()
    profile: Profile = Profile()
    checkpoint: Checkpoint = Checkpoint()
    snapshot: Snapshot = Snapshot()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _kinds_exist(self) -> "Recipe":
        for table, folder in COMPONENTS.items():
            kind, names = getattr(self, table).get("kind"), component_names(folder)
            if not isinstance(kind, str) or (kind not in names and not is_own_class(kind)):
                raise ValueError(
                    f"{table}.kind: found {kind!r}, allowed: {', '.join(names)} or module:Class"
                    f"{nearest(str(kind), names)}"
                )
        return self

    def tables(self) -> Tables:
        """Return the recipe as plain tables, every default written out, ready for TOML or JSON."""
        return self.model_dump(mode="json", exclude_none=True)


TABLES: dict[str, type[Config]] = {
    "path": PathTable,
    "teacher": Teacher,
    "optimizer": Optimizer,
    "ema": Ema,
    "train": Train,
    "log": Log,
    "profile": Profile,
    "checkpoint": Checkpoint,
    "snapshot": Snapshot,
    "evaluate": Evaluate,
}


def component_names(folder: str) -> list[str]:
    """List the components of a folder of the package; the file name is the name, an underscore hides it."""
    return sorted(p.stem for p in (PACKAGE / folder).glob("*.py") if not p.stem.startswith("_"))


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with what it extends and the overrides `table.key=value`.

    Raises:
        UsageError: the file cannot be read, is not TOML, or holds something that is not allowed.
    """
    return check_tables(read(path, overrides), str(path))


def check_tables(tables: Tables, where: str) -> Recipe:
    """Check plain tables; `where` is what messages name."""
    return check(Recipe, tables, where)


def read(path: Path, overrides: Sequence[str] = ()) -> Tables:
    """Read the tables of a recipe, unchecked: what it extends, then its own keys, then the overrides."""
    given: Tables = {}
    for override in overrides:
        given = _merged(given, _parse_override(override))
    return _merged(_read_with_parents(path, ()), given)


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> Tables:
    path = path.resolve()
    if path in children:
        raise UsageError(f"{children[-1]}: extends: found {path.name}, which extends this file in turn")
    try:
        tables = tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        by = f" (extended by {children[-1]})" if children else ""
        raise UsageError(f"{path}: cannot be read: {reason}{by}") from None
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
    parent = tables.pop("extends", None)
    if parent is None:
        return tables
    if not isinstance(parent, str):
        raise UsageError(f"{path}: extends: found {parent!r}, allowed: the path of a recipe")
    return _merged(_read_with_parents(path.parent / parent, (*children, path)), tables)


def _merged(base: Tables, over: Tables) -> Tables:
    """Lay one set of tables over another. A component of another kind replaces the whole table below it."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if not isinstance(value, dict) or not isinstance(below, dict) or _other_component(key, below, value):
            merged[key] = value
        else:
            merged[key] = _merged(below, value)
    return merged


def _other_component(table: str, below: Tables, over: Tables) -> bool:
    """Return whether `over` names a component with keys of its own, other than the one below."""
    return table in (*COMPONENTS, "teacher") and "kind" in below and over.get("kind", below["kind"]) != below["kind"]


def _parse_override(override: str) -> Tables:
    """Turn `a.b=c` into {"a": {"b": c}}; c is TOML, or a plain string where it is not."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")) or "\n" in override:
        raise UsageError(f"--set {override!r}: found no key and value, allowed: table.key=value")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text.strip()
    return reduce(lambda inner, part: {part: inner}, reversed(key.strip().split(".")), value)


def dumps(recipe: Recipe) -> str:
    """Write a recipe as complete TOML."""
    return tomli_w.dumps(recipe.tables())


def find(name: str) -> Path:
    """Return the file of a recipe given by path or by bare name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    if (path := Path(name)).is_file():
        return path
    known = {p.stem: p for p in available()}
    if name in known:
        return known[name]
    raise UsageError(f"{name}: no such recipe{nearest(Path(name).stem, known)} (cmbench recipe list)")


def available() -> list[Path]:
    """List the recipes of ./recipes, or else those beside the package."""
    folders = (Path("recipes"), PACKAGE.parent / "recipes")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return sorted(folder.glob("*.toml"))
