"""Draws docs/images/methods/*.png: what each method does on the ring of eight Gaussians.

    python scripts/figures.py [METHOD ...] [--steps 2000] [--out docs/images/methods]

Each method trains its recipe on the ring for so many steps. The picture has three parts: samples over the modes, the
loss and the tangent norm over steps, and a quantity over the noise level, of the last quarter of the steps. That is
the tangent norm of objectives which differentiate the network, and the share of the weighted loss of the others.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cmbench.contracts import HasAnatomy, has
from cmbench.engine import loop, trainer

matplotlib.use("Agg")

METHODS = {"denoise": "dm_trigflow", "cd": "cd_edm", "ct": "ct_edm", "ict": "ict_edm", "ect": "ect_edm"}
METHODS |= {"tcm": "tcm_edm", "continuous": "ctcm_naive_trigflow", "meanflow": "meanflow_linear"}
METHODS |= {"sct": "sct_trigflow", "scd": "scd_trigflow_oracle"}
FIRST = {"tcm": "ect_edm"}  # what must be trained before, as a run: the teacher
HEUN_STEPS, SAMPLES, COLOURS = 18, 2000, 64
ROOT = Path(__file__).parents[1]
BLUE, ORANGE = "#24507a", "#d9722e"


@dataclass
class Course:
    """What a training told: rows over steps, and the last profile over the noise level."""

    steps: list[int] = field(default_factory=list)
    rows: list[Mapping[str, float]] = field(default_factory=list)
    profile: Mapping[str, list[float | None]] = field(default_factory=dict)

    def of(self, name: str) -> list[float]:
        """Return the size of a quantity in every row; the naive objective's loss has either sign."""
        return [abs(row[name]) for row in self.rows]


def recipe_of(method: str) -> str:
    """Return the recipe file of a method on the ring."""
    return str(ROOT / "recipes" / f"{method}_ring.toml")


def overrides(steps: int) -> list[str]:
    """Return the settings of a short training of which nothing is measured."""
    every = [f"log.every={max(1, steps // 40)}", f"profile.every={max(1, steps // 4)}"]
    return [*every, f"train.steps={steps}", "train.device=cpu", "snapshot.every=0", "evaluate.every=0"]


def train_first(name: str, steps: int, runs: Path) -> None:
    """Train the run that another method starts from."""
    sets = [part for setting in overrides(steps) for part in ("--set", setting)]
    command = [sys.executable, "-m", "cmbench", "run", recipe_of(name), "--foreground", "--runs-dir", str(runs)]
    subprocess.run([*command, *sets], check=True, stdout=subprocess.DEVNULL)


def train(built: trainer.Trainer) -> Course:
    """Train to the end of the recipe."""
    course = Course()
    for event in loop.train(built):
        if isinstance(event, loop.Metrics):
            course.steps.append(event.step)
            course.rows.append(event.values)
        elif isinstance(event, loop.Profiled):
            course.profile = event.values
        elif isinstance(event, loop.Diverged):
            raise SystemExit(f"{built.recipe.name}: diverged at step {event.step:,}")
    return course


def draw_samples(axes: Axes, built: trainer.Trainer) -> None:
    """Draw samples, and a cross on each mode."""
    by_ode = built.objective.sampler == "ode"
    x, means = built.sample(SAMPLES, HEUN_STEPS if by_ode else 1).cpu(), built.data.oracle().means
    axes.plot(x[:, 0], x[:, 1], ".", color=BLUE, markersize=1.2)
    axes.plot(means[:, 0], means[:, 1], "+", color=ORANGE, markersize=9)
    axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal", xticks=[], yticks=[])
    axes.set_title(f"{SAMPLES:,} samples, {f'{HEUN_STEPS} levels of Heun' if by_ode else 'one step'}")


def draw_course(axes: Axes, course: Course) -> None:
    """Draw loss and tangent norm over steps."""
    signed = any(row["loss"] < 0 for row in course.rows)
    axes.semilogy(course.steps, course.of("loss"), color=BLUE, label="size of the loss" if signed else "loss")
    if "tangent_norm" in course.rows[0]:
        axes.semilogy(course.steps, course.of("tangent_norm"), color=ORANGE, label="tangent norm")
    axes.set(xlabel="steps", title="over steps")
    axes.legend()


def draw_profile(axes: Axes, course: Course, built: trainer.Trainer) -> None:
    """Draw the tangent norm over the noise level, or the share of each bin in the weighted loss."""
    edges = built.state.model.path.noise_level(built.state.profile.edges.double()).tolist()
    if has(built.objective, HasAnatomy):
        heights, title = [norm or 0.0 for norm in course.profile["tangent_norm"]], "tangent norm over noise level"
    else:
        parts = zip(course.profile["weighted_loss"], course.profile["count"], strict=True)
        whole = [(loss or 0.0) * (count or 0.0) for loss, count in parts]
        heights, title = [part / sum(whole) for part in whole], "share of loss over noise level"
    axes.stairs(heights, edges, fill=True, color=ORANGE if "tangent" in title else BLUE)
    axes.set(xscale="log", xlabel="sigma", title=title)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG of few colours."""
    whole = io.BytesIO()
    figure.savefig(whole, format="png")
    Image.open(whole).convert("RGB").quantize(COLOURS).save(path, optimize=True)


def draw(method: str, steps: int, out: Path) -> Path:
    """Train one method and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        if method in FIRST:
            train_first(FIRST[method], steps, Path(folder))
        built = trainer.from_file(recipe_of(METHODS[method]), overrides(steps), Path(folder))
        course = train(built)
    figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.15, 1.15))
    draw_samples(left, built)
    draw_course(middle, course)
    draw_profile(right, course, built)
    save(figure, path := out / f"{method}.png")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the methods that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; all without any")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "methods")
    options = parser.parse_args(arguments)
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"found {', '.join(sorted(unknown))}, allowed: {', '.join(METHODS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    matplotlib.rcParams.update({"font.size": 8, "axes.titlesize": 8, "legend.frameon": False, "lines.linewidth": 1.2})
    for method in options.methods or METHODS:
        path = draw(method, options.steps, options.out)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
