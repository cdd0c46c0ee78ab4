"""Pictures of edits for docs/editing.md: `python scripts/edits.py GREY COLOUR`, two run directories.

Each task is shown on held-out pictures of both runs, out of the half of the first 64 that has more contrast.
"""

import io
import sys
from pathlib import Path

import torch
from PIL import Image

from cmbench.engine import build, edit, snapshot, weights
from cmbench.engine.weights import Trained
from cmbench.rundir.layout import RunDir

FOLDER = Path(__file__).parents[1] / "docs" / "images"
TASKS = ("inpaint", "colourise", "upscale", "stroke", "interpolate", "denoise")
ROWS, AMONG, GAP = 4, 64, 12
FACTOR = {8: 2, 32: 4}  # of upscaling, by the side of a picture


def picture(trained: Trained, task: str) -> Image.Image:
    """Edit some held-out pictures of a run as `cmbench edit` does, and return the grid."""
    x, _ = edit.held_out(trained, AMONG)
    count = 2 * ROWS if task == "interpolate" else ROWS
    x = x[x.flatten(1).std(dim=1).argsort(descending=True)][: AMONG // 2 : AMONG // 2 // count]
    levels = edit.default_levels(trained, task, None, build.sigma_lowest(trained.recipe))
    variations = {"interpolate": 7, "denoise": 1}.get(task, 3)
    edited = edit.edit(trained, x, edit.Wanted(task, levels, variations, factor=FACTOR[x.shape[-1]]))
    rows = edited.path() if task == "interpolate" else edited.rows()
    png = snapshot.to_png(rows.flatten(0, 1), rows.shape[1])
    return Image.open(io.BytesIO(png)).convert("RGB")


def beside(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures side by side on white, each pixel as two by two."""
    width = sum(each.width for each in pictures) + GAP * (len(pictures) - 1)
    sheet, left = Image.new("RGB", (width, max(each.height for each in pictures)), "white"), 0
    for each in pictures:
        sheet.paste(each, (left, 0))
        left += each.width + GAP
    return sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)


def main(grey: RunDir, colour: RunDir) -> None:
    """Draw all tasks."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    runs = [weights.load(run, torch.device("cpu")) for run in (grey, colour)]
    for task in TASKS:
        able = [run for run in runs if task != "colourise" or run.model.shape[0] == 3]
        file = FOLDER / f"edit_{task}.png"
        beside([picture(run, task) for run in able]).save(file, optimize=True)
        print(f"{file}  {file.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*(RunDir(Path(argument)) for argument in sys.argv[1:]))
