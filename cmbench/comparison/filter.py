"""A small language of words that selects runs: `ring optimizer.lr>1e-4 OR seed:3 NOT state:crashed`.

A run is selected if every word between two ORs holds for it; a word after NOT must not hold. A plain word must occur
in the run's name, tags or note; `state:` and `tag:` match the state and a tag. loss, quality (or sw), step,
`last.METRIC` and `best.METRIC` are compared with a number. A key of the recipe, with its table, is compared with a
number: `optimizer.lr>1e-4`. After a colon it is compared with the beginning of its value, or with all of it if it is a
number: `objective.kind:ct`, `seed:3`. A word about something that a run lacks does not hold.
"""

import operator
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from cmbench.errors import UsageError, did_you_mean
from cmbench.recipe import Recipe, flat, parsed
from cmbench.rundir.files import read
from cmbench.rundir.overview import Glance, figure

Filter = Callable[[Glance], bool]

_COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
_FIGURES: dict[str, Callable[[Glance], float | None]] = {
    "loss": lambda glance: glance.loss,
    "sw": lambda glance: glance.quality,
    "quality": lambda glance: glance.quality,
    "step": lambda glance: glance.step,
}
_FIELDS: dict[str, Callable[[str], Filter]] = {
    "state": lambda word: lambda glance: glance.state.startswith(word),
    "tag": lambda word: lambda glance: word in map(str.casefold, glance.written.tags),
}
_COMPARISON = re.compile(r"([\w.]+)(<=|>=|<|>|=)(.*)")
_FIELD = re.compile(r"([\w.]+):(.*)")
_OF_METRICS = ("last.", "best.")
_KEPT = 4096  # recipes: those of runs never change


def parse(text: str) -> Filter:
    """Return a function that tells whether a run is selected.

    Raises:
        UsageError: a word is malformed, or OR or NOT lacks the word that it needs.
    """
    ways: list[list[Filter]] = [[]]
    negated = False
    for word in text.split():
        if word == "OR":
            if negated or not ways[-1]:
                raise UsageError("OR: found without a word before it, allowed: WORD OR WORD")
            ways.append([])
        elif word == "NOT":
            negated = not negated
        else:
            holds = _word(word.casefold())
            ways[-1].append(_not(holds) if negated else holds)
            negated = False
    if negated or (len(ways) > 1 and not ways[-1]):
        last = "NOT" if negated else "OR"
        raise UsageError(f"{last}: found without a word behind it, allowed: {last} WORD")
    return lambda glance: any(all(holds(glance) for holds in way) for way in ways)


def _not(holds: Filter) -> Filter:
    return lambda glance: not holds(glance)


def _word(word: str) -> Filter:
    if match := _COMPARISON.fullmatch(word):
        return _comparison(word, *match.groups())
    if match := _FIELD.fullmatch(word):
        field, wanted = match.groups()
        if field in _FIELDS and wanted:
            return _FIELDS[field](wanted)
        if wanted and _is_of_recipe(field):
            return lambda glance: _begins(_value(glance, field), wanted)
        allowed = ", ".join(f"{name}:WORD" for name in (*_FIELDS, "seed", "TABLE.KEY"))
        raise UsageError(f"found {word!r}, allowed: {allowed}{_near(field) if wanted else ''}")
    return lambda glance: any(
        word in text.casefold() for text in (glance.name, glance.written.note, *glance.written.tags)
    )


def _comparison(word: str, name: str, sign: str, text: str) -> Filter:
    compare = _COMPARISONS[sign]
    value = _figure_named(word, name)
    try:
        limit = float(text)
    except ValueError:
        if sign == "=" and text and _is_of_recipe(name):
            return lambda glance: text in _texts(_value(glance, name))
        raise UsageError(f"{word}: found {text!r}, allowed: a number") from None
    return lambda glance: (found := value(glance)) is not None and compare(found, limit)


def _figure_named(word: str, name: str) -> Callable[[Glance], float | None]:
    if name in _FIGURES:
        return _FIGURES[name]
    if name.startswith(_OF_METRICS):
        return lambda glance: figure(glance, name)
    if _is_of_recipe(name):
        return lambda glance: _number(_value(glance, name))
    allowed = ", ".join((*_FIGURES, "seed", "last.METRIC", "best.METRIC", "TABLE.KEY"))
    raise UsageError(f"{word}: found {name!r}, allowed: {allowed}{_near(name)}")


def _tables() -> Sequence[str]:
    return [name for name in Recipe.model_fields if name not in ("name", "seed")]


def _is_of_recipe(name: str) -> bool:
    """Whether a name may be a key of a recipe. Keys of custom components are not known here."""
    table, dot, key = name.partition(".")
    return name == "seed" or (bool(dot and key) and table in _tables())


def _near(name: str) -> str:
    table, dot, _ = name.partition(".")
    return did_you_mean(table, [*_tables(), *_FIGURES, *_FIELDS, "seed"]) if dot else ""


def _value(glance: Glance, key: str) -> Any:
    try:
        found = glance.run.recipe.stat()
    except OSError:
        return None
    return _settings(str(glance.run.recipe), found.st_mtime_ns, found.st_size).get(key)


@lru_cache(_KEPT)
def _settings(path: str, modified: int, size: int) -> dict[str, Any]:
    """Return the keys of a recipe in lower case; none if it cannot be read. Time and size identify its version."""
    try:
        tables = parsed(read(path).decode(), path)
    except (OSError, ValueError, UsageError):
        return {}
    return {key.casefold(): value for key, value in flat(tables)}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _begins(value: object, wanted: str) -> bool:
    """Whether a value begins with `wanted`, as in `objective.kind:ct`; a number must be equal, for 30 is not 3."""
    if (number := _number(value)) is not None:
        with suppress(ValueError):
            return number == float(wanted)
    return any(text.startswith(wanted) for text in _texts(value))


def _texts(value: object) -> list[str]:
    """Return the texts of a value in lower case, so that TOML's true is Python's True; for a list, of each value."""
    if value is None:
        return []
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [str(value).casefold()]
