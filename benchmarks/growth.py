"""How the cost of a training step grows: with batch, width, picture size, rows, bins, averages and ranks.

    python benchmarks/growth.py [--rounds 15] [--draw]

Measures by the code of `cmbench bench`, all points of a sweep in turn. Writes growth.json here, the charts
docs/images/growth_*.svg, and figures and tables between two marks of docs/performance.md. --draw measures nothing and
draws again from growth.json. The clock is the processor time of this process, which has one thread; what is kept are
ratios and shares. Ranks alone are timed by the wall clock, since they wait for each other.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import growth_charts
import growth_page
import torch

from cmbench.engine.bench.cost import Cost
from cmbench.engine.bench.measure import measure
from cmbench.engine.bench.subject import Asked
from cmbench.engine.ranks import Ranks
from cmbench.rundir.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "growth.json"
PAGE = ROOT / "docs" / "performance.md"
RECIPES = ROOT / "recipes"
SCHEMA = 1
DIGITS = 4  # that are kept of a ratio

DIT = "network={kind='dit', width=64, depth=4, patch=2}"
FEW, FEWER, FEWEST = (f"train.batch_size={n}" for n in (32, 16, 4))
STRIDE = "data.stride=32"  # few patches are cut out
RATE = 0.01  # of the first average: 1 - decay


@dataclass(frozen=True)
class Sweep:
    """One key at several values, all else equal.

    Attributes:
        what: grows.
        network: whose cost it is, of growth_page.NETWORKS.
        recipe: a file.
        base: overrides of all points.
        values: from the smallest.
    """

    what: str
    network: str
    recipe: Path
    base: Sequence[str]
    values: Sequence[int]


def _lengths(n: int) -> list[str]:
    """Return n averages, each longer than the last."""
    return [f"ema.lengths={[round(1 - RATE / (1 + i), 6) for i in range(n)]}"]


OVERRIDES: dict[str, Callable[[int], list[str]]] = {
    "batch": lambda n: [f"train.batch_size={n}"],
    "width": lambda n: [f"network.width={n}"],
    "size": lambda n: [f"data.size={n}"],
    "rows": lambda n: [f"log.every={n}", f"profile.every={n}"],
    "bins": lambda n: [f"profile.bins={n}"],
    "averages": _lengths,
}
RING, DIGITS_RECIPE, PATCHES = (RECIPES / f"{name}.toml" for name in ("ct_edm_ring", "ct_edm", "ct_edm_patches"))
BATCHES, SIDES, ROWS, BINS, AVERAGES = (
    (4, 8, 16, 32, 64, 128, 256, 512),
    (8, 16, 24, 32, 48),
    (1, 4, 16, 64, 256),
    (8, 16, 32, 64, 128, 256),
    (1, 2, 4, 8, 16),
)
SWEEPS = (
    Sweep("batch", "mlp", RING, (), (16, 64, 256, 1024, 4096)),
    Sweep("batch", "unet", DIGITS_RECIPE, (), BATCHES),
    Sweep("batch", "dit", DIGITS_RECIPE, (DIT,), BATCHES[:-1]),
    Sweep("width", "mlp", RING, (), (32, 64, 128, 256, 512, 1024)),
    Sweep("width", "unet", DIGITS_RECIPE, (FEW,), (8, 16, 32, 64)),
    Sweep("width", "dit", DIGITS_RECIPE, (FEW, DIT), (32, 64, 128, 256)),
    Sweep("size", "unet", PATCHES, (FEWER, STRIDE), SIDES),
    Sweep("size", "dit", PATCHES, (FEWEST, STRIDE, DIT), SIDES),
    Sweep("rows", "mlp", RING, (), ROWS),
    Sweep("rows", "unet", DIGITS_RECIPE, (), ROWS),
    Sweep("bins", "mlp", RING, (), BINS),
    Sweep("bins", "unet", DIGITS_RECIPE, (), BINS),
    Sweep("averages", "mlp", RING, (), AVERAGES),
    Sweep("averages", "unet", DIGITS_RECIPE, (), AVERAGES),
    Sweep("averages", "dit", DIGITS_RECIPE, (DIT,), AVERAGES),
)
ON_RANKS = (32, 128, 512)  # batch sizes of all ranks together


def swept(sweep: Sweep, rounds: int) -> dict[str, Any]:
    """Return the points of a sweep, in ratios to the first: "seconds" and "flop" of a step."""
    asked = [Asked(sweep.recipe, (*sweep.base, *OVERRIDES[sweep.what](value))) for value in sweep.values]
    found = measure(asked, rounds, Ranks(), time.process_time)
    points = [
        {"value": value, "seconds": _short(ratio), "flop": _short(cost.flop / found.costs[0].flop), **_told(cost)}
        for value, ratio, cost in zip(sweep.values, found.ratios, found.costs, strict=True)
    ]
    about = {"what": sweep.what, "network": sweep.network, "recipe": sweep.recipe.stem, "set": list(sweep.base)}
    return {**about, "cores": _short(found.ran), "points": points}


def _told(cost: Cost) -> dict[str, Any]:
    shares = {phase.name: _short(phase.seconds / cost.seconds) for phase in cost.phases}
    told = {"to_bare": _short(cost.ratio), "of_product": _short(cost.share), "peak": cost.peak}
    return {**told, "shares": shares}


def _short(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def on_ranks(batch_size: int, rounds: int) -> dict[str, Any]:
    """Return what two ranks on the CPU, of one thread each, come to beside one that takes whole batches."""
    command = [sys.executable, "-m", "cmbench", "bench", str(DIGITS_RECIPE), "--gpus", "2", "--device", "cpu"]
    command += ["--set", f"train.batch_size={batch_size}", "--rounds", str(rounds), "--json"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env=one_thread, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    (own,) = found["recipes"]
    told = {"efficiency": own["efficiency"], "cores": found["cores"]}
    return {"ranks": found["ranks"], "batch_size": batch_size, **{name: _short(x) for name, x in told.items()}}


def measured(sweeps: Sequence[Sweep], batch_sizes: Sequence[int], rounds: int) -> dict[str, Any]:
    """Measure everything."""

    def sweeping() -> Iterator[dict[str, Any]]:
        for sweep in sweeps:
            began = time.monotonic()
            yield swept(sweep, rounds)
            print(f"{sweep.what}, {sweep.network}: {time.monotonic() - began:.0f} s", flush=True)

    about = {"schema": SCHEMA, "date": date.today().isoformat(), "torch": torch.__version__, "rounds": rounds}
    return {**about, "sweeps": list(sweeping()), "ranks": [on_ranks(size, rounds) for size in batch_sizes]}


def main() -> None:
    """Measure, unless there is nothing to do but to draw, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="that medians are over")
    parser.add_argument("--draw", action="store_true", help="measure nothing: draw growth.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.draw:
        found = measured(SWEEPS, ON_RANKS, options.rounds)
        write_atomically(FIGURES, (json.dumps(found, indent=1) + "\n").encode())
    found = json.loads(FIGURES.read_text(encoding="utf-8"))
    for path in growth_charts.draw(found, ROOT / "docs" / "images"):
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB", flush=True)
    growth_page.write(PAGE, found)


if __name__ == "__main__":
    main()
