"""What `make demo` does: train a consistency model on handwritten digits, and draw from it.

It uses cmbench as a user would, by its commands. Interrupted, it stops the training with a checkpoint; called again,
it goes on from there.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

from cmbench import recipe
from cmbench.errors import STOPPED, CmbenchError
from cmbench.rundir import status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import runs_folder, select

RECIPE = "recipes/ct_edm.toml"
COMMAND = [sys.executable, "-m", "cmbench"]
FIRST_PICTURE = 60.0  # seconds of training after which samples are drawn, if no checkpoint has come before


def main() -> int:
    """Train what is not trained yet, draw, and say what to type next."""
    run, bin = newest(), Path(sys.executable).parent
    steps = recipe.load(Path(RECIPE)).train.steps
    if run is None or status.read(run)["state"] != "finished":
        print(f"cmbench: trains {RECIPE} on handwritten digits, {steps:,} steps: 3 to 4 minutes on two quiet cores.")
        print(f"First samples come within two minutes. Meanwhile, elsewhere: {bin}/cmbench watch", flush=True)
        code = follow(["run", RECIPE, "--foreground"] if run is None else taken_up(run))
        if code:
            print("make demo goes on from here" if code == STOPPED else f"the training ended with exit code {code}")
            return code
    run = newest()
    if run is None:
        return 1
    print(f"\none-step samples of {run.name}:", flush=True)
    code = subprocess.run([*COMMAND, "sample", str(run.path), "--steps", "1"], check=False).returncode
    print(f"next: {bin}/cmbench watch, {bin}/cmbench show, {bin}/cmbench ls, {bin}/cmbench recipe list")
    return code


def newest() -> RunDir | None:
    """Return the newest run of the recipe."""
    try:
        return select("@latest:ct_edm-", runs_folder(None))
    except CmbenchError:
        return None


def taken_up(run: RunDir) -> list[str]:
    """Return the command that goes on with a run that has not finished."""
    return ["watch", str(run.path), "--plain"] if status.is_live(run) else ["resume", str(run.path), "--foreground"]


def follow(arguments: list[str]) -> int:
    """Run a command that prints the lines of a training, and draw samples once there is a checkpoint."""
    # Ctrl-C reaches the command too: a trainer then writes a checkpoint and ends, a watcher leaves the run to its own.
    what_ends = "the run goes on by itself" if arguments[0] == "watch" else "stops with a checkpoint ..."
    signal.signal(signal.SIGINT, lambda *_: print(what_ends, flush=True))
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        began, asked, drawn = 0.0, False, False
        for line in process.stdout:
            print(line, end="", flush=True)
            if "  loss " in line:
                began = began or time.monotonic()
            run = newest()
            if run is None or drawn or not began:
                continue
            if "  checkpoint checkpoints/" in line:
                drawn = True
                print("first one-step samples, from the checkpoint so far:", flush=True)
                subprocess.run([*COMMAND, "sample", str(run.path), "--steps", "1", "-n", "32"], check=False)
            elif not asked and time.monotonic() - began > FIRST_PICTURE:
                asked = True
                now = [*COMMAND, "checkpoint", str(run.path), "--timeout", "0"]
                subprocess.run(now, check=False, capture_output=True)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
