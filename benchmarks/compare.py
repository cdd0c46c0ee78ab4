"""Write many long runs as trainers do, and time `cmbench compare --plain` of them.

    python benchmarks/compare.py [RUNS] [ROWS] [PROFILES] [SEEDS]

RUNS (40) of ROWS (10,000) rows of eleven metrics and of PROFILES rows (1,000: as many as recipes for CIFAR-10 write) of
five quantities over time, SEEDS (10) of each recipe. Prints how many rows and bytes there are, and of five comparisons
the median seconds from command to end and of the processor.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cmbench import recipe as recipes
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir

BINS = 32
METRICS = ("loss", "unweighted_loss", "weight", "tangent_norm", "grad_norm", "r", "lr", "N", "forwards", "images_per_s")
QUANTITIES = ("loss", "weighted_loss", "weight", "tangent_norm", "count")


def write_run(run: RunDir, seed: int, n: int, profiles: int, seeds: int) -> None:
    """Write one run: losses that fall with noise, a measure of quality every fiftieth row."""
    random = np.random.default_rng(seed)
    run.path.mkdir()
    base = recipes.load(Path(__file__).parent.parent / "recipes" / "ct_edm_ring.toml")
    optimizer = base.optimizer.model_copy(update={"lr": 1e-3 * (1 + seed // seeds)})
    run.recipe.write_text(recipes.dumps(base.model_copy(update={"seed": seed, "optimizer": optimizer})))
    edges = np.geomspace(0.002, 80, BINS + 1).tolist()
    run.meta.write_bytes(to_json({"schema": 1, "created": 0.0, "profile_edges": edges}))
    run.status.write_bytes(to_json({"state": "finished", "step": 100 * n}))
    values = (np.arange(1, n + 1) ** -0.5 * (1 + 0.1 * random.normal(size=(11, n)))).astype(np.float32).T.tolist()
    bins = np.linspace(1, 0.1, BINS) * (1 + 0.1 * random.normal(size=(profiles, len(QUANTITIES), BINS)))
    rows = []
    for i, (quality, *row) in enumerate(values, start=1):
        place = {"segment": 1, "step": 100 * i, "time": 2.0 * i, "images": 25_600 * i}
        rows.append({**place, **dict(zip(METRICS, row, strict=True))})
        if i % 50 == 0:
            rows.append({**place, "sw_1step": quality})
    over_time = [
        {"segment": 1, "step": 100 * n * i // profiles, "time": 1.0, **dict(zip(QUANTITIES, table, strict=True))}
        for i, table in enumerate(bins.astype(np.float32).astype(float).tolist(), start=1)
    ]
    for path, found in ((run.metrics, rows), (run.profiles, over_time)):
        path.write_bytes(b"".join(to_json(row) + b"\n" for row in [{"segment": 1, "first_step": 1}, *found]))


def timed(folder: str) -> tuple[float, float]:
    """Compare all runs of a folder. Return the seconds that passed, and those of the processor."""
    command = [sys.executable, "-m", "cmbench", "compare", "--filter", "", "--runs-dir", folder, "--plain"]
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


def main(runs: int, rows: int, profiles: int, seeds: int) -> None:
    """Write, compare and print."""
    with tempfile.TemporaryDirectory() as folder:
        for i in range(runs):
            write_run(RunDir(Path(folder, f"run-{i:02}")), i, rows, profiles, seeds)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jsonl"))
        print(f"{runs} runs: {runs * rows:,} rows of metrics, {runs * profiles:,} of profiles, {size / 1e6:.0f} MB")
        wall, used = (statistics.median(column) for column in zip(*(timed(folder) for _ in range(5)), strict=True))
        print(f"compare --plain: {wall:.2f} s, of the processor {used:.2f} s")


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    main(*(given + [40, 10_000, 1_000, 10][len(given) :]))
