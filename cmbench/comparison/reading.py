"""Many runs are read by several processes at once."""

import contextlib
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

from cmbench.comparison.member import Member
from cmbench.rundir.files import read
from cmbench.rundir.layout import RunDir

_MANY = 8  # runs; of fewer the start of the processes is a good part
_CAN_FORK = sys.platform == "linux"  # a process that begins anew takes longer than it saves


def read_all(runs: Sequence[RunDir], letters: Sequence[str]) -> list[Member]:
    """Return what a comparison reads of runs, each called by its letter."""
    if len(runs) < _MANY or not _CAN_FORK or threading.active_count() > 1:  # a fork of many threads may hang
        return list(map(Member.read, runs, letters))
    n = min(len(runs), len(os.sched_getaffinity(0)))
    pairs = list(zip(runs, letters, strict=True))
    readers = [_reader(pairs[i::n]) for i in range(n)]
    if _repeat_each_other(runs):
        importlib.import_module("scipy.stats")  # for intervals; takes as long as twenty runs, so now beside them
    return [next(readers[i % n], None) or Member.read(*pair) for i, pair in enumerate(pairs)]


def _reader(pairs: Sequence[tuple[RunDir, str]]) -> Iterator[Member]:
    """Start a process that reads runs, and return what comes of it: less if it dies, which ends its own pipe alone."""
    receiver, sender = get_context("fork").Pipe(duplex=False)
    get_context("fork").Process(target=_send, args=(sender, pairs), daemon=True).start()
    sender.close()

    def received() -> Iterator[Member]:
        with receiver, contextlib.suppress(EOFError, OSError):
            for _ in pairs:
                yield receiver.recv()

    return received()


def _repeat_each_other(runs: Sequence[RunDir]) -> bool:
    """Return whether recipes seem to differ in their seed alone: a guess, which costs or saves time and no more."""
    texts = []
    for run in runs:
        with contextlib.suppress(OSError):
            texts.append(re.sub(b"(?m)^seed = .*", b"", read(run.recipe)))
    return len(set(texts)) < len(texts)


def _send(sender: Connection, pairs: Sequence[tuple[RunDir, str]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a word; the command has its own
    with contextlib.suppress(Exception):  # what fails here is read by the command, which says why
        for pair in pairs:
            sender.send(Member.read(*pair))
