"""Recipes: TOML files as checked tables, with `extends` and overrides. Imports no torch, so that views may use it.

The tables of components ([data], [network], [objective]) are checked by their own `Config` when the engine is built
(`engine.build`); all others stand in `cmbench.tables`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import tomli
import tomli_w
from pydantic import Field, model_validator

from cmbench.config import Config, check
from cmbench.errors import UsageError, nearest
from cmbench.rundir.files import read as read_file
from cmbench.tables import (
    Checkpoint,
    Ema,
    Evaluate,
    Log,
    Optimizer,
    PathTable,
    Profile,
    Snapshot,
    Start,
    Teacher,
    Train,
    is_own_class,
)

PACKAGE = Path(__file__).parent
COMPONENTS = {"data": "data", "network": "networks", "objective": "objectives"}  # table -> folder

Tables = dict[str, Any]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class Recipe(Config):
    """A whole recipe. Component tables stay plain until `engine.build` checks them."""

    name: str = Field(pattern=NAME, description="letters, digits, _ and -")
    seed: int = Field(0, ge=0, lt=2**63, description="all randomness follows from it")
    data: Tables
    path: PathTable = PathTable()
    network: Tables
    objective: Tables
    teacher: Teacher | None = None
    start: Start | None = None
    optimizer: Optimizer = Optimizer()
    ema: Ema = Ema()
    train: Train = Train()
    log: Log = Log()
    profile: Profile = Profile()
    checkpoint: Checkpoint = Checkpoint()
    snapshot: Snapshot = Snapshot()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="before")
    @classmethod
    def _no_empty_start(cls, given: object) -> object:
        """Let --set start.run= take first weights away."""
        if isinstance(given, dict) and isinstance(given.get("start"), dict) and given["start"].get("run") == "":
            return {key: value for key, value in given.items() if key != "start"}
        return given

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
    return _merged(_read_with_parents(path, ()), parse_overrides(overrides))


def parse_overrides(overrides: Sequence[str], option: str = "--set") -> Tables:
    """Turn overrides `table.key=value` into tables, unchecked; `option` is what messages call one.

    Raises:
        UsageError: there is no key or no value.
    """
    given: Tables = {}
    for override in overrides:
        given = _merged(given, _parse_override(override, option))
    return given


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> Tables:
    path = Path(os.path.realpath(path))  # of links that lead to themselves, one that cannot be read
    if path in children:
        raise UsageError(f"{children[-1]}: extends: found {path.name}, which extends this file in turn")
    try:
        tables = tomli.loads(read_file(path).decode())
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
            merged[key] = _merged(_without_scalings(below) if _other_path(key, below, value) else below, value)
    return merged


def _other_path(table: str, below: Tables, over: Tables) -> bool:
    """Return whether `over` names another path, which comes with scalings, c_noise and boundary of its own."""
    return table == "path" and over.get("kind", below.get("kind")) != below.get("kind")


def _without_scalings(path: Tables) -> Tables:
    return {key: value for key, value in path.items() if key not in ("scalings", "c_noise", "boundary")}


def _other_component(table: str, below: Tables, over: Tables) -> bool:
    """Return whether `over` names a component with keys of its own, other than the one below."""
    return table in (*COMPONENTS, "teacher") and "kind" in below and over.get("kind", below["kind"]) != below["kind"]


def _parse_override(override: str, option: str) -> Tables:
    """Turn `a.b=c` into {"a": {"b": c}}; c is TOML, or a plain string where it is not."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.strip().split(".")) or "\n" in override:
        raise UsageError(f"{option} {override!r}: found no key and value, allowed: table.key=value")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text.strip()
    return reduce(lambda inner, part: {part: inner}, reversed(key.strip().split(".")), value)


MISSING = object()  # stands for the value of a key that a recipe does not have


def flat(tables: Tables, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `table.key` and value of every key."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Return the keys in which recipes differ, each with the value in every recipe, MISSING where it has none."""
    return differing([dict(flat(recipe.tables())) for recipe in recipes])


def differing(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys in which flat tables differ, as `differences` does."""
    keys = dict.fromkeys(key for values in found for key in values)
    rows = {key: [values.get(key, MISSING) for values in found] for key in keys}
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


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
