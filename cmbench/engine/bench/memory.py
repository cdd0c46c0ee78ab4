"""The memory of tensors: what stays from step to step, and what the phases of a step need besides."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cmbench.engine.phases import Phase
from cmbench.engine.trainer import Trainer


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Return the bytes of each block of memory that the tensors use, by its address."""
    return {(s := tensor.untyped_storage()).data_ptr(): s.nbytes() for tensor in tensors}


def kept(built: Trainer) -> int:
    """Return the bytes that stay from step to step: weights, gradients if there are, optimiser, averages, teacher."""
    state = built.state
    tensors = [tensor for group in state.groups().values() for tensor in group.values()]
    tensors += [p.grad for p in state.model.parameters() if p.grad is not None]
    if built.teacher is not None and built.teacher.trained is not None:
        tensors += built.teacher.trained.model.state_dict().values()
    return sum(storages(tensors).values())


class Peaks:
    """A listener of phases that knows the most bytes that tensors took in each, beyond those at its beginning."""

    def __init__(self, since_reset: Callable[[], int]) -> None:
        self.bytes: dict[str, int] = {}
        self._since_reset, self._phase = since_reset, ""

    def __call__(self, phase: Phase | str) -> None:
        """Hear that a phase begins."""
        most = self._since_reset()
        if self._phase:
            self.bytes[self._phase] = max(most, self.bytes.get(self._phase, 0))
        self._phase = phase


@contextmanager
def peaks(device: torch.device) -> Iterator[Peaks]:
    """Yield a listener for the steps of the block.

    On a GPU the allocator knows the peaks. On the CPU they are those of the tensors that operations return, without
    what single operations need inside.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)

        def since_reset() -> int:
            most = torch.cuda.max_memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            return most - before

        since_reset()
        yield Peaks(since_reset)
        return
    with _Living() as living:
        yield Peaks(living.since_reset)


class _Living(TorchDispatchMode):
    """Counts the bytes of tensors that operations make while it is on, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes, self._peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_key(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and (key := _key(tensor)) not in given and key not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(key)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._freed, key, storage.nbytes()).atexit = False
        return made

    def since_reset(self) -> int:
        """Return the most bytes since this was last called."""
        most, self._peak = self._peak, self._bytes
        return most

    def _add(self, number: int) -> None:
        self._bytes += number
        self._peak = max(self._peak, self._bytes)

    def _freed(self, key: int, number: int) -> None:
        self._known.discard(key)
        self._bytes -= number


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
