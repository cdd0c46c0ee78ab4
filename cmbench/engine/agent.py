"""torchrun for commands with --gpus: the same program, without its own words and with an eye on who started it.

It reports a rank that ends with any exit code but 0 as an error, in a table and a traceback. Ours end with 75 after a
stop, and say themselves what is wrong.
"""

import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cmbench.rundir import group

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure


def main(arguments: Sequence[str]) -> int:
    """Run torchrun with these arguments, and return 0 if all ranks did; else the exit code of rank 0, if it has one."""
    group.end_with_parent()
    logging.disable(logging.CRITICAL)  # of this process: the ranks are others
    try:
        return _torchrun(arguments)
    except KeyboardInterrupt:  # before there are ranks
        return 130


def _torchrun(arguments: Sequence[str]) -> int:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(list(arguments))
    except SignalException:
        return 1
    except ChildFailedError as error:
        _report(error.failures)
        first = error.failures.get(0)
        return first.exitcode if first is not None and first.exitcode > 0 else 1
    return 0


def _report(failures: "Mapping[int, ProcessFailure]") -> None:
    """Name the ranks that a signal ended, which could not say it. torchrun itself sends SIGTERM to the others."""
    first = {rank: failure for rank, failure in failures.items() if failure.exitcode != -signal.SIGTERM} or failures
    for rank, failure in sorted(first.items()):
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"cmbench: rank {rank} (process {failure.pid}) was ended by {name}", file=sys.stderr)
