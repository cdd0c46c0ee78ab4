"""The view as the user left it, saved between sessions in the user's state folder, never in a run."""

import os
import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError, field_validator

from cmbench import regular
from cmbench.comparison.filter import parse
from cmbench.config import Config, Strings
from cmbench.errors import UsageError
from cmbench.rundir.files import from_json, to_json, write_atomically
from cmbench.views.axes import OF_RUNS
from cmbench.views.smoothing import SMOOTHINGS, USUAL

_LARGEST = 1 << 16  # bytes of the file


class Charts(Config):
    """How charts over the steps of runs are shown."""

    axis: str = Field(next(iter(OF_RUNS)), description="horizontal axis")
    smoothing: float = Field(USUAL, description="average of all charts")
    alone: dict[str, float] = Field(default_factory=dict, description="averages that charts have alone, by title")
    pattern: str = Field("", description="filter of metrics")
    pins: Strings = Field((), description="metrics whose charts come first")

    @field_validator("axis")
    @classmethod
    def _axis_exists(cls, axis: str) -> str:
        if axis not in OF_RUNS:
            raise ValueError("no axis")
        return axis

    @field_validator("smoothing")
    @classmethod
    def _smoothing_exists(cls, smoothing: float) -> float:
        if smoothing not in SMOOTHINGS:
            raise ValueError("no average")
        return smoothing

    @field_validator("alone")
    @classmethod
    def _averages_exist(cls, alone: dict[str, float]) -> dict[str, float]:
        return {title: cls._smoothing_exists(value) for title, value in alone.items()}

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(str(error)) from None
        return pattern


class Runs(Config):
    """How the table of runs is shown."""

    sorted_by: str = Field("age", description="column or figure")
    is_reversed: bool = Field(False, description="from high to low")
    metric: str = Field("", description="figure that has a column, such as last.N")
    filter: str = Field("", description="words that say which runs are meant")

    @field_validator("filter")
    @classmethod
    def _is_understood(cls, words: str) -> str:
        try:
            parse(words)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return words


Part = TypeVar("Part", Charts, Runs)


class Kept:
    """The kept view. A damaged file, or a damaged part of one, counts as missing.

    Args:
        path: the file. None: the view is kept for this session only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, tables = path, _read(path)
        self.charts = _part(Charts, tables.get("charts"))
        self.runs = _part(Runs, tables.get("runs"))

    def keep_charts(self, **changes: Any) -> None:
        """Keep changes to how charts are shown; the keys are those of `Charts`."""
        self.charts = self._changed(self.charts, changes)

    def keep_runs(self, **changes: Any) -> None:
        """Keep changes to how the table of runs is shown; the keys are those of `Runs`."""
        self.runs = self._changed(self.runs, changes)

    def _changed(self, part: Part, changes: dict[str, Any]) -> Part:
        changed = part.model_copy(update=changes)
        if changed != part and self._path is not None:
            self._write({"charts": self.charts, "runs": self.runs, type(part).__name__.lower(): changed})
        return changed

    def _write(self, parts: dict[str, Config]) -> None:
        """Write the file if possible. A view that cannot be saved is no reason to stop."""
        assert self._path is not None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            tables = {name: part.model_dump(mode="json") for name, part in parts.items()}
            write_atomically(self._path, to_json(tables, indent=True), durable=False)
        except OSError:
            return


def path() -> Path | None:
    """Return the view's file: cmbench/view.json in XDG_STATE_HOME or ~/.local/state; None without a home folder."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(f"{base}/cmbench/view.json").expanduser()
    except RuntimeError:
        return None


def _read(path: Path | None) -> dict[str, Any]:
    try:
        found = from_json(regular.read(path, _LARGEST, links=True)) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _part(kind: type[Part], table: object) -> Part:
    try:
        return kind.model_validate(table or {})
    except ValidationError:
        return kind()
