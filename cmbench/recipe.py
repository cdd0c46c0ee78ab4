"""Recipes: TOML files as checked tables, with `extends` and overrides. Imports no torch, so that views may use it.

The tables of components ([data], [network], [objective]) are checked by their own `Config` when the engine is built
(`engine.build`); all others are defined in `cmbench.tables`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import tomli
import tomli_w
from pydantic import Field, model_validator

from cmbench import regular
from cmbench.config import Config, check
from cmbench.errors import UsageError, did_you_mean
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
from cmbench.text import shown, shown_key

PACKAGE = Path(__file__).parent
COMPONENTS = {"data": "data", "network": "networks", "objective": "objectives"}  # table -> folder
MASKS = ("dropout", "label_dropout")  # keys of [network]: shares of what training leaves out at random
_IN_TRAINING_ALONE = (*MASKS, "dropout_sizes")

Tables = dict[str, Any]
LARGEST = 2**20  # bytes of a recipe's file
_DEEPEST = 16  # levels of nested tables and arrays, far more than any component needs
_LONGEST = 16  # recipes in a chain of `extends`
_INTEGERS = range(-(2**63), 2**63)  # the range that TOML guarantees and the JSON writer accepts
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
        """Let --set start.run= remove the table [start], and --set start.file= one that names a file."""
        if not isinstance(given, dict) or not isinstance(start := given.get("start"), dict):
            return given
        if {"run", "file"} & {*start} and not (start.get("run") or start.get("file")):
            return {key: value for key, value in given.items() if key != "start"}
        return given

    @model_validator(mode="after")
    def _kinds_exist(self) -> "Recipe":
        for table, folder in COMPONENTS.items():
            kind, names = getattr(self, table).get("kind"), component_names(folder)
            if not isinstance(kind, str) or (kind not in names and not is_own_class(kind)):
                raise ValueError(
                    f"{table}.kind: found {shown(kind)}, allowed: {', '.join(names)} or module:Class"
                    f"{did_you_mean(str(kind), names)}"
                )
        return self

    def tables(self) -> Tables:
        """Return the recipe as plain tables, every default written out, ready for TOML or JSON."""
        return self.model_dump(mode="json", exclude_none=True)

    def architecture(self) -> Tables:
        """Return the keys of [network] that say what its weights compute: all but those of dropout, and places."""
        aside = {*_IN_TRAINING_ALONE, *(("folder",) if self.network["kind"] == "diffusers" else ())}
        return {key: value for key, value in self.network.items() if key not in aside}


@cache
def component_names(folder: str) -> list[str]:
    """List the components of a folder of the package by file name, except those with a leading underscore."""
    return sorted(p.stem for p in (PACKAGE / folder).glob("*.py") if not p.stem.startswith("_"))


@dataclass(frozen=True)
class Given:
    """A recipe, read once and checked, as a command passes it to the trainer.

    Attributes:
        recipe: checked, except its components, which `engine.build` checks.
        path: the path of its file.
        overrides: the overrides `table.key=value` that were applied.
        files: all files that were read, as named and with links resolved.
        text: the text of its file.
    """

    recipe: Recipe
    path: Path
    overrides: Sequence[str]
    files: Sequence[Path]
    text: str

    @property
    def where(self) -> str:
        """The name of the recipe in messages."""
        return str(self.path)


def read(path: Path, overrides: Sequence[str] = ()) -> Given:
    """Read a recipe, the recipes that it extends and the overrides `table.key=value`.

    Raises:
        UsageError: a file cannot be read, is not TOML, or has something that is not allowed.
    """
    chain, tables = _chain(path), Tables()
    for file in reversed(chain):
        tables = merged(tables, file.tables)
    recipe = check_tables(merged(tables, parse_overrides(overrides)), str(path))
    return Given(recipe, path, tuple(overrides), [p for file in chain for p in (file.named, file.path)], chain[0].text)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return only the recipe of `read`. Raises as `read` does."""
    return read(path, overrides).recipe


def check_tables(tables: Tables, where: str) -> Recipe:
    """Check plain tables; messages name `where`.

    Raises:
        UsageError: the tables have something that is not allowed.
    """
    _refuse_absurd(tables, where)
    return check(Recipe, tables, where)


def parse_overrides(overrides: Sequence[str], option: str = "--set") -> Tables:
    """Turn overrides `table.key=value` into tables, unchecked; messages name `option`.

    Raises:
        UsageError: a key or value is missing, or is one that no recipe can have.
    """
    given: Tables = {}
    for override in overrides:
        given = merged(given, _parse_override(override, option))
    return given


def flat_overrides(overrides: Sequence[str], option: str = "--set") -> Tables:
    """Turn overrides `table.key=value` into {"table.key": value}, unchecked. Raises as `parse_overrides` does."""
    return _flat_given(parse_overrides(overrides, option))


def _flat_given(tables: Tables, prefix: str = "") -> Tables:
    """Turn {"log": {"every": 5}} into {"log.every": 5}; an empty table stays."""
    found: Tables = {}
    for key, value in tables.items():
        is_table = isinstance(value, dict) and value
        found |= _flat_given(value, f"{prefix}{key}.") if is_table else {f"{prefix}{key}": value}
    return found


class _File(NamedTuple):
    """One file of a recipe: its path as named, its path with links resolved, its text, its own tables."""

    named: Path
    path: Path
    text: str
    tables: Tables


def _chain(path: Path) -> list[_File]:
    """Return a recipe's file, then the file that it extends, and so on."""
    chain: list[_File] = []
    while True:
        by = f" (extended by {chain[-1].path})" if chain else ""
        named, path = path, _resolved(path, by)
        if any(path == child.path for child in chain):
            raise UsageError(f"{chain[-1].path}: extends: found {path.name}, which extends this file in turn")
        if len(chain) == _LONGEST:
            raise UsageError(f"{chain[-1].path}: extends: found one more, allowed: {_LONGEST} recipes in a row")
        text = source(path, by)
        tables = parsed(text, str(path))
        parent = tables.pop("extends", None)
        chain.append(_File(named, path, text, tables))
        if parent is None:
            return chain
        if not isinstance(parent, str):
            raise UsageError(f"{path}: extends: found {shown(parent)}, allowed: the path or name of a recipe")
        path = _parent(path.parent, parent)


def _parent(folder: Path, name: str) -> Path:
    """Return the file that `extends` names: next to the recipe, or else among the recipes of the package."""
    with suppress(OSError, ValueError):
        for path in (folder / name, folder / f"{name}.toml", _shipped() / name, _shipped() / f"{name}.toml"):
            if path.exists() and not path.is_dir():
                return path
    return folder / name


def _resolved(path: Path, by: str) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # the name is too long, a loop of links or has a zero byte
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(str(path), 200)}: cannot be read: {reason}{by}") from None


def source(path: Path, by: str = "") -> str:
    """Return the text of a recipe's file; messages end with `by`.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        return regular.read(path, LARGEST, links=True).decode()
    except OSError as error:
        raise UsageError(f"{shown(str(path), 200)}: cannot be read: {error.strerror or error}{by}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: cannot be read: {error}{by}") from None


def parsed(text: str, where: str) -> Tables:
    """Return the tables of TOML, unchecked except for their depth and the size of their integers.

    Raises:
        UsageError: the text is not TOML, or is nested too deep or has too large integers. The message names `where`.
    """
    try:
        tables = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{where}: not TOML: {error}") from None
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{where}: {_absurd(error)}") from None
    _refuse_absurd(tables, where)
    return tables


def _absurd(error: Exception) -> str:
    """Return why valid TOML cannot be read: Python limits the depth, and integers to 4,300 digits."""
    if isinstance(error, RecursionError):
        return f"found tables or arrays nested without end, allowed: {_DEEPEST} levels"
    return "found an integer of thousands of digits, allowed: 64 bits"


def _refuse_absurd(tables: Tables, where: str) -> None:
    """Refuse depths and integers that checks, messages or writers cannot handle."""
    for key, value in _leaves(tables, where):
        if isinstance(value, int) and value not in _INTEGERS:
            allowed = f"64 bits, {_INTEGERS[0]} to {_INTEGERS[-1]}"
            raise UsageError(f"{where}: {shown_key(key)}: found {shown(value)}, allowed: {allowed}")


def _leaves(tables: Tables, where: str) -> list[tuple[tuple[str | int, ...], Any]]:
    """Return every value that is no table and no array, with its key. Refuse tables and arrays nested too deep."""
    leaves: list[tuple[tuple[str | int, ...], Any]] = []
    left: list[tuple[tuple[str | int, ...], Any]] = [((), tables)]
    while left:
        key, value = left.pop()
        if len(key) > _DEEPEST:
            raise UsageError(f"{where}: {shown_key(key)}: found one level more, allowed: {_DEEPEST} in each other")
        if isinstance(value, dict):
            left += [((*key, part), inner) for part, inner in value.items()]
        elif isinstance(value, list | tuple):
            left += [((*key, i), inner) for i, inner in enumerate(value)]
        else:
            leaves.append((key, value))
    return leaves


def merged(base: Tables, over: Tables) -> Tables:
    """Merge tables, with `over` winning. A component of another kind replaces the whole table of `base`."""
    laid = dict(base)
    for key, value in over.items():
        below = laid.get(key)
        if not isinstance(value, dict) or not isinstance(below, dict) or _other_component(key, below, value):
            laid[key] = value
        else:
            laid[key] = merged(_without_scalings(below) if _other_path(key, below, value) else below, value)
    return laid


def _other_path(table: str, below: Tables, over: Tables) -> bool:
    """Return whether `over` names another path, which has its own scalings, c_noise and boundary."""
    return table == "path" and over.get("kind", below.get("kind")) != below.get("kind")


def _without_scalings(path: Tables) -> Tables:
    return {key: value for key, value in path.items() if key not in ("scalings", "c_noise", "boundary")}


def _other_component(table: str, below: Tables, over: Tables) -> bool:
    """Return whether `over` names another component, which has its own keys."""
    return table in (*COMPONENTS, "teacher") and "kind" in below and over.get("kind", below["kind"]) != below["kind"]


def _parse_override(override: str, option: str) -> Tables:
    """Turn `a.b=c` into {"a": {"b": c}}; c is read as TOML, or else as a plain string."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or "\n" in override:
        raise UsageError(f"{option} {shown(override)}: found no key and value, allowed: table.key=value")
    try:
        value = tomli.loads(f"value = {text}")["value"]
    except tomli.TOMLDecodeError:
        value = text.strip()
    except (RecursionError, ValueError) as error:
        raise UsageError(f"{option} {shown_key(parts)}: {_absurd(error)}") from None
    tables: Tables = reduce(lambda inner, part: {part: inner}, reversed(parts), value)
    _leaves(tables, option)
    return tables


MISSING = object()  # stands for the value of a key that a recipe does not have


def flat(tables: Tables, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `table.key` and the value of every key."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Return the keys in which recipes differ, each with its value in every recipe, or MISSING."""
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
        UsageError: there is no such recipe; the message names the nearest.
    """
    with suppress(OSError):  # the name is too long for a file
        if (path := Path(name)).is_file():
            return path
    known = {p.stem: p for p in available()}
    if name in known:
        return known[name]
    raise UsageError(f"{shown_key([name])}: no such recipe{did_you_mean(Path(name).stem, known)} (cmbench recipe list)")


def available() -> list[Path]:
    """List the recipes of ./recipes and of the package; of two with the same name, that of ./recipes."""
    found = {path.name: path for folder in (_shipped(), Path("recipes")) for path in folder.glob("*.toml")}
    return [found[name] for name in sorted(found)]


def _shipped() -> Path:
    """Return the folder of the package's recipes: inside the package, or next to it in a clone."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"
