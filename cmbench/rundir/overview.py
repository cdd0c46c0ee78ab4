"""Every run of a folder at a glance, from its status and annotations alone, read again only if they changed."""

import math
import operator
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cmbench.measures import quality_keys
from cmbench.rundir import annotations, status
from cmbench.rundir.annotations import Annotations
from cmbench.rundir.fields import numbers
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs

LIST_EVERY = 5.0  # seconds between looks for new runs and at runs that are not live
_SHARE = 0.01  # of the time, for such looks: with many runs they take longer, and happen less often

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True)
class Glance:
    """One run as a table shows it. Equal glances look the same."""

    run: RunDir
    state: str
    step: int
    of: int | None
    loss: float | None
    best: tuple[tuple[str, float], ...]
    heartbeat: float
    written: Annotations
    within_floor: frozenset[str] = frozenset()  # metrics whose best equals a perfect sampler's within the spread
    last: Mapping[str, float] = field(default_factory=dict, compare=False)  # of each metric; for filter and order

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def is_live(self) -> bool:
        """Whether a trainer works on the run, or may."""
        return self.state in status.LIVE

    @property
    def quality(self) -> float | None:
        """The best figure of the quality measure, for the fewest sampler steps."""
        found = dict(self.best)
        return next((found[key] for key in quality_keys(found)), None)

    @property
    def is_within_floor(self) -> bool:
        """Whether `quality` is within its floor, so that its rank among other such figures means nothing."""
        return any(key in self.within_floor for key in quality_keys(dict(self.best))[:1])


class Overview:
    """Glances at the runs of a folder. Not thread-safe."""

    def __init__(self, runs_dir: Path, list_every: float = LIST_EVERY) -> None:
        self.runs_dir, self._list_every = runs_dir, list_every
        self._known: list[_Known] = []
        self._live: list[_Known] = []
        self._glances: list[Glance] = []
        self._next_list = -math.inf

    def read(self, anew: bool = False) -> list[Glance]:
        """Return a glance at each run, oldest first. If nothing changed, the objects are those of the last call.

        Each call looks at live runs. It looks at the others, which may have been resumed, as often as for new runs.

        Args:
            anew: look at everything now, however recent the last look was.
        """
        start = time.monotonic()
        if not (anew or start >= self._next_list):
            if [known for known in self._live if known.glance is not known.read()]:
                self._taken([known.glance for known in self._known if known.glance])
            return self._glances
        before = {known.run: known for known in self._known}
        listed = [before.get(run) or _Known(run) for run in all_runs(self.runs_dir)]
        found = [(known, glance) for known in listed if (glance := known.read()) and not known.is_gone()]
        self._known = [known for known, _ in found]
        glances = self._taken([glance for _, glance in found])
        self._next_list = start + max(self._list_every, (time.monotonic() - start) / _SHARE)
        return glances

    def _taken(self, glances: list[Glance]) -> list[Glance]:
        """Keep new glances, unless they are the present ones."""
        if len(glances) != len(self._glances) or any(map(operator.is_not, glances, self._glances)):
            self._glances = glances
            self._live = [known for known in self._known if known.glance and known.glance.is_live]
        return self._glances


class _Known:
    """One run, and the result of the last look at its files."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._paths = (str(run.status), str(run.annotations))  # used every second: no new objects each time
        self._stamps: tuple[Stamp, ...] | None = None
        self._written: dict[str, Any] | None = None
        self.glance: Glance | None = None  # the last one

    def is_gone(self) -> bool:
        """Return whether the run was moved away before its files could be read: such a run is not listed."""
        return self._written is None and not self.run.path.exists()

    def read(self) -> Glance:
        stamps = tuple(map(_stamp, self._paths))
        if self.glance is None or stamps != self._stamps:
            self._stamps = stamps
            self._written = read_json(self._paths[0])
            written = annotations.read(self.run) if stamps[1] else Annotations()
            self.glance = _glance(self.run, status.judged(self.run, self._written), written)
        elif self.glance.is_live:  # the dead write nothing
            state = status.judged(self.run, self._written)["state"]
            if state != self.glance.state:
                self.glance = replace(self.glance, state=state)
        return self.glance


def glance(run: RunDir) -> Glance:
    """Return a glance at one run."""
    return _Known(run).read()


def figure(glance: Glance, name: str) -> float | None:
    """Return the figure of a run that `last.METRIC` or `best.METRIC` names, ignoring case."""
    which, _, metric = name.partition(".")
    found = glance.last if which == "last" else dict(glance.best)
    return next((value for key, value in found.items() if key.casefold() == metric.casefold()), None)


def figure_names(glances: Iterable[Glance]) -> list[str]:
    """Return the names of all figures of the runs, as `figure` takes them."""
    names = {f"last.{key}" for glance in glances for key in glance.last}
    return sorted(names | {f"best.{key}" for glance in glances for key, _ in glance.best})


def _stamp(path: str) -> Stamp:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _glance(run: RunDir, now: dict[str, Any], written: Annotations) -> Glance:
    return Glance(
        run=run,
        state=now["state"],
        step=now["step"],
        of=now.get("of"),
        loss=now.get("last", {}).get("loss"),
        best=tuple((key, best["value"]) for key, best in now.get("best", {}).items()),
        heartbeat=now["heartbeat"],
        written=written,
        last=numbers(now.get("last")),
        within_floor=frozenset(key for key, best in now.get("best", {}).items() if best.get("is_within_floor")),
    )
