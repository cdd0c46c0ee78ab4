"""What the snapshots screen shows: which run, step and number of sampler steps where, and what stands above it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cmbench.rundir.snapshots import Album, SnapshotFile


class Wanted(NamedTuple):
    """A picture to show: its caption, and its file or why there is none."""

    caption: str
    file: SnapshotFile | None
    missing: str

    @property
    def path(self) -> str:
        """Where the picture lies."""
        return str(self.file.picture) if self.file else self.missing


@dataclass
class SnapshotView:
    """The albums of one run or two (A and B), and where one stands in them."""

    names: Sequence[str]
    ascii: bool = False
    albums: list[Album] = field(init=False)
    step: int | None = None
    pinned: int | None = None
    only: int = 0
    turned: int = 0
    linked: bool = False

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.albums = [Album() for _ in self.names]

    @property
    def steps(self) -> list[int]:
        """The steps of A."""
        return self.albums[0].steps

    @property
    def position(self) -> int:
        """Where the step is among them."""
        return self.steps.index(self.step) if self.step is not None else 0

    @property
    def following(self) -> bool:
        """Whether the newest step is shown, so that the next one will be."""
        return self.step == max(self.albums[0].files, default=None)

    @property
    def sampler_steps(self) -> list[int]:
        """Every number of sampler steps there is."""
        return sorted({k for album in self.albums for k in album.sampler_steps})

    def take(self, albums: list[Album]) -> None:
        """Take in what came; the newest step stays the newest."""
        follows = self.following
        self.albums = albums
        if follows or self.step not in albums[0].files:
            self.step = max(albums[0].files, default=None)

    def go_to(self, index: int) -> None:
        """Go to a step by its place, or to the end that lies there."""
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
        """Return the numbers of sampler steps to show where there is room for so many pictures."""
        known = self.sampler_steps
        if self.only:
            return [self.only]
        return known if len(known) <= room else [known[(self.turned + i) % len(known)] for i in range(room)]

    def against(self) -> tuple[int, int] | None:
        """Return run and step of what blinks with the current step: the pinned one, else the other run's; or None."""
        if self.pinned in self.albums[0].files and self.pinned is not None and self.pinned != self.step:
            return 0, self.pinned
        step = self.albums[1].nearest(self.step) if len(self.albums) > 1 and self.step is not None else None
        return None if step is None else (1, step)

    def rows(self, room: int, blinking: bool, flipped: bool) -> list[list[Wanted]]:
        """Return the rows of pictures to show."""
        if self.step is None:
            return []
        against = self.against()
        if self.linked and (step := self.albums[1].nearest(self.step)) is not None:
            return [self._row(room, 0, self.step, "A"), self._row(room, 1, step, "B")]
        if blinking and flipped and against is not None:
            return [self._row(room, *against, "B")]
        return [self._row(room, 0, self.step, "A" if blinking or len(self.albums) > 1 else "")]

    def line(self, step: int) -> str:
        """Return a step's line in the list: pinned, step, sampler steps, quality."""
        album = self.albums[0]
        quality = album.quality.get(step, {})
        figure = f"{quality[min(quality)]:.4g}" if quality else ""
        drawn = ("," if self.ascii else "·").join(map(str, sorted(album.files[step])))
        return f"{'B' if step == self.pinned else ' '}{step:>9,} {drawn:<7} {figure}{self._star(album, step)}"

    def _row(self, room: int, run: int, step: int, letter: str) -> list[Wanted]:
        files = self.albums[run].files.get(step, {})
        return [
            Wanted(self._caption(run, step, k, letter), files.get(k), f"{step:08d}_{k}step.png is missing")
            for k in self.columns(room)
        ]

    def _caption(self, run: int, step: int, sampler_steps: int, letter: str) -> str:
        album = self.albums[run]
        value = album.quality.get(step, {}).get(sampler_steps)
        quality = "" if value is None else f"{album.measure} {value:.4g}{self._star(album, step)}"
        name = self.names[run] if len(self.names) > 1 else ""
        parts = filter(None, [f"{sampler_steps}-step", f"{step:,}", quality, name])
        return f"{letter} ".lstrip() + (", " if self.ascii else " · ").join(parts)

    def _star(self, album: Album, step: int) -> str:
        return ("*" if self.ascii else "★") if step == album.best else ""
