"""The state of the snapshots screen: which run, step and number of sampler steps it shows where, with captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cmbench.rundir.snapshots import Album, AnswerFile, SnapshotFile
from cmbench.tui.widgets.drawing import Drawing, load
from cmbench.tui.widgets.film import load_film, load_plane

_NOTHING = Album()


KINDS = ("samples", "film", "plane")  # views of a step: samples, f along trajectories, the latent plane
_CALLED = {"samples": "samples", "film": "film strip", "plane": "latent plane"}


class Wanted(NamedTuple):
    """A picture to show: its caption, and its file or why there is none; for a plane, whether it is the exact one."""

    caption: str
    file: SnapshotFile | AnswerFile | None
    missing: str
    kind: str = "samples"
    exact: bool = False

    @property
    def path(self) -> str:
        """Path of the picture."""
        if self.file is None:
            return self.missing
        return str(self.file.picture if isinstance(self.file, SnapshotFile) else self.file.answers)

    def drawing(self) -> Drawing:
        """Read the file."""
        if isinstance(self.file, SnapshotFile):
            return load(*self.file)
        if self.file is None:
            return self.missing
        return load_plane(self.file, self.exact) if self.kind == "plane" else load_film(self.file)


@dataclass
class SnapshotView:
    """The albums of the one or two runs on the screen, chosen from all runs, and the position in them.

    Attributes:
        names: names of all runs.
        letters: letters of all runs, used where there are several.
        having: numbers of the runs that have snapshots.
        sides: numbers of the runs on the screen: two if at least two have snapshots.
        wanted: the next `sides`, once their files are read; empty for no change.
        albums: albums of the runs on the screen, by number.
        step: one of `steps`; a run that has no snapshots there is shown at its nearest step.
    """

    names: Sequence[str]
    letters: Sequence[str] = "AB"
    ascii: bool = False
    having: Sequence[int] = ()
    sides: tuple[int, ...] = ()
    wanted: tuple[int, ...] = ()
    albums: Mapping[int, Album] = field(default_factory=dict)
    step: int | None = None
    pinned: int | None = None
    only: int = 0
    turned: int = 0
    linked: bool = False
    kind: str = KINDS[0]

    @property
    def called(self) -> str:
        """Name of the current view of a step."""
        return _CALLED[self.kind]

    @property
    def kinds(self) -> list[str]:
        """The views that the runs on the screen have."""
        albums = [self._album(run) for run in self.sides]
        there = {"film": any(a.films for a in albums), "plane": any(a.planes for a in albums)}
        return [kind for kind in KINDS if there.get(kind, True)]

    def next_kind(self) -> bool:
        """Go to the next of `kinds`, and return whether there are several."""
        kinds = self.kinds
        self.kind = kinds[(kinds.index(self.kind) + 1) % len(kinds)] if self.kind in kinds else KINDS[0]
        return len(kinds) > 1

    @property
    def steps(self) -> list[int]:
        """The steps at which a run on the screen has snapshots."""
        return sorted({step for run in self.sides for step in self._album(run).files})

    @property
    def titles(self) -> list[str]:
        """Titles of the runs on the screen; of all runs while none has snapshots."""
        shown = self.sides or range(len(self.names))
        return [self.names[i] if len(self.names) == 1 else f"{self.letters[i]} {self.names[i]}" for i in shown]

    @property
    def position(self) -> int:
        """Index of the current step in `steps`."""
        return self.steps.index(self.step) if self.step is not None else 0

    @property
    def following(self) -> bool:
        """Whether the newest step is shown, so that the screen will move to the next one."""
        return self.step == max(self.steps, default=None)

    @property
    def sampler_steps(self) -> list[int]:
        """All numbers of sampler steps that have snapshots."""
        return sorted({k for run in self.sides for k in self._album(run).sampler_steps})

    def choose(self, having: Sequence[int]) -> tuple[int, ...]:
        """Return the runs to show: the current ones, as long as they have snapshots, then the first of the others."""
        self.having = having
        kept = [run for run in self.wanted or self.sides if run in having]
        self.wanted = ()
        return tuple([*kept, *(run for run in having if run not in kept)][:2])

    def next_run(self, side: int) -> bool:
        """Replace the first (0) or second run by the next that has snapshots. Return whether there is one."""
        sides = list(self.wanted or self.sides)
        free = [run for run in self.having if run not in sides]
        if not free or side >= len(sides):
            return False
        sides[side] = next((run for run in free if run > sides[side]), free[0])
        self.wanted = tuple(sides)
        return True

    def take(self, albums: Mapping[int, Album]) -> None:
        """Take the albums of the runs to show. A screen at the newest step stays at the newest step."""
        follows, before = self.following, self.step
        self.sides, self.albums = tuple(albums), albums
        if follows or before is None or not self.steps:
            self.step = max(self.steps, default=None)
        else:
            self.step = min(self.steps, key=lambda step: abs(step - before))

    def go_to(self, index: int) -> None:
        """Go to a step by its index; beyond an end, to that end."""
        if steps := self.steps:
            self.step = steps[max(0, min(index, len(steps) - 1))]

    def turn(self, by: int) -> None:
        """Go to the next number of sampler steps."""
        known = self.sampler_steps
        if self.only in known:
            self.only = known[(known.index(self.only) + by) % len(known)]
        else:
            self.turned += by

    def columns(self, room: int) -> list[int]:
        """Return the numbers of sampler steps to show, given room for so many pictures."""
        known = self.sampler_steps
        if self.only:
            return [self.only]
        return known if len(known) <= room else [known[(self.turned + i) % len(known)] for i in range(room)]

    def at(self, side: int) -> int | None:
        """Return the step at which the first (0) or the second run is shown."""
        there = self.step is not None and side < len(self.sides)
        return self._album(self.sides[side]).nearest(self.step) if there and self.step is not None else None

    def pin(self) -> None:
        """Pin the first run's step to blink with. Pinning the same step again releases it."""
        self.pinned = None if self.pinned == self.at(0) else self.at(0)

    def against(self) -> tuple[int, int] | None:
        """Return the run and step that blink with the current step: the pinned step, or the other run's; or None."""
        if self._is_against_pinned and self.pinned is not None:
            return self.sides[0], self.pinned
        step = self.at(1)
        return None if step is None else (self.sides[1], step)

    @property
    def _is_against_pinned(self) -> bool:
        there = bool(self.sides) and self.pinned in self._album(self.sides[0]).files
        return there and self.pinned != self.at(0)

    def rows(self, room: int, blinking: bool, flipped: bool) -> list[list[Wanted]]:
        """Return the rows of pictures to show."""
        step, against = self.at(0), self.against()
        if step is None:
            return []
        first, own = self.sides[0], blinking and self._is_against_pinned
        if self.linked and (other := self.at(1)) is not None:
            steps = zip(self.sides, (step, other), strict=True)
            return [self._row(room, run, at, self.letters[run]) for run, at in steps]
        if blinking and flipped and against is not None:
            return [self._row(room, *against, "B" if own else self.letters[against[0]])]
        several = len(self.names) > 1
        return [self._row(room, first, step, "A" if own else self.letters[first] if several else "")]

    def line(self, step: int) -> str:
        """Return a step's line in the list (pinned, step, sampler steps, quality) from the first run that has it."""
        album = next(self._album(run) for run in self.sides if step in self._album(run).files)
        quality = album.quality.get(step, {})
        figure = f"{quality[min(quality)]:.4g}" if quality else ""
        drawn = ("," if self.ascii else "·").join(map(str, sorted(album.files[step])))
        return f"{'B' if step == self.pinned else ' '}{step:>9,} {drawn:<7} {figure}{self._star(album, step)}"

    def _row(self, room: int, run: int, step: int, letter: str) -> list[Wanted]:
        if self.kind != "samples":
            return self._answers(run, step, letter)
        files = self._album(run).files.get(step, {})
        return [
            Wanted(self._caption(run, step, k, letter), files.get(k), f"{step:08d}_{k}step.png is missing")
            for k in self.columns(room)
        ]

    def _answers(self, run: int, step: int, letter: str) -> list[Wanted]:
        album, dot = self._album(run), ", " if self.ascii else " · "
        name = self.names[run] if len(self.names) > 1 else ""
        missing = f"no {self.called} of step {step:,}"
        caption = f"{letter} ".lstrip() + dot.join(filter(None, [f"step {step:,}", name]))
        if self.kind == "film":
            return [Wanted(caption, album.films.get(step), missing, "film")]
        file = album.planes.get(step)
        return [
            Wanted(f"{caption}{dot}f", file, missing, "plane"),
            Wanted("latents within 3 sigma", file, missing, "plane", exact=True),
        ]

    def _caption(self, run: int, step: int, sampler_steps: int, letter: str) -> str:
        album = self._album(run)
        value = album.quality.get(step, {}).get(sampler_steps)
        quality = "" if value is None else f"{album.measure} {value:.4g}{self._star(album, step)}"
        name = self.names[run] if len(self.names) > 1 else ""
        parts = filter(None, [f"{sampler_steps}-step", f"{step:,}", quality, name])
        return f"{letter} ".lstrip() + (", " if self.ascii else " · ").join(parts)

    def _album(self, run: int) -> Album:
        return self.albums.get(run, _NOTHING)

    def _star(self, album: Album, step: int) -> str:
        return ("*" if self.ascii else "★") if step == album.best else ""


def slider(width: int, position: int, count: int, ascii: bool = False) -> str:
    """Draw a slider: a rail of `width` characters with a mark at `position` of `count`."""
    end, rail, tick, mark = ("|", "-", "+", "^") if ascii else ("├", "─", "┬", "▲")
    last = end if ascii else "┤"
    inner = max(1, width - 2)
    line = [tick if i % 8 == 7 else rail for i in range(inner)]
    line[round(position * (inner - 1) / max(1, count - 1))] = mark
    return end + "".join(line) + last
