"""The processes that train one run together, as torchrun starts them. Imports no torch: the command line asks first."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmbench.errors import UsageError
from cmbench.rundir import status
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs

_PR_SET_PDEATHSIG = 1  # of prctl(2)
GIVEN = "CMBENCH_GPUS"  # the value of --gpus, for those that it starts
_PART = "[0-9]{1,6}(-[0-9]{1,6})?"
GPUS = rf"{_PART}(,{_PART})*"  # a value that --gpus may have
_LAUNCHED = "TORCHELASTIC_RUN_ID"  # set by torchrun alone; the other variables mean nothing without it


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
    if not is_launched():
        return Member()
    found = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if not all(text.isdecimal() for text in found):
        shown = ", ".join(map(repr, found))
        raise UsageError(f"RANK, WORLD_SIZE, LOCAL_RANK: found {shown}, allowed: numbers, as torchrun sets them")
    rank, size, local = map(int, found)
    return Member(rank, size, local) if size > 1 else Member()


def end_with_parent() -> None:
    """Let this process get SIGTERM when the one that started it dies, where the system can do that.

    Otherwise ranks would train on after torchrun, or torchrun after the command, was killed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def is_heard() -> bool:
    """Return whether this process says what all processes of its machine would say: it is the first there."""
    local = os.environ.get("LOCAL_RANK", "")
    return not is_launched() or not local.isdecimal() or int(local) == 0


def again(status: Mapping[str, Any]) -> list[str]:
    """Return the options that let a resume of a run train on as many GPUs as its status tells."""
    given = status.get("gpus")
    return ["--gpus", given] if isinstance(given, str) and re.fullmatch(GPUS, given) else []


def is_launched() -> bool:
    """Return whether torchrun has started this process."""
    return _LAUNCHED in os.environ


def outside() -> dict[str, str]:
    """Return the environment for a trainer that is none of torchrun's processes, though one of them starts it."""
    return {name: value for name, value in os.environ.items() if name != _LAUNCHED}


def begun(run: RunDir, launch: str) -> str:
    """Return the state of a run that a launch of torchrun has begun or taken up, and no other trainer since.

    It is empty if the launch has not, or is none. This tells a restart of the launch how far the run has come.
    """
    now = status.read(run)
    return now["state"] if launch and now.get("launch") == launch else ""


def begun_in(runs_dir: Path, launch: str) -> RunDir | None:
    """Return the newest run of a folder that a launch has begun; None if there is none."""
    return next((run for run in reversed(all_runs(runs_dir)) if begun(run, launch)), None) if launch else None
