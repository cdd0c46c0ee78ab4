"""Decodes pictures in order: the first second in this process, the rest in worker processes."""

import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from types import ModuleType

import numpy as np

from cmbench.errors import CmbenchError
from cmbench.pictures.decode import RefusedError
from cmbench.pictures.shape import Maker, Source

_ALONE = 1.0  # seconds for which no worker is worth its start
_CHUNK, _CHUNK_BYTES = 256, 4 * 2**20  # most pictures, and about the most bytes, that a worker decodes at once
_AHEAD = 3  # chunks for each worker that wait or are done: what bounds the memory
_MOST = 32  # workers
_ENOUGH = 20  # unreadable pictures of a chunk after which it stops


@dataclass
class Decoded:
    """Some pictures, one after another.

    Attributes:
        rows: (n, C, H, W), uint8 or float32; zeros for a refused picture.
        marks: how many have which peculiarity.
        refused: "name: reason" of each that cannot be read.
    """

    rows: np.ndarray
    marks: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)


def decoded(
    sources: Iterable[Source], maker: Maker, workers: int | None = None, alone: float = _ALONE
) -> Iterator[Decoded]:
    """Yield the pictures of `sources`, in their order.

    Args:
        sources: read as they are needed, so that contents of an archive need not be in memory at once.
        maker: what makes arrays of them.
        workers: number of processes; None for one a core, up to 32.
        alone: seconds in which this process decodes before it starts workers.

    Raises:
        CmbenchError: a worker ended, as when the system ran out of memory.
    """
    chunks = _chunks(iter(sources), maker)
    workers = min(_MOST, cores()) if workers is None else workers
    end = time.monotonic() + alone
    for chunk in chunks if workers == 1 else _until(end, chunks):
        yield decode_chunk(chunk, maker)
    yield from _by_workers(chunks, maker, workers)


def decode_chunk(chunk: Sequence[Source], maker: Maker) -> Decoded:
    """Decode some pictures in this process."""
    found = Decoded(np.zeros((len(chunk), *maker.shape), maker.dtype))
    for i, (name, source) in enumerate(chunk):
        try:
            found.rows[i], marks = maker.array_of(name, source)
        except RefusedError as error:
            found.refused.append(f"{name}: {error}")
            if len(found.refused) == _ENOUGH:
                break
            continue
        found.marks.update(marks)
    return found


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _chunks(sources: Iterator[Source], maker: Maker) -> Iterator[list[Source]]:
    size = max(1, min(_CHUNK, _CHUNK_BYTES // (int(np.prod(maker.shape)) * maker.dtype.itemsize)))
    while chunk := list(islice(sources, size)):
        yield chunk


def _until(end: float, chunks: Iterator[list[Source]]) -> Iterator[list[Source]]:
    while time.monotonic() < end and (chunk := next(chunks, None)) is not None:
        yield chunk


def _by_workers(chunks: Iterator[list[Source]], maker: Maker, workers: int) -> Iterator[Decoded]:
    if (first := next(chunks, None)) is None:
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    waiting: deque[Future[Decoded]] = deque()
    try:
        for chunk in chain([first], chunks):
            with _main_left_out():  # submitting may start a worker
                waiting.append(pool.submit(decode_chunk, chunk, maker))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise CmbenchError("data: a process that decoded pictures has ended; was there too little memory?") from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _main_left_out() -> Iterator[None]:
    """Start processes that do not run the main module again, which may be a script that trains when it is imported."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin() -> None:
    """Begin as a worker: leave Ctrl-C to the parent, and end with it, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
