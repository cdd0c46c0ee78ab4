"""What a run is, beside the table of runs."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from textual.content import Content

from cmbench.rundir import floors
from cmbench.rundir.overview import Glance
from cmbench.tui.text import content
from cmbench.words import signs
from cmbench.words.numbers import number, progress
from cmbench.words.times import date


def preview(glance: Glance, meta: dict[str, Any], ascii: bool = False) -> Content:
    """Tell of a run what its table has no room for; `meta` is the content of its meta.json, which may hold anything."""
    sign, style = signs.sign(glance.state, ascii)
    figures = progress(glance.step, glance.of)
    lines = [content(glance.name, "bold"), content(f"{sign} {glance.state} ", style) + content(f"step {figures}")]
    if glance.written.note:
        lines += [content(glance.written.note, "italic")]
    if glance.written.tags:
        lines += [_line("tags", ", ".join(glance.written.tags))]
    lines += [content("")]
    for i, (key, value) in enumerate(glance.best):
        is_within = key in glance.within_floor
        lines.append(_line("" if i else "best", f"{key} {floors.marked(number(value), is_within, ascii)}"))
    if glance.within_floor:
        lines += [content(f"{floors.PLAIN_MARK if ascii else floors.MARK} within the floor", "dim")]
    lines += [content("")]
    lines += [_line(label, text) for label, text in _told(meta) if text]
    return Content("\n").join(lines)


def _line(label: str, text: str) -> Content:
    return content(f"{label:<12}", "dim") + content(text)


def _told(meta: dict[str, Any]) -> Iterable[tuple[str, str]]:
    versions, git, created = _table(meta, "versions"), _table(meta, "git"), meta.get("created")
    yield "recipe", _recipe(meta.get("argv"))
    for override in _overrides(meta.get("argv")):
        yield "--set", override
    for key in ("teacher", "start", "parent"):
        yield key, _source(_table(meta, key))
    if isinstance(created, int | float) and 0 < created < 1e11:
        yield "began", date(created)[:-3]
    yield "git", f"{str(git.get('commit', ''))[:9]}{' + changes' if git.get('dirty') is True else ''}"
    yield "torch", str(versions.get("torch", ""))
    yield "host", " ".join(str(meta[key]) for key in ("host", "device") if key in meta)
    yield "seed", str(meta.get("seed", ""))
    yield "parameters", f"{n:,}" if isinstance(n := meta.get("parameters"), int) else ""


def _table(meta: dict[str, Any], key: str) -> dict[str, Any]:
    return found if isinstance(found := meta.get(key), dict) else {}


def _recipe(argv: object) -> str:
    """Return the recipe of `cmbench run RECIPE ...`."""
    return str(argv[2]).rpartition("/")[2] if isinstance(argv, list) and len(argv) > 2 else ""


def _overrides(argv: object) -> list[str]:
    """Return what was given with --set."""
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    return [word for flag, word in pairwise(words) if flag == "--set"]


def _source(source: dict[str, Any]) -> str:
    return f"{source['recipe']} step {source.get('step', '?')}" if "recipe" in source else ""
