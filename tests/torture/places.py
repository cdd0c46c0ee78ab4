"""Runs folders whose paths are made of anything that a file system takes, with trainers in processes of their own."""

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced, sampled

NAMES = (
    b"nu\xff",
    b"two words",
    b"a\nb",
    b"-v",
    b"\x1b[2J",
    "\u202eevil".encode(),
    b"%s{0}[red]",
    b"'\"$(touch x)",
    b"\xed\xb3\xbf",
)
HOW = ("detached", "refused", "in the terminal")


class Place(NamedTuple):
    """What a folder is called, and how the run in it is started."""

    name: bytes
    how: str


def cases(count: int, seed: int) -> list[Place]:
    everything = [Place(name, how) for how in HOW for name in NAMES]
    if count < len(everything):  # the worst first
        return [everything[0], *sampled(everything[1:], count - 1, random.Random(seed))]
    return sampled(everything, count, random.Random(seed))


def check(case: Place) -> str:
    with _commands.workplace() as folder:
        place = Path(os.fsdecode(os.fsencode(folder) + b"/" + case.name))
        place.mkdir()
        runs = place / "runs"
        arguments = ["run", "tiny.toml", "--runs-dir", str(runs), "--set", "evaluate.true_error_n=4"]
        if case.how == "refused":  # by a line that names the path
            run = runs / "x-20260101-000000-0000"
            run.mkdir(parents=True)
            (run / "recipe.toml").write_text("no = recipe")
            arguments += ["--set", f"start.run={run.name}"]
        arguments += ["--foreground" if case.how == "in the terminal" else "--detach"]
        ended = _commands.cmbench(folder, *arguments, memory=None)
        if wrong := _commands.complaint(ended, {2, 4} if case.how == "refused" else {0}):
            return wrong
        return "" if case.how == "refused" else _found(folder, runs)


def _found(folder: Path, runs: Path) -> str:
    (run,) = _runs.runs_of(runs)
    deadline = time.monotonic() + 60
    while not _runs.events(run, "finished") and time.monotonic() < deadline:
        time.sleep(0.05)
    if lost := _runs.difference(run):
        return lost
    for command in (["ls"], ["show", str(run)], ["sample", str(run)]):
        ended = _commands.cmbench(folder, *command, "--runs-dir", str(runs))
        if wrong := _commands.complaint(ended, {0}):
            return f"{command[0]}: {wrong}"
    return ""


def spoilt():
    """Let no trainer be heard by who started it."""
    from cmbench.rundir import launch

    def deaf(arguments):
        raise launch.RefusedError("the trainer ended without a word")

    return replaced(launch, "start_detached", deaf)


ATTACK = Attack(
    "places",
    "Whatever the path of a runs folder is made of, a run is trained there, also by a process of its own, and found.",
    tries=12,
    short=1,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="without a word",
)
