"""Pictures of the screens for docs/screens.md, as SVG: `python scripts/pictures.py HEALTHY SICK OTHER`.

Each is a run directory. The application runs without a terminal, at 160x45, with its settings as they are at first.
HEALTHY gives the dashboard, the time profile and the snapshots; SICK its dashboard; HEALTHY and OTHER are compared; the
browser shows the folder that HEALTHY lies in. A picture of many colours is too large as SVG and becomes a PNG, which
wants `pip install resvg-py`.
"""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

os.environ |= {"COLORTERM": "truecolor", "LANG": "C.UTF-8"}  # the application asks for both when it is made
os.environ.pop("NO_COLOR", None)

from textual.pilot import Pilot

from cmbench.rundir.layout import RunDir
from cmbench.tui.app import CmbenchApp

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIZE = (160, 45)
FONTS = "Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace"  # with braille; the first that the reader has
LARGEST = 250_000  # bytes of a picture that a repository should hold

Use = Callable[[Pilot[None]], Awaitable[None]]


def presses(*keys: str) -> Use:
    """Return what presses keys, and waits until files are read and pictures drawn after each."""

    async def use(pilot: Pilot[None]) -> None:
        for key in keys:
            await pilot.press(key)
            await pilot.pause(1.0)

    return use


async def picture(name: str, runs_dir: Path, runs: list[RunDir], use: Use) -> None:
    """Open the runs, use the screen, and write what it shows."""
    app = CmbenchApp(runs_dir, runs)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(2.0)
        await use(pilot)
        svg = app.export_screenshot(title=f"cmbench {name}", simplify=True)
    for file in (FOLDER / f"{name}.svg", FOLDER / f"{name}.png"):
        file.unlink(missing_ok=True)
    svg = lean(svg)
    if len(svg.encode()) <= LARGEST:
        file = FOLDER / f"{name}.svg"
        file.write_text(svg)
    else:
        file = FOLDER / f"{name}.png"
        file.write_bytes(drawn(svg))
    print(f"{file}  {file.stat().st_size / 1000:.0f} kB", flush=True)


def lean(svg: str) -> str:
    """Take out the address of a font, for a picture loads nothing, and the number that differs in each export."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("font-family: Fira Code, monospace", f"font-family: {FONTS}")
    found = re.search(r"terminal-(\d+)-", svg)
    return svg.replace(f"terminal-{found[1]}-", "t") if found else svg


def drawn(svg: str) -> bytes:
    """Return an SVG as PNG."""
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, monospace_family="DejaVu Sans Mono"))


async def main(healthy: RunDir, sick: RunDir, other: RunDir) -> None:
    """Take all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = healthy.path.parent
    await picture("dashboard", folder, [healthy], presses())
    await picture("profile", folder, [healthy], presses("p"))
    await picture("snapshots", folder, [healthy], presses("i"))
    await picture("film", folder, [healthy], presses("i", "V"))
    await picture("plane", folder, [healthy], presses("i", "V", "V"))
    await picture("sick", folder, [sick], presses())
    await picture("compare", folder, [healthy, other], presses())
    await picture("runs", folder, [], presses("down"))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    asyncio.run(main(*(RunDir(Path(argument)) for argument in sys.argv[1:])))
