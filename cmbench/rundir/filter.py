"""A small language of words that says which runs are meant: `ring state:running tag:lr loss<0.1 step>=1000`.

A run is meant when every word holds of it. A plain word stands in its name, its tags or its note; `state:` and `tag:`
name these; loss, quality (or sw) and step are compared with a number. What a run does not have is never true of it.
"""

import operator
import re
from collections.abc import Callable

from cmbench.errors import UsageError
from cmbench.rundir.overview import Glance

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
_COMPARISON = re.compile(r"(\w+)(<=|>=|<|>|=)(.*)")
_FIELD = re.compile(r"(\w+):(.*)")


def parse(text: str) -> Filter:
    """Return what tells whether a run is meant.

    Raises:
        UsageError: a word cannot be understood.
    """
    filters = [_word(word) for word in text.casefold().split()]
    return lambda glance: all(holds(glance) for holds in filters)


def _word(word: str) -> Filter:
    if match := _COMPARISON.fullmatch(word):
        return _comparison(word, *match.groups())
    if match := _FIELD.fullmatch(word):
        field, wanted = match.groups()
        if field not in _FIELDS or not wanted:
            allowed = ", ".join(f"{name}:WORD" for name in _FIELDS)
            raise UsageError(f"found {word!r}, allowed: {allowed}")
        return _FIELDS[field](wanted)
    return lambda glance: any(
        word in text.casefold() for text in (glance.name, glance.written.note, *glance.written.tags)
    )


def _comparison(word: str, figure: str, sign: str, text: str) -> Filter:
    if figure not in _FIGURES:
        raise UsageError(f"{word}: found {figure!r}, allowed: {', '.join(_FIGURES)}")
    try:
        limit = float(text)
    except ValueError:
        raise UsageError(f"{word}: found {text!r}, allowed: a number") from None
    value, compare = _FIGURES[figure], _COMPARISONS[sign]
    return lambda glance: (found := value(glance)) is not None and compare(found, limit)
