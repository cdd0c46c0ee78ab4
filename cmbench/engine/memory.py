"""Lack of memory: foreseen or recognised, and reported in one line with the keys to lower."""

import re
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import psutil
import torch

from cmbench.errors import CmbenchError
from cmbench.recipe import Recipe
from cmbench.tables import Train

# Messages of torch's plain RuntimeErrors for lack of memory: of its allocator on the CPU, and of libraries on a GPU.
_SAID = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
_SIZES = ("width", "multipliers", "depth")  # keys of networks, of which fewer or lower values make a smaller one
_FLOAT = 4  # bytes; weights and all that goes with them are in float32, in bfloat16 runs too
_PER_WEIGHT = 4  # itself, its gradient, and the two moments of every optimiser here
_CGROUP = Path("/sys/fs/cgroup")  # where a container sees its own limits


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
    others = [] if train.micro_batch_size else ["a train.micro_batch_size below it"]
    others += ["train.precision = 'bfloat16'"] if train.precision == "float32" else []
    also = f", and so {'do' if len(others) > 1 else 'does'} {' and '.join(others)}" if others else ""
    key = "train.micro_batch_size" if train.micro_batch_size else "train.batch_size"
    return wanted_by(key, train.at_once, whole, also)


@contextmanager
def wanted_by_network(recipe: Recipe, device: torch.device, whole: bool = True) -> Iterator[None]:
    """Turn a lack of memory for the network, and for what is kept with it, into an error that names the keys to lower.

    Raises:
        LackError: there was no memory.
    """
    try:
        yield
    except Exception as error:
        if not is_lack(error):
            raise
        traceback.clear_frames(error.__traceback__)
        there = f"{size(free(device))} are free on {device}"
        what = f"out of memory for the network{wanted_bytes(error)}; {there}; {_smaller(recipe)}"
        raise LackError(what, whole) from None


def refuse_network(recipe: Recipe, weights: int, device: torch.device) -> None:
    """Refuse a network that cannot be trained here, however few samples go through it at once.

    On a CPU the system would promise the memory, and kill the process once it is used.

    Raises:
        LackError: there is too little memory for weights, gradients, moments and averages.
    """
    averages = len(recipe.ema.lengths)
    wanted, there = weights * _FLOAT * (_PER_WEIGHT + averages), free(device)
    if wanted > there:
        kept = f"weights, gradients, moments and {averages} averages"
        of_them = f"wants {size(wanted)} for {kept}; {size(there)} are free on {device}"
        raise LackError(f"a network of {weights:,} weights {of_them}; {_smaller(recipe)}", whole=True)


def _smaller(recipe: Recipe) -> str:
    keys = [f"network.{key} (found {recipe.network[key]})" for key in _SIZES if key in recipe.network]
    keys = [f"lower {', '.join(keys)}" if keys else "a smaller network"]
    keys += [f"fewer ema.lengths (found {len(recipe.ema.lengths)})"] if recipe.ema.lengths else []
    return f"{' or '.join(keys)} need less"


def free(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device; on a CPU, swap and the limit of a container count."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    there = psutil.virtual_memory().available + psutil.swap_memory().free
    with suppress(OSError, ValueError, LookupError):  # another system, or no limit
        told = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        there = min(there, max(0, limit - used + int(told["inactive_file"])))
    return there


def size(number: float) -> str:
    """Return a number of bytes in words."""
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"


def wanted_bytes(error: Exception) -> str:
    """Return how much was requested last, and was there, if torch says so: " (20 GiB more were wanted)"."""
    found = re.search(r"allocate ([0-9.]+) ?(bytes|[KMGT]i?B)", str(error))
    if not found:
        return ""
    wanted = f"{float(found[1]) / 2**30:,.3g} GiB" if found[2] == "bytes" else f"{float(found[1]):,g} {found[2]}"
    there = re.search(r"of which ([0-9.]+) ?([KMGT]iB) is free", str(error))  # on a GPU
    return f" ({wanted} more were wanted{f', {float(there[1]):,g} {there[2]} were free' if there else ''})"
