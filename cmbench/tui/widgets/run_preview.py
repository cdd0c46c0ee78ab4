"""The preview of a run beside the table of runs."""

import asyncio
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from cmbench.rundir import floors
from cmbench.rundir.files import read_json
from cmbench.rundir.overview import Glance
from cmbench.tui.screens.base import unless_gone
from cmbench.tui.text import content
from cmbench.words import signs
from cmbench.words.numbers import number, progress
from cmbench.words.times import date

SETTLE = 0.05  # seconds without movement in the table before files of the runs in sight are read


class RunPreview(VerticalScroll, can_focus=False):
    """Shows details of one run."""

    DEFAULT_CSS = "RunPreview { display: none; width: 44; padding: 0 1; border-left: vkey $primary; }"

    def __init__(self, ascii: bool = False) -> None:
        """Take whether to use ASCII only."""
        super().__init__()
        self._ascii = ascii
        self._meta: tuple[str, dict[str, Any]] = ("", {})  # a run's name and its meta.json

    def compose(self) -> ComposeResult:
        """Lay out one text."""
        yield Static()

    def show(self, glance: Glance | None) -> None:
        """Show a run, or None for an empty preview, if there is room."""
        if self.display:
            self._show(glance)

    @work(exclusive=True, group="preview")
    async def _show(self, glance: Glance | None) -> None:
        await asyncio.sleep(SETTLE)
        if glance is not None and self._meta[0] != glance.name:
            meta = await asyncio.to_thread(read_json, glance.run.meta)
            self._meta = (glance.name, meta or {})
        shown = preview(glance, self._meta[1], self._ascii) if glance else content("")
        with unless_gone:
            text = self.query_one(Static)
            if text.content != shown:
                text.update(shown)


def preview(glance: Glance, meta: dict[str, Any], ascii: bool = False) -> Content:
    """Return the details of a run that the table has no room for. `meta` is its meta.json, which may be malformed."""
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
    """Return the recipe's file name from `cmbench run RECIPE ...`."""
    return str(argv[2]).rpartition("/")[2] if isinstance(argv, list) and len(argv) > 2 else ""


def _overrides(argv: object) -> list[str]:
    """Return the values of all --set options."""
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    return [word for flag, word in pairwise(words) if flag == "--set"]


def _source(source: dict[str, Any]) -> str:
    return f"{source['recipe']} step {source.get('step', '?')}" if "recipe" in source else ""
