"""The combinations of a sweep: every one of the values that --set gives to keys."""

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from cmbench import recipe as recipes
from cmbench.cli import _plan
from cmbench.cli._plan import Task, Variant
from cmbench.errors import UsageError
from cmbench.text import shown, shown_key

MOST = 1000  # combinations
_BRACKETS = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Swept:
    """A key with several values.

    Attributes:
        key: such as optimizer.lr.
        texts: as they were given.
        values: as they are read.
    """

    key: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]


def read(overrides: Sequence[str]) -> tuple[list[Swept], list[str]]:
    """Return the keys of `table.key=value,value,...` that have several values, and the other overrides.

    A comma inside of brackets or quotes belongs to a value: `ema.lengths=[0.9,0.99]` has one.

    Raises:
        UsageError: no key has several values, one has none or the same twice, or there are too many combinations.
    """
    several: list[Swept] = []
    fixed: list[str] = []
    for override in overrides:
        key, _, text = override.partition("=")
        texts = _values(text)
        if len(texts) < 2:
            fixed.append(override)
            continue
        where = f"--set {shown_key([key.strip()])}"
        values = [_value(key, text, where) for text in texts]
        for i, value in enumerate(values):
            if any(_same(value, other) for other in values[:i]):
                raise UsageError(f"{where}: found {shown(value)} twice, allowed: different values")
        several.append(Swept(key.strip(), tuple(texts), tuple(values)))
    _check(several, fixed)
    return several, fixed


def _check(several: Sequence[Swept], fixed: Sequence[str]) -> None:
    keys = [swept.key for swept in several]
    if not keys:
        raise UsageError("--set: found no key with several values, allowed: --set table.key=value,value,...")
    given = [*keys, *recipes.flat_overrides(fixed)]
    for key in keys:
        if given.count(key) > 1:
            raise UsageError(f"--set {key}: found more than once, allowed: once, with all of its values")
    if "name" in keys:
        raise UsageError("--set name: found several values, allowed: --name NAME, with which the runs' names begin")
    if (n := math.prod(len(swept.texts) for swept in several)) > MOST:
        raise UsageError(f"--set: found {n:,} combinations, allowed: up to {MOST:,}")


def _values(text: str) -> list[str]:
    """Split a text at its commas outside of brackets and quotes."""
    parts, closing, quote, start = list[str](), list[str](), "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'" and (closing or not text[start:i].strip()):
            quote = char
        elif char in _BRACKETS:
            closing.append(_BRACKETS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _value(key: str, text: str, where: str) -> Any:
    if not text:
        raise UsageError(f"{where}: found a comma without a value beside it, allowed: value,value,...")
    found: Any = recipes.parse_overrides([f"{key}={text}"])
    for part in key.strip().split("."):
        found = found[part]
    return found


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


@dataclass(frozen=True)
class Sweep:
    """A planned sweep.

    Attributes:
        keys: that are swept.
        tasks: its runs, for each combination of the other keys each seed.
        tag: of its runs, such as ct_edm_ring_by_lr_seed.
    """

    keys: Sequence[str]
    tasks: Sequence[Task]
    tag: str


def planned(path: Path, overrides: Sequence[str], name: str, runs_dir: Path) -> Sweep:
    """Plan a sweep.

    Args:
        path: of the recipe.
        overrides: as for `read`.
        name: with which the runs' names begin; the recipe's if empty.
        runs_dir: where to look for runs of first weights.

    Raises:
        UsageError: as `read`; a recipe is not allowed; or two combinations come to the same recipe.
        NotFoundError: a run of first weights does not exist.
    """
    several, fixed = read(overrides)
    first = _plan.complete(path, [*fixed, *(f"{swept.key}={swept.texts[0]}" for swept in several)])
    keys = [swept.key for swept in several]
    given = [*fixed, *_plan.pinned_sources(first, runs_dir)]
    chosen = sorted(product(*(range(len(swept.texts)) for swept in several)), key=_seeds_last(keys))
    prefix = name or first.name
    names = _names(prefix, several, chosen)
    _plan.check_names(prefix, names)
    tasks = []
    for indices, own_name in zip(chosen, names, strict=True):
        pairs = [(swept.key, swept.texts[i], swept.values[i]) for swept, i in zip(several, indices, strict=True)]
        seed = next((value for key, _, value in pairs if key == "seed"), first.seed)
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UsageError(f"--set seed: found {shown(seed)}, allowed: integers")
        others = [(key, text, value) for key, text, value in pairs if key != "seed"]
        variant = Variant(
            ", ".join(f"{key}={text}" for key, text, _ in others),
            tuple(f"{key}={text}" for key, text, _ in others),
            {"values": {key: value for key, _, value in others}},
            tuple(text for _, text, _ in others),
        )
        tasks.append(_plan.task(path, variant, given, own_name, seed))
    _refuse_equal(tasks)
    return Sweep(keys, tasks, f"{prefix}_by_{'_'.join(_short(keys))}")


def _seeds_last(keys: Sequence[str]) -> Callable[[Sequence[int]], list[int]]:
    """Return a sorting key that lets the seed change fastest."""
    return lambda indices: [i for key, i in zip(keys, indices, strict=True) if key != "seed"]


def _refuse_equal(tasks: Sequence[Task]) -> None:
    seen: dict[str, Task] = {}
    for task in tasks:
        same = repr(sorted((key, value) for key, value in recipes.flat(task.recipe.tables()) if key != "name"))
        if (other := seen.setdefault(same, task)) is not task:
            raise UsageError(
                f"--set: found {_in_words(other)} and {_in_words(task)}, which come to the same recipe; "
                "allowed: different combinations"
            )


def _in_words(task: Task) -> str:
    return task.variant.name or f"seed={task.recipe.seed}"


def _names(prefix: str, several: Sequence[Swept], chosen: Sequence[Sequence[int]]) -> list[str]:
    """Return a name for each combination, such as ct_edm_ring_lr1e-4_seed0.

    Where such names are too long, or not different, they end in a digest of the values, which stays as it is when the
    sweep gets more of them.
    """
    labels = _short([swept.key for swept in several])
    spelt = [[_spelt(value) for value in swept.values] for swept in several]
    words = [[f"{label}{values[i]}" for label, values, i in zip(labels, spelt, own, strict=True)] for own in chosen]
    names = ["_".join([prefix, *own]) for own in words]
    if len(set(names)) == len(names) and all(re.fullmatch(recipes.NAME, name) for name in names):
        return names
    return [f"{prefix}_{_digest(several, own)}" for own in chosen]


def _digest(several: Sequence[Swept], own: Sequence[int]) -> str:
    told = sorted((swept.key, repr(swept.values[i])) for swept, i in zip(several, own, strict=True))
    return hashlib.sha256(repr(told).encode()).hexdigest()[:8]


def _short(keys: Sequence[str]) -> list[str]:
    """Return the keys without their tables, such as lr, or whole where that is not enough to tell them apart."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return [last if lasts.count(last) == 1 else key.replace(".", "_") for key, last in zip(keys, lasts, strict=True)]


def _spelt(value: Any) -> str:
    """Return a value in letters that names may have: 1e-4, 0p5, -cosine. Equal numbers are spelt alike."""
    if isinstance(value, float) and math.isfinite(value):
        return min(_numerals(value), key=lambda text: (len(text), "." in text)).replace(".", "p")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = "-".join(map(_spelt, value)) if isinstance(value, list) else str(value).lower()
    return "-" + re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def _numerals(value: float) -> Iterator[str]:
    """Yield spellings of a number that are short and exact."""
    yield repr(value).removesuffix(".0")
    digits, exponent = next(f"{value:.{n}e}" for n in range(17) if float(f"{value:.{n}e}") == value).split("e")
    yield f"{digits}e{int(exponent)}"
