"""Every run of a folder at a glance, from its status and annotations alone, read again only where they changed."""

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmbench.measures import quality_keys
from cmbench.rundir import annotations, status
from cmbench.rundir.annotations import Annotations
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs

LIST_EVERY = 5.0  # seconds between looks for new runs and at those that are not live

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True)
class Glance:
    """What a table tells of one run. Equal glances look the same."""

    run: RunDir
    state: str
    step: int
    of: int | None
    loss: float | None
    best: tuple[tuple[str, float], ...]
    heartbeat: float
    written: Annotations

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def is_live(self) -> bool:
        """Whether a trainer works on it, or may."""
        return self.state in status.LIVE

    @property
    def quality(self) -> float | None:
        """The best figure of the measure that tells quality, of the fewest sampler steps there are."""
        found = dict(self.best)
        return next((found[key] for key in quality_keys(found)), None)


class Overview:
    """Glances at the runs of a folder. Not for two threads at once."""

    def __init__(self, runs_dir: Path, list_every: float = LIST_EVERY) -> None:
        self.runs_dir, self._list_every = runs_dir, list_every
        self._known: list[_Known] = []
        self._next_list = -math.inf

    def read(self, anew: bool = False) -> list[Glance]:
        """Return a glance at each run, oldest first; the same object as last time where nothing changed.

        Live runs are looked at each time; the others, which a trainer may have taken up, as often as new ones.

        Args:
            anew: look at everything now, however recently that was done.
        """
        everything = anew or time.monotonic() >= self._next_list
        if everything:
            self._list()
        return [known.read(everything) for known in self._known]

    def _list(self) -> None:
        self._next_list = time.monotonic() + self._list_every
        runs = all_runs(self.runs_dir)
        before = {known.run: known for known in self._known}
        self._known = [before.get(run) or _Known(run) for run in runs]


class _Known:
    """One run, and what was found when its files were read last."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._paths = (str(run.status), str(run.annotations))  # asked for every second: no new objects each time
        self._stamps: tuple[Stamp, ...] | None = None
        self._written: dict[str, Any] | None = None
        self._glance: Glance | None = None

    def read(self, however_dead: bool) -> Glance:
        if self._glance is not None and not (however_dead or self._glance.is_live):
            return self._glance
        stamps = tuple(map(_stamp, self._paths))
        if self._glance is None or stamps != self._stamps:
            self._stamps = stamps
            self._written = read_json(self.run.status)
            written = annotations.read(self.run) if stamps[1] else Annotations()
            self._glance = _glance(self.run, status.judged(self.run, self._written), written)
        elif self._glance.is_live:  # the dead write nothing
            state = status.judged(self.run, self._written)["state"]
            if state != self._glance.state:
                self._glance = replace(self._glance, state=state)
        return self._glance


def glance(run: RunDir) -> Glance:
    """Return a glance at one run."""
    return _Known(run).read(however_dead=True)


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
    )
