"""Every method on handwritten digits, each trained for the same time by one thread: the README's table.

    python benchmarks/results.py [--seconds 180] [--jobs 2] [--runs-dir DIR] [RECIPE ...]

How many steps fit is measured on the spot, by the clock of the process, so that other work on the machine does not
count; nor do evaluations. Teachers, first weights and first stages are
trained before those that need them, each for the same time again. Runs are kept; the table is that of `cmbench eval`.
"""

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import NamedTemporaryFile

# In the order in which they need each other.
STAGES = [
    ["dm_edm", "dm_trigflow", "ct_edm", "cd_edm", "ict_edm", "ctcm_naive_edm", "ctcm_naive_trigflow"],
    ["meanflow_linear", "sct_trigflow", "scd_trigflow_oracle", "ect_edm", "scd_trigflow", "cd_edm_teacher"],
    ["tcm_edm"],
]
MEASURES = "sliced_wasserstein,frechet_distance,precision,recall,coverage,nearest_neighbour"
TRIAL = 8.0  # seconds in which the speed is measured
QUIET = {"evaluate.every": 0, "snapshot.every": 0, "checkpoint.every": 0}
RECIPES = Path(__file__).parents[1] / "recipes"


def trial(recipe: str, runs_dir: Path) -> float:
    """Return steps per second."""
    from cmbench.engine import loop, trainer

    settings = [f"{key}={value}" for key, value in QUIET.items()]
    built = trainer.from_file(RECIPES / f"{recipe}.toml", [*settings, "train.device=cpu"], runs_dir)
    warm, began = 0, 0.0
    for event in loop.train(built):
        if isinstance(event, loop.Diverged):
            break
        if event.step == 10 and not warm:
            warm, began = 10, time.process_time()
        if warm and time.process_time() - began > TRIAL:
            break
    if not warm:
        raise SystemExit(f"{recipe} diverged within ten steps")
    return max(1, built.state.step - warm) / (time.process_time() - began)


def run(recipe: str, seconds: float, runs_dir: Path) -> None:
    """Train a recipe for so many seconds."""
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    own = [sys.executable, __file__, recipe, "--trial", "--runs-dir", str(runs_dir)]
    speed = float(subprocess.run(own, env=one_thread, capture_output=True, text=True, check=True).stdout)
    steps = max(10, round(seconds * speed))
    settings = {"train.steps": steps, "train.device": "cpu", "checkpoint.every": 0, "snapshot.every": steps}
    settings["evaluate.every"] = steps
    command = [sys.executable, "-m", "cmbench", "run", str(RECIPES / f"{recipe}.toml"), "--foreground"]
    command += ["--runs-dir", str(runs_dir)]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    code = subprocess.run(command, env=one_thread, stdout=subprocess.DEVNULL).returncode
    print(f"{recipe}: {steps} steps, exit code {code}", file=sys.stderr, flush=True)


def measure(recipes: list[str], steps: str, runs_dir: Path) -> None:
    """Print the table of the newest run of each recipe."""
    if not recipes:
        return
    with NamedTemporaryFile(suffix=".md") as page:
        command = [sys.executable, "-m", "cmbench", "eval", *(f"@latest:{recipe}-" for recipe in recipes)]
        command += ["--steps", steps, "--n", "1000", "--measures", MEASURES, "--runs-dir", str(runs_dir)]
        subprocess.run([*command, "--markdown", page.name], stdout=subprocess.DEVNULL, check=True)
        print(Path(page.name).read_text())


def main() -> None:
    """Train everything and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=[recipe for stage in STAGES for recipe in stage])
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/results"))
    parser.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trial:
        print(trial(options.recipes[0], options.runs_dir))
        return
    for stage in STAGES:
        with ThreadPoolExecutor(options.jobs) as pool:
            wanted = [recipe for recipe in stage if recipe in options.recipes]
            list(pool.map(lambda recipe: run(recipe, options.seconds, options.runs_dir), wanted))
    for steps, teachers in (("18", True), ("1,2", False)):
        measure([r for r in options.recipes if r.startswith("dm_") == teachers], steps, options.runs_dir)


if __name__ == "__main__":
    main()
