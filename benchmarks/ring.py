"""One-step quality on a ring of eight Gaussians after 60 CPU-seconds of one thread, for each method and three seeds.

    python benchmarks/ring.py [METHOD ...] [--seeds 3] [--seconds 60] [--jobs 1] [--set TABLE.KEY=VALUE]

Methods are recipes without their ending `_ring`; without any, those of METHODS. How many steps fit into the budget is
measured on the spot, then each run trains that many, evaluation not counted. Printed: share of 10,000 one-step samples
within four standard deviations of a mode, half the L1 distance of the mode frequencies to 1/8,
sliced W2 to true draws, and the distance to the true consistency function at sigma_max; in a second table its mean
between the noise levels of SIGMAS. The first row is of true draws, 20 sets of them in the place of samples: no method
is better than that. The recipes were tuned on seed 0; the seeds here begin with 1. The diffusion control samples by 50
Heun steps.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from cmbench.rundir.figures import mean_and_deviation

METHODS = ["dm_trigflow", "ct_edm", "ict_edm", "ect_edm", "meanflow_linear", "ctcm_naive_trigflow"]
METHODS += ["sct_trigflow", "cd_edm", "scd_trigflow_oracle"]
SIGMAS = [0.002, 0.02, 0.1, 0.3, 0.6, 1.2, 3.0, 80.0]
N, DRAWS = 10_000, 20  # samples; sets of true draws for the floor
TRIAL = 6.0  # CPU-seconds in which the speed is measured
QUIET = ["log.every=1000000", "profile.every=0", "snapshot.every=0", "evaluate.every=0", "checkpoint.every=0"]
RECIPES = Path(__file__).parents[1] / "recipes"


def train(recipe: Path, overrides: Sequence[str], seconds: float) -> dict[str, Any]:
    """Train as many steps as fit, and return what came of it."""
    from cmbench.engine import loop, trainer

    def spend(budget: float, *more: str) -> tuple[Any, float]:
        built = trainer.from_file(recipe, [*overrides, *QUIET, "train.device=cpu", *more])
        began = time.process_time()
        for event in loop.train(built):
            if isinstance(event, loop.Diverged):
                return built, 0.0
            if time.process_time() - began >= budget:
                break
        return built, time.process_time() - began

    trial, spent = spend(TRIAL, "train.steps=1000000")
    if not spent:
        return {"diverged": trial.state.step}
    steps = int(0.95 * seconds * trial.state.step / spent)
    built, spent = spend(seconds, f"train.steps={steps}")
    if not spent:
        return {"diverged": built.state.step}
    return {"steps": built.state.step, "of": steps, "cpu_s": round(spent, 1), **measure(built)}


def measure(built: Any) -> dict[str, Any]:
    """Return the figures of the samples."""
    steps = 50 if built.objective.sampler == "ode" else 1
    found, model = built.true_error(), built.state.model
    edges = model.path.noise_level(built.state.profile.edges.double())
    middles = (edges[1:] * edges[:-1]).sqrt().clamp(model.sigma_min, model.sigma_max).tolist()
    return {
        **of_samples(built.data, built.sample(N, steps)),
        "true_error_1step": found.at_sigma_max if found else None,
        "true_error_bands": [_mean_between(*band, middles, found.bins if found else []) for band in pairwise(SIGMAS)],
    }


def of_samples(data: Any, x: Any) -> dict[str, float]:
    """Return the figures of points x (N, 2) alone."""
    import torch

    from cmbench.evaluation.sliced_wasserstein import sliced_wasserstein

    modes = data.oracle()
    distances = torch.cdist(x.double(), modes.means)
    nearest = torch.bincount(distances.argmin(dim=1), minlength=len(modes.means)) / len(x)
    return {
        "on_mode": float((distances.amin(dim=1) < 4 * float(modes.variances.max() ** 0.5)).double().mean()),
        "tv": float((nearest - 1 / len(nearest)).abs().sum() / 2),
        "sw": sliced_wasserstein(x, data.held_out(N)),
    }


def floor() -> list[str]:
    """Return the columns of true draws, what a perfect sampler shows: mean and deviation of DRAWS of them."""
    import torch

    from cmbench.data.mixtures import Config, Data
    from cmbench.engine.judge import real_draw

    data = Data(Config(name="ring"), torch.device("cpu"))
    found = [of_samples(data, real_draw(data, N, 0, i)[0]) for i in range(DRAWS)]
    return [*(shown([each[key] for each in found], 4) for key in ("on_mode", "tv", "sw")), "", ""]


def _mean_between(low: float, high: float, sigmas: Sequence[float], errors: Sequence[float]) -> float | None:
    inside = [error for sigma, error in zip(sigmas, errors, strict=False) if low <= sigma <= high]
    return mean(inside) if inside else None


def shown(values: Sequence[float | None], digits: int) -> str:
    """Return mean and sample standard deviation of those that are known."""
    middle, deviation = mean_and_deviation([v for v in values if v is not None])
    text = "" if middle is None else f"{middle:.{digits}f}"
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def row(method: str, columns: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| `{method}` | {' | '.join(columns)} |"


def figures(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns of the first table."""
    keys = ("on_mode", "tv", "sw", "true_error_1step")
    return [*(shown([r[key] for r in results], 3) for key in keys), shown([r["steps"] for r in results], 0)]


def bands(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns of the second table."""
    return [shown(values, 3) for values in zip(*(r["true_error_bands"] for r in results), strict=True)]


def main() -> None:
    """Run every method and seed in a process of its own, `jobs` at a time, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)  # one run, as JSON
    options = parser.parse_args()
    if options.seed is not None:
        recipe = RECIPES / f"{options.methods[0]}_ring.toml"
        print(json.dumps(train(recipe, [*options.overrides, f"seed={options.seed}"], options.seconds)))
        return

    print("| method | on-mode | mode TV | sliced W2 | true error at sigma_max | steps |\n|---|---|---|---|---|---|")
    print(f"| floor: true draws | {' | '.join(floor())} |", flush=True)
    second = []
    for method in options.methods:
        results, waiting = [], list(range(1, options.seeds + 1))
        while waiting:
            now, waiting = waiting[: options.jobs], waiting[options.jobs :]
            command = [sys.executable, __file__, method, "--seconds", str(options.seconds)]
            command += [part for override in options.overrides for part in ("--set", override)]
            one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            started = [
                subprocess.Popen([*command, "--seed", str(s)], stdout=subprocess.PIPE, text=True, env=one_thread)
                for s in now
            ]
            for process in started:
                out, _ = process.communicate()
                if process.returncode:
                    raise SystemExit(f"{method}: failed")
                results.append(json.loads(out))
        if lost := sum("diverged" in r for r in results):
            print(f"| `{method}` | {lost} of {len(results)} diverged |", flush=True)
            continue
        print(row(method, figures(results)), flush=True)
        if any(r["true_error_1step"] is not None for r in results):
            second.append(row(method, bands(results)))
    names = [f"{low:g} to {high:g}" for low, high in pairwise(SIGMAS)]
    print("\n| true error at sigma | " + " | ".join(names) + " |\n" + "|---" * (1 + len(names)) + "|")
    print(*second, sep="\n")


if __name__ == "__main__":
    main()
