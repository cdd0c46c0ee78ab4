"""The processes that train one run together, as torchrun starts them. Imports no torch: the command line asks first."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from cmbench.errors import UsageError
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs


@dataclass(frozen=True)
class Member:
    """A process among `size`, counted from 0; `local` counts those of its machine. Rank 0 alone writes."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it writes the run directory, and decides what the others do."""
        return self.rank == 0


def member() -> Member:
    """Return which process this is, from torchrun's environment; the only one without it.

    Raises:
        UsageError: a variable is missing or is not a number.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Member()
    found = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(text.isdecimal() for text in found):
        shown = ", ".join(map(repr, found))
        raise UsageError(f"RANK, WORLD_SIZE, LOCAL_RANK: found {shown}, allowed: numbers, as torchrun sets them")
    rank, size, local = map(int, found)
    return Member(rank, size, local) if size > 1 else Member()


def is_heard() -> bool:
    """Return whether this process says what all processes of its machine would say: it is the first there."""
    local = os.environ.get("LOCAL_RANK", "")
    return "TORCHELASTIC_RUN_ID" not in os.environ or not local.isdecimal() or int(local) == 0


def launch_id() -> str:
    """Return what is the same for every restart of a group and differs between launches; empty without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if name != "none":  # torchrun's default on machines named by hand
        return name
    agent = psutil.Process(os.getppid())
    return f"{agent.pid}-{agent.create_time()}"


def restarted() -> bool:
    """Return whether torchrun has started this group again, after one of its processes ended."""
    return attempt() not in ("", "0")


def attempt() -> str:
    """Return how often torchrun has started this group again. Its store keeps what earlier processes wrote there."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def begun_before(runs_dir: Path) -> RunDir | None:
    """Return the run that this group began before torchrun started it again; None if there is none."""
    if not restarted() or not (wanted := launch_id()):
        return None
    runs = reversed(all_runs(runs_dir))
    return next((run for run in runs if (read_json(run.meta) or {}).get("launch") == wanted), None)
