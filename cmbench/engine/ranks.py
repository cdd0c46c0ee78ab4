"""The ranks of a run: processes that torchrun starts, each with its device and its part of every batch.

Gradients, means and profiles are added up over the ranks. So a run does not depend on their number, but for the order
of sums and for the masks of dropout. Rank 0 alone writes the run directory; the others follow it (`engine.follow`). A
process that torchrun did not start is the only rank, and takes none of these ways.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from cmbench.contracts import HasGroups, Objective, has
from cmbench.engine import launched
from cmbench.engine.messages import Machine, Messages, told_of_loss
from cmbench.errors import CmbenchError, UsageError
from cmbench.model import Model
from cmbench.randomness import Part
from cmbench.rundir import group
from cmbench.rundir.group import Member

_PATIENCE = timedelta(days=365)  # of ranks that wait while rank 0 pauses, measures or writes
_NEW_NAME, _OLD_NAME = "forward_sync_buffers", "broadcast_buffers"  # torch has renamed the option
_BUFFERS = _NEW_NAME if _NEW_NAME in signature(DistributedDataParallel).parameters else _OLD_NAME
_UNSYNCED: dict[str, Any] = {_BUFFERS: False}

Sums = dict[str, Tensor]


def gpu_id(device: torch.device) -> str | None:
    """Return the identity of a GPU, which the driver knows too; None where torch does not tell it."""
    found = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if found is None else str(found)


class Ranks(Messages):
    """This process among those that train a run, and what they do together. All ranks call the same methods in step.

    Attributes:
        device: of the run, for sums.
        heard: the signal that this process got, if it is not rank 0; empty without one.
        stop_asked: whether any rank got one.
    """

    def __init__(self, member: Member | None = None) -> None:
        super().__init__(member)
        self.heard, self.stop_asked = "", False
        self.device = torch.device("cpu")
        self._network: DistributedDataParallel | None = None
        self._asked: Tensor | None = None

    # Batches

    def part(self, n: int, objective: Objective | None = None) -> Part | None:
        """Return this rank's rows of a batch of n samples; None for all of them.

        Raises:
            UsageError: there are fewer samples, or groups of them, than ranks.
        """
        if self.size == 1:
            return None
        of_group, least = _group(objective), self.least(objective)
        groups, k = -(-n // of_group), self.member.rank
        if groups < self.size:
            raise UsageError(f"train.batch_size: found {n}, allowed with {self.size} ranks: at least {least}")
        start, stop = (of_group * (groups * i // self.size) for i in (k, k + 1))
        return Part(start, min(stop, n), n)

    def least(self, objective: Objective | None = None) -> int:
        """Return the number of samples with which every rank has a group of them."""
        return self.size * _group(objective)

    def shared(self, n: int, of: Callable[[Part | None], Tensor]) -> Tensor:
        """Return the rows of n samples, (n, ...), each of which one rank computes; fewer than ranks, each computes all.

        Args:
            n: number of samples.
            of: returns the rows of a part, or all for None.

        Raises:
            Exception: as `agreed`, if a rank cannot compute its rows.
        """
        part = self.part(n) if n >= self.size else None
        return self.joined(self.agreed(lambda: of(part)), part)

    def by_rows(self, of: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return a function of tensors (n, ...) or None, whose rows are `shared` out."""
        if self.size == 1:
            return of

        def rows(part: Part | None, given: Sequence[Tensor | None]) -> Tensor:
            return of(*(x[part.rows] if part and x is not None else x for x in given))

        return lambda x, *others: self.shared(len(x), lambda part: rows(part, (x, *others)))

    def joined(self, rows: Tensor, part: Part | None) -> Tensor:
        """Return the rows of all ranks' parts, in order; without a part, the rows themselves."""
        if part is None:
            return rows
        longest = -(-part.whole // self.size)
        padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
        with told_of_loss():
            distributed.all_gather(found := [torch.empty_like(padded) for _ in range(self.size)], padded)
        ends = [part.whole * k // self.size for k in range(self.size + 1)]
        return torch.cat([own[: stop - start] for own, (start, stop) in zip(found, pairwise(ends), strict=True)])

    # Gradients

    def wrap(self, model: Model) -> None:
        """Let gradients of F_theta be added up over the ranks, in pieces while the backward pass still runs."""
        with told_of_loss():
            network = DistributedDataParallel(model.F_theta, **_UNSYNCED)
        network.register_comm_hook(None, _added_up)
        self._network, self.device = network, next(model.parameters()).device
        model.recorded_by = lambda *arguments: network(*arguments)  # a function: no part of the model's state

    def sends(self, is_last: bool) -> AbstractContextManager[None]:
        """Return the context of a micro batch: gradients accumulate here, and go to the other ranks with the last."""
        return nullcontext() if is_last or self._network is None else self._network.no_sync()

    def added_up(self, objective: Objective, total: Tensor) -> Tensor:
        """Add up the gradients of the objective's own parameters, and return the sum of the ranks' totals.

        One message carries these and the signals. No device waits for it: see `agree`.
        """
        if self.size == 1:
            return total
        gradients = [p.grad for p in objective.parameters() if p.grad is not None]
        flat = torch.cat([*(g.flatten().double() for g in gradients), total.detach().double().view(1)])
        flat = torch.cat([flat, flat.new_tensor([float(bool(self.heard))])])
        with told_of_loss():
            distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, flat[:-2].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))
        self._asked = flat[-1]
        return flat[-2].to(total.dtype)

    def agree(self, is_finite: Tensor) -> bool:
        """Return a flag on the device, equal on all ranks: the one wait for the device in a step."""
        if self._asked is None:
            return bool(is_finite)
        finite, asked = torch.stack([is_finite.to(self._asked), self._asked]).tolist()
        self.stop_asked = self.stop_asked or asked > 0
        return finite > 0

    # Sums

    def summed(self, sums: Sums) -> Sums:
        """Return sums added up over the ranks."""
        return {name: rows.sum(dim=0) for name, rows in self.rows(sums).items()} if self.size > 1 else sums

    def rows(self, sums: Sums) -> Sums:
        """Return the sums of each rank, (ranks, ...), where one that a rank lacks is zero; of one rank, the sums."""
        if self.size == 1:
            return sums
        shapes: dict[str, list[int]] = {}
        for own in self.all_told({name: list(value.shape) for name, value in sums.items()}):
            shapes |= own
        if not shapes:
            return {}
        zeros = partial(torch.zeros, dtype=torch.float64, device=self.device)
        mine = [sums[name] if name in sums else zeros(shape) for name, shape in shapes.items()]
        flat = torch.cat([value.flatten() for value in mine])
        with told_of_loss():
            distributed.all_gather(found := [torch.empty_like(flat) for _ in range(self.size)], flat)
        pieces = torch.stack(found).split([value.numel() for value in mine], dim=1)
        return {name: own.reshape(self.size, *shapes[name]) for name, own in zip(shapes, pieces, strict=True)}

    def scalars(self, values: Mapping[str, float], part: Part | None) -> dict[str, float]:
        """Return numbers of the whole batch from those of the ranks' parts; equal ones stay exact."""
        if part is None:
            return dict(values)
        told = self.all_told([part.share, dict(values)])
        rows = {name: [(share, own[name]) for share, own in told] for name in values}
        return {
            name: row[0][1] if all(v == row[0][1] for _, v in row) else sum(share * v for share, v in row)
            for name, row in rows.items()
        }

    def send_weights(self, *groups: Mapping[str, Tensor]) -> None:
        """Give every rank the tensors of rank 0, in place."""
        with told_of_loss(), torch.no_grad():
            for tensor in (tensor for own in groups for tensor in own.values()):
                sent = tensor.contiguous()
                distributed.broadcast(sent, 0)
                tensor.copy_(sent)

    # Their group

    def open(self, heard: Sequence[str] = ()) -> None:
        """Find the other ranks, and wait for all of them.

        Raises:
            CmbenchError: they cannot be reached.
            StoppedError: one of the signals `heard` came first.
        """
        has_gpu = torch.cuda.is_available()
        if has_gpu and self.member.local < torch.cuda.device_count():
            torch.cuda.set_device(self.member.local)
        try:
            backend = "cpu:gloo,cuda:nccl" if has_gpu else "gloo"
            store, rank, size = next(rendezvous("env://", rank=self.member.rank, world_size=self.size))
            self._store = distributed.PrefixStore(launched.attempt(store, rank, size, heard), store)
            distributed.init_process_group(backend, store=self._store, rank=rank, world_size=size, timeout=_PATIENCE)
            self._control = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        except (RuntimeError, ValueError) as error:
            why = " ".join(str(error).split())
            raise CmbenchError(f"rank {self.member.rank} cannot reach the others: {why}") from None
        gpu = [torch.cuda.get_device_name(), gpu_id(torch.device("cuda"))] if has_gpu else [None, None]
        self.machines = [Machine(*told) for told in self.all_told([socket.gethostname(), *gpu])]

    def close(self) -> None:
        """Leave the others."""
        global _current
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
        _current = None


def _group(objective: Objective | None) -> int:
    return objective.group if objective and has(objective, HasGroups) else 1


def _added_up(state: object, bucket: distributed.GradBucket) -> Future[Tensor]:
    """Add a bucket of gradients up over the ranks, where DDP takes means: losses have the weights of their parts."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda future: future.value()[0])


_current: Ranks | None = None


def current() -> Ranks:
    """Return the ranks that `gather` has opened in this process; one rank if it has not."""
    return _current or Ranks()


def gather(heard: Sequence[str] = ()) -> Ranks:
    """Join the ranks that torchrun has started, and return them; one rank if it has not started this process.

    Raises as `Ranks.open`.
    """
    global _current
    ranks = Ranks(group.member())
    if ranks.size > 1:
        ranks.open(heard)
        _current = ranks
    return ranks
