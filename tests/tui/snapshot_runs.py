"""Run directories with snapshots, made by hand, and an app that shows them."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from textual.app import App
from textual.pilot import Pilot
from tui_host import shown

from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log
from cmbench.tui.screens.snapshots import SnapshotsScreen
from cmbench.tui.widgets.picture import Picture


def make_run(folder: Path, name: str, steps: Sequence[int], sampler_steps: Sequence[int] = (1, 2, 4)) -> RunDir:
    """A run whose snapshot of a step and a number of sampler steps is one flat colour of its own."""
    run = RunDir(folder / name)
    run.snapshots.mkdir(parents=True)
    run.recipe.write_text('name = "test"\n')
    metrics = Log(run.metrics)
    metrics.open_segment(1, 0)
    for step in steps:
        for k in sampler_steps:
            add_picture(run, step, k)
        metrics.append({"step": step, **{f"sw_{k}step": 1 / (step + k) for k in sampler_steps}})
    metrics.close()
    return run


def colour(step: int, k: int) -> tuple[int, int, int]:
    return (step % 256, 20 * k, 99)


def add_picture(run: RunDir, step: int, k: int) -> Path:
    path = run.snapshots / f"{step:08d}_{k}step.png"
    Image.new("RGB", (8, 8), colour(step, k)).save(path)
    return path


def add_points(run: RunDir, step: int, k: int, xy: np.ndarray) -> None:
    path = add_picture(run, step, k)
    save_file({"samples": xy.astype(np.float32)}, path.with_suffix(".safetensors"))


SIGMAS = np.float32([80, 20, 4, 1, 0.25, 0.002])


def add_answers(run: RunDir, step: int, wrong: int = 0, pictures: bool = False) -> None:
    """What f answered at a step: of points on a ring of four modes, or of pictures 8 x 8.

    As many cells of the 4 x 4 plane as are `wrong` go to the next mode.
    """
    angle = np.arange(3) * np.pi / 2
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32) * 0.7
    x = np.linspace(0.5, 1, 6, dtype=np.float32)[:, None, None] * ring
    f = np.broadcast_to(ring, x.shape).copy()
    if pictures:
        x, f = (np.full((6, 3, 1, 8, 8), value, np.uint8) for value in (50, 200))
    exact = np.repeat(np.repeat(np.uint8([[1, 0], [2, 3]]), 2, axis=0), 2, axis=1)
    sent_to = exact.copy()
    sent_to.reshape(-1)[:wrong] = (sent_to.reshape(-1)[:wrong] + 1) % 4
    kind, flag = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
    fixed = {"trajectory": kind, "is_denoiser": flag, "sigmas": SIGMAS, "x": x}
    own = {"f": f}
    if not pictures:
        fixed |= {"data": ring, "exact": exact}
        own["modes"] = np.tile(np.arange(3, dtype=np.uint8), (6, 1))
        save_file({"sent_to": sent_to}, run.snapshots / f"{step:08d}_plane.safetensors")
    save_file(fixed, run.snapshots / "fixed.safetensors")
    save_file(own, run.snapshots / f"{step:08d}_film.safetensors")


class SnapshotsApp(App[None]):
    """The least that the screen relies on."""

    poll_seconds = 0.05
    ascii = False
    pixels = ""

    def __init__(self, *runs: RunDir, ascii: bool = False) -> None:
        super().__init__()
        self.runs, self.ascii = runs, ascii

    def on_mount(self) -> None:
        self.push_screen(SnapshotsScreen(*self.runs, letters="ABCDE"))


def drive(app: App, steps: Callable, size: tuple[int, int] = (160, 45)) -> None:
    """Run an app without a terminal and do `steps` to it."""

    async def session() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await steps(pilot)

    asyncio.run(session())


def pictures(pilot: Pilot) -> list[Picture]:
    """The pictures that can be seen."""
    return [p for p in pilot.app.screen.query(Picture) if p.display and p.parent.display and p.size.height > 1]


def captions(pilot: Pilot) -> list[str]:
    """The lines above the pictures."""
    return [picture.render_lines(picture.region.reset_offset)[0].text.strip() for picture in pictures(pilot)]


def colours(pilot: Pilot) -> list[tuple[int, int, int]]:
    """The colour in the middle of each picture."""
    found = []
    for picture in pictures(pilot):
        strip = picture.render_lines(picture.region.reset_offset)[picture.size.height // 2]
        middle = strip.crop(picture.size.width // 2, picture.size.width // 2 + 1)
        found.append(tuple(next(iter(middle)).style.color.triplet))
    return found


def screen_text(pilot: Pilot) -> str:
    """All that stands on the screen."""
    return shown(pilot.app)
