"""The cost of training: seconds per step, peak memory, and parameters that the loss does not reach."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from cmbench.engine.bench.memory import kept, storages
from cmbench.engine.bench.steps import in_memory, taken
from cmbench.engine.bench.timing import wait
from cmbench.engine.doctor.check import Check, first_line
from cmbench.engine.trainer import Trainer
from cmbench.tables import Train

_GIB = 2**30
_WARM_UP, _TIMED = 2, 5  # steps
_PATIENCE = 5.0  # seconds: if a step takes longer, fewer samples are timed instead of the batch
_TRIALS = 4, 16  # samples of the trial steps that decide this


@dataclass(frozen=True)
class _Cost:
    """The cost of one training step.

    Attributes:
        seconds: the median.
        kept: bytes that stay from step to step: weights, gradients, optimiser, averages, teacher.
        passing: further bytes at the peak of the recipe's samples at once.
        samples: in the measured batch.
        wanted: samples in the recipe's batch.
    """

    seconds: float
    kept: int
    passing: int
    samples: int
    wanted: int

    @property
    def scale(self) -> float:
        return self.wanted / self.samples


def checks(built: Trainer) -> list[Check]:
    """Train a few steps in memory with the training loop, and return their cost. Changes the weights of `built`."""
    try:
        cost = measured_cost(built)
    except (RuntimeError, NotImplementedError, ArithmeticError) as error:
        return [Check("step", "fail", f"the training step fails: {first_line(error)}")]
    return [_time(built, cost), _memory(built, cost), _unused(built)]


def measured_cost(built: Trainer) -> _Cost:
    """Return the cost of a step of a recipe on this machine."""
    wanted = built.recipe.train.batch_size
    if built.device.type == "cpu":  # here more samples cost more; on a GPU a few would be too little work
        few, more = (min(n, wanted) for n in _TRIALS)
        trial = _steps(built, few, 1, 2)
        if trial.seconds * trial.scale > _PATIENCE and more > few:
            trial = _extrapolated(trial, _steps(built, more, 0, 2))
        if trial.seconds * trial.scale > _PATIENCE:
            return trial
    return _steps(built, wanted, _WARM_UP, _TIMED)


def _extrapolated(few: _Cost, more: _Cost) -> _Cost:
    """Return the cost of more samples, with the seconds that, taken for all samples, follow from both.

    A part of a step's seconds does not depend on the number of samples: the share of a few would overrate the whole.
    """
    each = max(0.0, more.seconds - few.seconds) / (more.samples - few.samples)
    whole = more.seconds + each * (more.wanted - more.samples)
    return replace(more, seconds=whole / more.scale)


def _steps(built: Trainer, samples: int, warm_up: int, timed: int) -> _Cost:
    """Train one step under `_passing`, which itself takes time, and then time some more steps."""
    train = built.recipe.train
    at_once = min(samples, train.at_once)
    with _passing(built) as passing:
        _seconds(built, at_once, 1)
    seconds = _seconds(built, samples, warm_up + timed)[warm_up:]
    of_passes = int(passing() * train.at_once / at_once)
    return _Cost(median(seconds), kept(built), of_passes, samples, train.batch_size)


def _seconds(built: Trainer, batch_size: int, count: int) -> list[float]:
    """Train `count` steps in memory, and return the seconds of each. Raises as `taken`."""
    seconds, began = [], time.perf_counter()
    for _ in islice(taken(in_memory(built, batch_size=batch_size)), count):
        wait(built.device)
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return seconds


@contextmanager
def _passing(built: Trainer) -> Iterator:
    """Yield a function that returns the bytes that the steps of the block needed besides the kept ones.

    On a GPU the allocator knows them. On the CPU they are what autograd saves for the backward pass, without the
    temporaries of single operations.
    """
    if built.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(built.device)
        yield lambda: max(0, torch.cuda.max_memory_allocated(built.device) - kept(built))
        return
    weights = storages(built.state.model.parameters()).keys()
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.update({k: v for k, v in storages([tensor]).items() if k not in weights})
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(saved.values())


def _time(built: Trainer, cost: _Cost) -> Check:
    seconds, steps = cost.seconds * cost.scale, built.recipe.train.steps
    hours = seconds * steps / 3600
    of_fewer = f" (from {cost.samples} of {cost.wanted} samples)" if cost.samples < cost.wanted else ""
    whole = f"{_duration(hours * 3600)} for {steps:,} steps, without evaluation and snapshots"
    found = f"{_duration(seconds)} a step{of_fewer}: {whole}"
    values = {"seconds_per_step": seconds, "hours": hours, "samples_measured": cost.samples}
    return Check("speed", "ok", found, values=values)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 48 * 3600), ("hours", 3600), ("minutes", 60), ("s", 1)):
        if seconds >= size:
            return f"{seconds / (size if unit != 'days' else 24 * 3600):,.1f} {unit}"
    return f"{1000 * seconds:.1f} ms"


def _memory(built: Trainer, cost: _Cost) -> Check:
    peak = cost.kept + cost.passing
    on_gpu = built.device.type == "cuda"
    if on_gpu:
        free, how = torch.cuda.get_device_properties(built.device).total_memory, "peak of torch's allocator"
    else:
        free, how = psutil.virtual_memory().available, "weights, optimiser and what autograd saves"
    values = {"bytes": int(peak), "kept": cost.kept, "passing": cost.passing, "free": free}
    found = f"{_size(peak)} ({how}); {_size(free)} {'on the GPU' if on_gpu else 'free'}"
    if peak > 0.9 * free:
        return Check("memory of a step", "warn", found, _fewer(built.recipe.train), values)
    return Check("memory of a step", "ok", found, values=values)


def _fewer(train: Train) -> str:
    """Return the advice to put fewer samples through the network at once."""
    smaller = "" if train.micro_batch_size else ", or a smaller train.batch_size"
    return f"a train.micro_batch_size below {train.at_once}{smaller}"


def _size(number: float) -> str:
    for unit, size in (("GiB", _GIB), ("MiB", 2**20)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 2**10:.1f} KiB"


def _unused(built: Trainer) -> Check:
    """Name the parameters without a gradient after the steps; the optimiser holds them all."""
    named = [*built.state.model.named_parameters(), *built.state.objective.named_parameters()]
    names = [name.removeprefix("F_theta.") for name, p in named if p.requires_grad and p.grad is None]
    if not names:
        return Check("gradients", "ok", "every parameter gets one")
    found = f"no gradient for {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
    advice = "the loss does not reach them; DistributedDataParallel would want find_unused_parameters = True"
    return Check("gradients", "warn", found, advice, {"parameters": names})
