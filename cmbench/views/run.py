"""A run as the screens see it, read in a worker thread, one piece at a time."""

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmbench.comparison.member import with_settings
from cmbench.errors import UsageError
from cmbench.quantities import SCHEDULES
from cmbench.recipe import Recipe
from cmbench.recipe import load as load_recipe
from cmbench.rundir import floors, settings, status
from cmbench.rundir.curve import Points
from cmbench.rundir.fields import moment, number_list, number_of, tables, whole
from cmbench.rundir.files import opened, read_json
from cmbench.rundir.floors import Floors
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row
from cmbench.rundir.series import Series
from cmbench.views.lines import SIGNS, Band, Line, Mark
from cmbench.words.journal import said

_AT_ONCE = 0.75  # seconds of reading before the screen shows the result
_AT_FIRST = 0.2  # the same while the screen shows nothing yet
_TAIL = 1 << 14  # bytes of the console
_ALERTS = ("warning", "diverged", "failed")  # kinds of journal rows
_CHECKPOINTS = 16  # largest number of marks, so that the axis stays readable


@dataclass
class RunView:
    """One run: the content of its files, as far as they are read and valid.

    Several screens may read at once, each in its own thread, while the application draws.

    Attributes:
        run: the run directory.
        recipe: the complete recipe; None if it cannot be read.
        meta: content of meta.json.
        status: content of status.json with the true state; if the folder is gone, the last content read.
        series: curves, profiles and journal.
        reference: step and bins, by quantity, of the profile that later ones are compared with; empty for none.
    """

    run: RunDir
    recipe: Recipe | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, tuple[int, NDArray[np.float32]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with nothing read."""
        self.series = Series(self.run)
        self._stamps: dict[Path, tuple[int, int, int]] = {}
        self._lock = threading.Lock()  # held for one piece at a time, so that drawing does not wait for a whole file

    def read(self) -> set[str]:
        """Read for a moment. Return what changed: "recipe", "status", "rows", "console"; empty if nothing did."""
        changed = set()
        if self._is_new(self.run.meta) and (meta := read_json(self.run.meta)):
            self.meta = meta
            changed.add("recipe")
        if self._is_new(self.run.recipe) and (recipe := _recipe(self.run)):
            self.recipe = recipe
            changed.add("recipe")
        now = status.read(self.run)
        if now["state"] == "gone":
            now = {**self.status, "state": "gone"}
        now.pop("heartbeat", None)
        if now != self.status:
            self.status = now
            changed.add("status")
        deadline = time.monotonic() + (_AT_ONCE if self.series.metrics.curves else _AT_FIRST)
        while self._read_piece():
            changed.add("rows")
            if time.monotonic() > deadline:
                break
        if self._is_new(self.run.console):
            changed.add("console")
        return changed

    def _read_piece(self) -> bool:
        with self._lock:
            return self.series.read()

    def console(self) -> list[str]:
        """Return the last lines of the trainer's output."""
        try:
            with opened(self.run.console) as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - _TAIL))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return lines[1:] if size > _TAIL else lines

    @property
    def is_still(self) -> bool:
        """Whether the run is paused or over."""
        return self.status.get("state") not in ("starting", "running", "lost")

    @property
    def is_over(self) -> bool:
        """Whether no more rows will come, unless the run is resumed."""
        return self.is_still and self.status.get("state") != "paused"

    @property
    def is_here(self) -> bool:
        """Whether the trainer runs on this machine."""
        return self.status.get("host") == socket.gethostname()

    @property
    def keys(self) -> list[str]:
        """Names of the curves, the machine's curves last; runs of earlier versions have no machine curves."""
        return [*sorted(self.series.metrics.curves), *sorted(self.series.machine.curves)]

    @property
    def edges(self) -> list[float]:
        """Times between the bins of the profiles."""
        return number_list(self.meta.get("profile_edges"))

    @property
    def noise_levels(self) -> list[float]:
        """Noise levels at the times in `edges`; empty if the run does not record them or one is not positive."""
        levels = number_list(self.meta.get("profile_noise_levels"))
        return levels if all(level > 0 for level in levels) else []

    @property
    def alerts(self) -> int:
        """Number of warnings, divergences and failures in the journal."""
        return sum(row.get("kind") in _ALERTS for row in list(self.series.journal.rows))

    @property
    def last_alert(self) -> str:
        """The newest warning, divergence or failure of the journal in words, with its step; empty for none."""
        rows = [row for row in list(self.series.journal.rows) if row.get("kind") in _ALERTS]
        if not rows:
            return ""
        text = said(rows[-1]).removeprefix("warning: ").removeprefix("the ")
        return f"step {rows[-1].get('step', '?')} {text}"

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's values by key; a key that was changed during training has all its values."""
        return with_settings(self.recipe, settings.course(list(self.series.journal.settings))) if self.recipe else {}

    @property
    def last(self) -> dict[str, float]:
        """The last value of each curve."""
        return dict(self.series.metrics.last)

    @property
    def floors(self) -> Floors:
        """The values that a perfect sampler would get, by measure."""
        return floors.of_meta(self.meta)

    def bands(self, keys: Sequence[str]) -> list[Band]:
        """Return the bands in which values of these metrics cannot be told from a perfect sampler's, each band once."""
        found = {floor for key in keys if (floor := floors.of_row(self.floors, key))}
        return [Band(floor.value - (floor.spread or 0.0), floor.value + (floor.spread or 0.0)) for floor in found]

    def best(self, key: str) -> tuple[float, int] | None:
        """Return the best value of a quality and its step, or None."""
        best = tables(self.status.get("best")).get(key, {})
        value, step = number_of(best.get("value")), whole(best.get("step"))
        return None if value is None or step is None else (value, step)

    def line(self, key: str, axis: str, colour: int = 0, dash: str = "solid", label: str = "") -> Line:
        """Return a curve over an axis of `axes.OF_RUNS`: steps, images, training seconds, moments or forward passes."""
        curve = self.series.metrics.curves.get(key) or self.series.machine.curves.get(key)
        empty = np.empty(0)
        if curve is None:
            return Line.of(label or key, empty, empty, colour, dash)
        with self._lock:  # copies, because reading goes on in these arrays
            points = curve.points()
            x = self._x(points, axis)
            order = np.argsort(x, kind="stable") if axis == "wall" else slice(None)  # the wall clock may be set back
            low, high, mean, count = (
                part[order].astype(np.float64) for part in (points.low, points.high, points.mean, points.count)
            )
            bad, smooth = points.bad[order] > 0, key not in SCHEDULES
            return Line(label or key, x[order], low, high, mean, count, bad, colour, dash, smooth)

    def x_end(self, axis: str) -> float | None:
        """Return where the axis will end when the run finishes, if known; for a run that is over, where it ended."""
        if self.is_over:
            return self.x_last(axis)
        of = self.status.get("of")
        if axis in ("time", "wall") or not isinstance(of, int):
            return None
        return of * self._per_step(axis)

    def x_last(self, axis: str) -> float:
        """Return the place of the last row on an axis."""
        steps, seconds, times = self._course()
        if axis in ("time", "wall"):
            known = seconds if axis == "time" else times
            return float(np.max(known, where=np.isfinite(known), initial=0.0))
        return float(steps[-1]) * self._per_step(axis)

    def x_start(self, axis: str) -> float:
        """Return where an axis begins: zero, or on the wall clock the moment when the run began."""
        if axis != "wall":
            return 0.0
        began, times = moment(self.meta.get("created")), self._course()[2]
        known = times[np.isfinite(times) & (times > 0)]
        return min([*known, *([] if began is None else [began])], default=0.0)

    def spike_at(self, axis: str, low: float, high: float) -> Row | None:
        """Return the newest journal row about a spike or a divergence between two places of an axis."""
        course, found = self._course(), None
        for row in list(self.series.journal.rows):
            tells = row.get("kind") == "diverged" or (row.get("kind") == "warning" and "bins" in row)
            if tells and low <= self._x_of(row, axis, course) <= high:
                found = row
        return found

    def step_at(self, axis: str, x: float) -> int:
        """Return the step at a place of an axis, as far as the rows tell."""
        if axis in ("time", "wall"):
            steps, seconds, times = self._course()
            along = seconds if axis == "time" else times
            known = np.isfinite(along)
            order = np.argsort(along[known], kind="stable")
            return int(np.interp(x, along[known][order], steps[known][order])) if known.any() else 0
        return round(x / self._per_step(axis))

    def marks(self, axis: str) -> list[Mark]:
        """Return the journal's events as marks on an axis, the most important on top; many checkpoints are thinned."""
        rows = list(self.series.journal.rows)
        marks, course = [], self._course()
        for kind, sign in SIGNS.items():
            found = [row for row in rows if row.get("kind") == kind]
            is_quiet = kind == "checkpoint"
            marks += [
                Mark(self._x_of(row, axis, course), sign, kind in ("diverged", "warning"), is_quiet)
                for row in (_thinned(found, _CHECKPOINTS) if is_quiet else found)
            ]
        return marks

    def _x(self, points: Points, axis: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        if axis in ("time", "wall"):
            return (points.seconds if axis == "time" else points.time).copy()
        return points.step.astype(np.float64) * self._per_step(axis)

    def _x_of(self, row: dict[str, Any], axis: str, course: Sequence[np.ndarray[Any, Any]]) -> float:
        """Return the place of a journal row. If it lacks training seconds, they are interpolated from its step."""
        if axis == "wall":
            return moment(row.get("time")) or 0.0
        step = whole(row.get("step")) or 0
        if axis == "time":
            told = moment(row.get("train_s"))
            return float(np.interp(step, course[0], course[1])) if told is None else told
        return step * self._per_step(axis)

    def _course(self) -> tuple[np.ndarray[Any, Any], ...]:
        with self._lock:
            return self.series.metrics.course()

    def _per_step(self, axis: str) -> float:
        """Return how far one step goes on an axis: one step, its images, or the forward passes of these images."""
        images = self.recipe.train.batch_size if self.recipe else 1
        of_image = self.series.metrics.last.get("forwards_per_image", 1.0)
        return {"step": 1.0, "images": images, "forwards": images * of_image}[axis]

    def _is_new(self, path: Path) -> bool:
        try:
            stat = path.stat()
        except OSError:
            return False
        stamp = stat.st_mtime_ns, stat.st_size, stat.st_ino  # in a replaced folder all of these may be older
        changed = self._stamps.get(path) != stamp
        self._stamps[path] = stamp
        return changed


def _thinned(rows: list[Row], most: int) -> list[Row]:
    """Return every row, or every second, fourth and so on. Rows left out stay left out when more come."""
    every = 1
    while len(rows) > most * every:
        every *= 2
    return rows[every - 1 :: every]


def _recipe(run: RunDir) -> Recipe | None:
    try:
        return load_recipe(run.recipe)
    except (UsageError, OSError):
        return None
