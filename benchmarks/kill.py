"""Kill -9 a trainer at random instants, resume it each time, and compare its end with that of an unbroken run.

    python benchmarks/kill.py [RECIPE] [KILLS] [--set TABLE.KEY=VALUE ...]

Prints, for each kill, the step it fell on and whether a checkpoint was being written; then whether every file of the
last checkpoint, every row of the metrics and every row of the profiles (clocks aside) is equal.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cmbench.engine import checkpoint
from cmbench.rundir import status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.log import Tail
from cmbench.rundir.segments import that_count

CLOCKS = {"time", "train_s", "images_per_s", "segment"}


def cmbench(*arguments: str) -> str:
    """Run a command and return what it printed."""
    command = [sys.executable, "-m", "cmbench", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait(run: RunDir) -> str:
    """Wait until a run is no longer live, and return its state."""
    while status.is_live(run):
        time.sleep(0.2)
    return status.read(run)["state"]


def kill(run: RunDir, delay: float, in_checkpoint: bool) -> str:
    """Kill the trainer after a delay, or then in the middle of the next checkpoint. Return what it hit."""
    while status.read(run)["state"] == "starting":
        time.sleep(0.01)
    time.sleep(delay)
    deadline = time.monotonic() + 30
    while in_checkpoint and not list(run.checkpoints.glob(".*.tmp")) and time.monotonic() < deadline:
        pass
    pid = (read_json(run.status) or {})["pid"]
    writing = bool(list(run.checkpoints.glob(".*.tmp")))
    os.kill(pid, signal.SIGKILL)
    wait(run)
    last = (steps_of_checkpoints(run) or [0])[-1]
    rows = that_count(Tail(run.metrics).read())
    return f"after row {rows[-1]['step'] if rows else 0}, checkpoint {last}{', one being written' if writing else ''}"


def rows_of(path: Path) -> list[dict]:
    """Return the rows of a log without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in that_count(Tail(path).read())]


def main(recipe: str, kills: int, options: list[str]) -> None:
    """Train once unbroken and once broken, and compare."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CMBENCH_RUNS_DIR"] = folder
        whole = RunDir(Path(folder, cmbench("run", recipe, "--detach", *options)))
        wait(whole)
        broken = RunDir(Path(folder, cmbench("run", recipe, "--detach", *options)))
        for i in range(kills):
            print(f"kill {i + 1}:", kill(broken, chance.uniform(0, 3), in_checkpoint=i % 2 == 1), flush=True)
            cmbench("resume", broken.name, "--detach")
        print("states:", wait(whole), wait(broken))
        steps = [steps_of_checkpoints(run)[-1] for run in (whole, broken)]
        states = [
            read_json(checkpoint.folder_of(r, s) / "state.json") for r, s in zip((whole, broken), steps, strict=True)
        ]
        sums = [{key: state[key] for key in ("step", "sha256", "told")} for state in states]  # not the time they took
        assert all(checkpoint.is_whole(run, steps[0]) for run in (whole, broken))
        print(f"checkpoint {steps[0]}, {len(sums[0]['sha256'])} files, equal bit for bit:", sums[0] == sums[1])
        for name in ("metrics", "profiles"):
            a, b = rows_of(getattr(whole, name)), rows_of(getattr(broken, name))
            print(f"{name}: {len(a)} rows, equal but for clocks:", a == b)


if __name__ == "__main__":
    own, options = sys.argv[1:], []
    if "--set" in own:
        own, options = own[: own.index("--set")], own[own.index("--set") :]
    main(own[0] if own else "ct_edm_ring", int(own[1]) if len(own) > 1 else 10, options)
