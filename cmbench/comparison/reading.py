"""Many runs are read by several processes at once."""

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from cmbench.comparison.member import Member
from cmbench.rundir.layout import RunDir

_MANY = 8  # runs; of fewer the start of the processes is a good part
_CAN_FORK = sys.platform == "linux"  # a process that begins anew takes longer than it saves


def read_all(runs: Sequence[RunDir], letters: Sequence[str]) -> list[Member]:
    """Return what a comparison reads of runs, each called by its letter."""
    if len(runs) < _MANY or not _CAN_FORK:
        return list(map(Member.read, runs, letters))
    processes = min(len(runs), len(os.sched_getaffinity(0)))
    quiet = signal.SIGINT, signal.SIG_IGN  # Ctrl-C is for the command, which tells them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: numpy's are ready for them
        with ProcessPoolExecutor(processes, get_context("fork"), signal.signal, quiet) as pool:
            members = pool.map(Member.read, runs, letters)
            importlib.import_module("scipy.stats")  # the intervals'; takes as long as twenty runs, so now beside them
            return list(members)
