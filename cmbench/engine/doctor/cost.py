"""What training costs: seconds a step, peak memory, and which parameters the loss does not reach."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from cmbench.engine import loop
from cmbench.engine.doctor.check import Check, first_line
from cmbench.engine.trainer import Trainer

_GIB = 2**30
_WARM_UP, _TIMED = 2, 5  # steps
_PATIENCE = 5.0  # seconds that a step may take before fewer samples are timed in place of the batch
_TRIAL = 4  # samples of the first steps, from which that is judged


@dataclass(frozen=True)
class _Cost:
    """Of one training step.

    Attributes:
        seconds: the median.
        kept: bytes that stay from step to step: weights, gradients, optimiser, averages, teacher.
        passing: bytes beside them at the peak.
        samples: of the batch that was measured.
        wanted: of the recipe's batch.
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
    """Train a few steps in memory, by the loop itself, and return what they cost. Changes the weights of `built`."""
    try:
        cost = measured_cost(built)
    except (RuntimeError, NotImplementedError, ArithmeticError) as error:
        return [Check("step", "fail", f"the training step fails: {first_line(error)}")]
    return [_time(built, cost), _memory(built, cost), _unused(built)]


def measured_cost(built: Trainer) -> _Cost:
    """Return what a step of a recipe costs here."""
    wanted = built.recipe.train.batch_size
    if built.device.type == "cpu":  # where a few samples cost their share; a GPU has too little to do with them
        trial = _steps(built, min(_TRIAL, wanted), 0, 1)
        if trial.seconds * trial.scale > _PATIENCE:
            return trial
    return _steps(built, wanted, _WARM_UP, _TIMED)


def _steps(built: Trainer, samples: int, warm_up: int, timed: int) -> _Cost:
    """Train a step under the eyes of `_passing`, which take time of their own, and then some by the clock."""
    with _passing(built) as passing:
        _seconds(built, samples, 1)
    seconds = _seconds(built, samples, warm_up + timed)[warm_up:]
    return _Cost(median(seconds), _kept(built), passing(), samples, built.recipe.train.batch_size)


def _seconds(built: Trainer, batch_size: int, count: int) -> list[float]:
    """Train `count` steps, without evaluation, snapshot or checkpoint, and return the seconds of each.

    Raises:
        ArithmeticError: loss or gradient is not finite.
    """
    never = {
        n: getattr(built.recipe, n).model_copy(update={"every": 0}) for n in ("checkpoint", "snapshot", "evaluate")
    }
    train = built.recipe.train.model_copy(update={"batch_size": batch_size, "steps": built.state.step + count})
    short = replace(built, recipe=built.recipe.model_copy(update={**never, "train": train}))
    seconds, began = [], time.perf_counter()
    for event in loop.train(short):
        if isinstance(event, loop.Diverged):
            raise ArithmeticError(f"the {event.what} is not finite after {event.step} steps")
        if isinstance(event, loop.Stepped):
            _wait(built.device)
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
    return seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _passing(built: Trainer) -> Iterator:
    """Yield a function of no arguments: the bytes that the steps of the block needed beside what is kept.

    On a GPU the allocator knows. On the CPU it is what autograd saves for the backward pass, which leaves out the
    temporaries of single operations.
    """
    if built.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(built.device)
        yield lambda: max(0, torch.cuda.max_memory_allocated(built.device) - _kept(built))
        return
    weights = _storages(built.state.model.parameters()).keys()
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved.update({k: v for k, v in _storages([tensor]).items() if k not in weights})
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(saved.values())


def _kept(built: Trainer) -> int:
    state = built.state
    tensors = [tensor for group in state.groups().values() for tensor in group.values()]
    tensors += [p.grad for p in state.model.parameters() if p.grad is not None]
    if built.teacher is not None and built.teacher.trained is not None:
        tensors += built.teacher.trained.model.state_dict().values()
    return sum(_storages(tensors).values())


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of each piece of memory that the tensors lie in, by its address."""
    return {(s := tensor.untyped_storage()).data_ptr(): s.nbytes() for tensor in tensors}


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
    peak = cost.kept + cost.passing * cost.scale
    on_gpu = built.device.type == "cuda"
    if on_gpu:
        free, how = torch.cuda.get_device_properties(built.device).total_memory, "peak of torch's allocator"
    else:
        free, how = psutil.virtual_memory().available, "weights, optimiser and what autograd saves"
    values = {"bytes": int(peak), "kept": cost.kept, "passing": int(cost.passing * cost.scale), "free": free}
    found = f"{_size(peak)} ({how}); {_size(free)} {'on the GPU' if on_gpu else 'free'}"
    if peak > 0.9 * free:
        return Check("memory of a step", "warn", found, "a smaller train.batch_size", values)
    return Check("memory of a step", "ok", found, values=values)


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
