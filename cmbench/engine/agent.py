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
    """Run torchrun with these arguments, and return the exit code that one process instead of the ranks would have."""
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
        return exit_code({rank: failure.exitcode for rank, failure in error.failures.items()})
    return 0


def exit_code(of_ranks: Mapping[int, int]) -> int:
    """Return the exit code of all from those of the ranks that failed, which are negative where a signal ended one.

    A killed rank counts most, as a shell tells it: the others only say that they have lost it. torchrun itself ends the
    others by SIGTERM, once one has ended. Of the rest rank 0 counts, which speaks for all.
    """
    killed = [128 - code for code in of_ranks.values() if code < 0]
    first = [code for code in killed if code != 128 + signal.SIGTERM]
    return next(iter([*first, *(of_ranks[rank] for rank in sorted(of_ranks) if of_ranks[rank] > 0), *killed]), 1)


def _report(failures: "Mapping[int, ProcessFailure]") -> None:
    """Name the ranks that a signal ended, which could not say it. torchrun itself sends SIGTERM to the others."""
    first = {rank: failure for rank, failure in failures.items() if failure.exitcode != -signal.SIGTERM} or failures
    for rank, failure in sorted(first.items()):
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            print(f"cmbench: rank {rank} (process {failure.pid}) was ended by {name}", file=sys.stderr)
