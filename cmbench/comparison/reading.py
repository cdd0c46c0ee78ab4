"""Reads many runs by several processes at once."""

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

_MANY = 8  # runs; with fewer, starting processes takes a large part of the time
_CAN_FORK = sys.platform == "linux"  # a process that is not forked takes longer to start than it saves


def read_all(runs: Sequence[RunDir], letters: Sequence[str]) -> list[Member]:
    """Return what a comparison reads from runs, each with its letter."""
    if len(runs) < _MANY or not _CAN_FORK or threading.active_count() > 1:  # a fork of many threads may hang
        return list(map(Member.read, runs, letters))
    n = min(len(runs), len(os.sched_getaffinity(0)))
    pairs = list(zip(runs, letters, strict=True))
    readers = [_reader(pairs[i::n]) for i in range(n)]
    if _repeat_each_other(runs):
        importlib.import_module("scipy.stats")  # for intervals; takes as long as twenty runs, so it runs beside them
    return [next(readers[i % n], None) or Member.read(*pair) for i, pair in enumerate(pairs)]


def _reader(pairs: Sequence[tuple[RunDir, str]]) -> Iterator[Member]:
    """Start a process that reads runs, and return its results: fewer if it dies, which ends only its own pipe."""
    receiver, sender = get_context("fork").Pipe(duplex=False)
    get_context("fork").Process(target=_send, args=(sender, pairs), daemon=True).start()
    sender.close()

    def received() -> Iterator[Member]:
        with receiver, contextlib.suppress(EOFError, OSError):
            for _ in pairs:
                yield receiver.recv()

    return received()


def _repeat_each_other(runs: Sequence[RunDir]) -> bool:
    """Return whether recipes seem to differ only in their seed: a guess that only costs or saves time."""
    texts = []
    for run in runs:
        with contextlib.suppress(OSError):
            texts.append(re.sub(b"(?m)^seed = .*", b"", read(run.recipe)))
    return len(set(texts)) < len(texts)


def _send(sender: Connection, pairs: Sequence[tuple[RunDir, str]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends silently; the command has its own handler
    with contextlib.suppress(Exception):  # the command itself reads what fails here, and says why
        for pair in pairs:
            sender.send(Member.read(*pair))
