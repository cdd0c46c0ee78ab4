"""Lack of memory: recognised, and reported in one line with the key to lower."""

import re
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from cmbench.errors import CmbenchError
from cmbench.tables import Train

# Messages of torch's plain RuntimeErrors for lack of memory: of its allocator on the CPU, and of libraries on a GPU.
_SAID = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")


class LackError(CmbenchError):
    """There was no memory for something that a smaller key would reduce.

    Attributes:
        what: a description, with the key and its value.
        whole: whether the run's state is that between two steps, and can be saved.
    """

    def __init__(self, what: str, whole: bool) -> None:
        super().__init__(what)
        self.what, self.whole = what, whole


def is_lack(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)


@contextmanager
def wanted_by(key: str, value: object, whole: bool = True, also: str = "") -> Iterator[None]:
    """Turn a lack of memory in the block into an error that names the key to lower, and another way in `also`.

    Raises:
        LackError: there was no memory. Everything that the block made is freed.
    """
    try:
        yield
    except Exception as error:
        if not is_lack(error):
            raise
        traceback.clear_frames(error.__traceback__)  # frees the graph of a step, whose memory a checkpoint may need
        wanted = wanted_bytes(error)
        raise LackError(f"out of memory{wanted}; a lower {key} needs less (found {value}){also}", whole) from None


def wanted_by_passes(train: Train, whole: bool = True) -> AbstractContextManager[None]:
    """Do the same as `wanted_by` for the passes of a step, which need less memory with fewer samples at once."""
    if train.micro_batch_size:
        return wanted_by("train.micro_batch_size", train.micro_batch_size, whole)
    also = ", and so does a train.micro_batch_size below it"
    return wanted_by("train.batch_size", train.batch_size, whole, also)


def wanted_bytes(error: Exception) -> str:
    """Return how much was requested last, if torch reports it: " (20 GiB more were wanted)"."""
    found = re.search(r"allocate ([0-9.]+) ?(bytes|[KMGT]i?B)", str(error))
    if not found:
        return ""
    wanted = f"{float(found[1]) / 2**30:,.3g} GiB" if found[2] == "bytes" else f"{float(found[1]):,g} {found[2]}"
    return f" ({wanted} more were wanted)"
