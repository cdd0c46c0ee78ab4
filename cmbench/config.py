"""The base of every settings table: frozen, strict, without unknown keys, each field with a line of documentation."""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from math import isfinite
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from cmbench.errors import UsageError, did_you_mean
from cmbench.text import shown, shown_key

# pydantic's names of types that TOML writes in another way, and how
_IN_TOML = {"bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text in quotes"}
_IN_TOML |= dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a table")
_SHORT = 60  # characters of a value that a message repeats as a list


class Config(BaseModel):
    """A checked table of a recipe. `kind` names the component that it configures and is checked elsewhere.

    `idle` lists keys that have no effect for certain values of another key: {"k": ("adjustment", ("constant",))}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    idle: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {}


AnyConfig = TypeVar("AnyConfig", bound=Config)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


_MOST_PIXELS = 2**16


def _as_size(value: object) -> object:
    sides = list(value) if isinstance(value, list | tuple) else [value]
    is_size = sides == [value] or len(sides) == 2
    if not is_size or not all(type(side) is int and 1 <= side <= _MOST_PIXELS for side in sides):
        raise PydanticCustomError("size", "Input should be pixels of a side, or [height, width], from 1 to 65536 each")
    return _as_tuple(value)


# TOML has only arrays; a frozen table holds tuples.
Floats = Annotated[tuple[float, ...], BeforeValidator(_as_tuple)]
Ints = Annotated[tuple[int, ...], BeforeValidator(_as_tuple)]
Strings = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]

# Limits that no machine exceeds, so that the user sees one line instead of an error from an allocator or a float.
PositiveInt = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=0, le=10**12)]  # of steps: 0 means never or at once
Samples = Annotated[int, Field(ge=1, le=10**7)]
SamplesOrNone = Annotated[int, Field(ge=0, le=10**7)]
Channels = Annotated[int, Field(ge=1, le=2**16)]  # of a layer, pixels of a picture, heads
Layers = Annotated[int, Field(ge=1, le=1000)]
# Points of a grid of noise levels; float32 cannot tell more of them apart.
GridPoints = Annotated[int, Field(ge=1, le=10**5)]
SamplerSteps = Annotated[tuple[GridPoints, ...], BeforeValidator(_as_tuple)]
Size = Annotated[int | tuple[int, int], BeforeValidator(_as_size)]  # of pictures: a side, or height and width
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# Beyond this the squares of noise levels, and the powers of the Karras grid, overflow.
NoiseLevel = Annotated[float, Field(gt=0, le=1e9)]
# Mean and standard deviation of a log noise level, such that draws do not overflow.
LogMean = Annotated[float, Field(ge=-21, le=21)]
LogDeviation = Annotated[float, Field(gt=0, le=10)]
Curvature = Annotated[float, Field(ge=0.1, le=1000)]


STEERABLE: dict[str, Any] = {"steerable": True}  # json_schema_extra of keys that may change during training


def steerable(config: type[Config]) -> list[str]:
    """List the keys of a table that may change during training."""
    return [key for key, field in config.model_fields.items() if field.json_schema_extra == STEERABLE]


def check(config: type[AnyConfig], table: dict[str, Any], where: str, prefix: str = "") -> AnyConfig:
    """Check a table and return it as a `config`.

    Args:
        config: the model to fill.
        table: keys and values as read from TOML.
        where: the file (or other origin) that the message names.
        prefix: the table's name, which the message puts before each key.

    Raises:
        UsageError: one line with the file, the key, what was found and what is allowed.
    """
    try:
        return config.model_validate(table)
    except ValidationError as error:
        problems = error.errors()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UsageError(f"{where}: {_explain(problems[0], config, prefix)}{more}") from None


def refuse_idle(config: Config, table: str, spared: Collection[str] = ()) -> None:
    """Refuse a key that has no effect but a value other than its default. (Defaults may be written out.)

    Args:
        config: the table, checked.
        table: its name.
        spared: `table.key` of keys to let pass, either those without effect or those that take the effect away.

    Raises:
        UsageError: one line with the key, what was found and what is allowed.
    """
    for key, (other, values) in config.idle.items():
        found, default, beside = getattr(config, key), type(config).model_fields[key].default, getattr(config, other)
        if found != default and beside in values and not {f"{table}.{key}", f"{table}.{other}"} & set(spared):
            found, default, beside = (list(v) if isinstance(v, tuple) else v for v in (found, default, beside))
            raise UsageError(
                f"{table}.{key}: found {found!r}, which does nothing where {table}.{other} = {beside!r}; "
                f"allowed there: {default!r}"
            )


def _explain(problem: ErrorDetails, config: type[Config], prefix: str) -> str:
    """Return what is wrong with one key, e.g. `path.sigma_min: found -1, allowed: greater than 0`."""
    key = shown_key(part for part in (*prefix.split("."), *problem["loc"]) if part != "")
    found = problem["input"]
    if problem["type"] == "extra_forbidden":
        table, name = _table_of(config, problem["loc"]), str(problem["loc"][-1])
        allowed = list(table.model_fields)
        hint = did_you_mean(name, allowed) or did_you_mean(name, _places_of(config, name), least=0.0)
        return f"{key}: unknown key{hint} (allowed: {', '.join(allowed)})"
    if problem["type"] == "missing":
        return f"{key}: missing, and it has no default"
    if problem["type"] == "value_error":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{key}.{message}" if key else message  # our own validators begin with the key
    expected = problem["msg"].removeprefix("Input should be ")
    if expected == problem["msg"]:  # written for programmers: "String should match pattern ..."
        table, field = _table_of(config, problem["loc"]), str(problem["loc"][-1])
        expected = table.model_fields[field].description or expected
    hint, expected = "", _IN_TOML.get(problem["type"], expected)
    if problem["type"] == "tuple_type":
        expected = f"a list{_as_list(found)}"
    if problem["type"] == "literal_error" and isinstance(found, str):
        hint = did_you_mean(found, [name.strip("'") for name in expected.replace(" or ", ", ").split(", ")])
    return f"{key}: found {shown(found)}, allowed: {expected}{hint}"


def _as_list(found: object) -> str:
    """Return how a value would be written as a list, e.g. ", as [1, 2]" for 1,2; empty for a table or a long value."""
    if isinstance(found, dict) or len(str(found)) > _SHORT:
        return ""
    parts = found.split(",") if isinstance(found, str) else [found]
    return f", as [{', '.join(map(_as_item, parts))}]"


def _as_item(value: object) -> str:
    """Return a value as TOML has it within a list: what reads as a number is one."""
    with suppress(TypeError, ValueError):
        if isfinite(float(str(value))):
            return str(value).strip()
    return json.dumps(value.strip() if isinstance(value, str) else value, default=str)


def _places_of(config: type[Config], name: str) -> Iterator[str]:
    """Yield where a configuration has a key, itself or in its tables: `train.steps` for `steps` in a recipe."""
    tables = {table: _table_of(config, (table, name)) for table in config.model_fields}
    if name in config.model_fields:
        yield name
    yield from (f"{key}.{name}" for key, table in tables.items() if table is not config and name in table.model_fields)


def _table_of(config: type[Config], loc: tuple[int | str, ...]) -> type[Config]:
    """Return the table that holds the key at `loc`."""
    for part in loc[:-1]:
        field = config.model_fields.get(str(part))
        annotations = get_args(field.annotation) or (field.annotation,) if field else ()  # Teacher, or Teacher | None
        for annotation in annotations:
            if isinstance(annotation, type) and issubclass(annotation, Config):
                config = annotation
    return config
