"""Checks whether the network may be wrapped in DistributedDataParallel: equal gradients in two consecutive steps.

This is for users who train on several devices in their own loop; cmbench's own ranks are checked before their first
step (`engine.together`). One process is enough: even there DDP affects passes without gradient, derivatives, and
parameters that the loss does not reach.
"""

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cmbench.engine.doctor.check import Check, first_line
from cmbench.engine.trainer import Trainer
from cmbench.model import Model, products
from cmbench.randomness import StepRandom

_SAMPLES = 8
_STEPS = 2  # only in the second step DDP complains about parameters without gradient in the first
_NEW_NAME, _OLD_NAME = "forward_sync_buffers", "broadcast_buffers"  # torch has renamed the option
_BUFFERS = _NEW_NAME if _NEW_NAME in signature(DistributedDataParallel).parameters else _OLD_NAME
_WAYS_OUT: tuple[dict[str, bool], ...] = ({_BUFFERS: False}, {"find_unused_parameters": True})
_ALLOWED = 1e-6  # relative difference of the gradients: with one process nothing is averaged


def check(built: Trainer, model: Model) -> Check:
    """Compare the gradients of training steps with and without DDP.

    Args:
        built: the recipe; its objective makes the loss.
        model: its model, from `probe.copied`; it is copied.
    """
    if not (distributed.is_available() and distributed.is_gloo_available()):
        return Check("ddp", "-", "not looked at: this torch has no torch.distributed with gloo")
    if distributed.is_initialized():
        return Check("ddp", "-", "not looked at: a process group is in use")
    try:
        plain = _gradients(built, copy.deepcopy(model))
    except RuntimeError as error:
        return Check("ddp", "-", f"not looked at: without DDP the step fails too ({first_line(error)})")
    try:
        with _one_process():
            found = _wrapped(built, model)
            failed = isinstance(found, Exception)
            ways_out = (o for o in _WAYS_OUT if failed and not isinstance(_wrapped(built, model, **o), Exception))
            way_out = next(ways_out, None)
    except RuntimeError as error:
        return Check("ddp", "-", f"not looked at: no process group here ({first_line(error)})")
    if isinstance(found, Exception):
        reason = f"a step under DistributedDataParallel fails: {first_line(found)}"
        works = ", ".join(f"{option}={value}" for option, value in (way_out or {}).items())
        advice = f"DistributedDataParallel(..., {works}) works here" if works else "train on one device"
        return Check("ddp", "warn", reason, advice, {"way_out": way_out})
    return _verdict(plain, found)


def _wrapped(built: Trainer, model: Model, **options: Any) -> list[Tensor | None] | Exception:
    """Return the gradients of a copy of the model with a wrapped network, or the exception that was raised."""
    wrapped = copy.deepcopy(model)
    try:
        wrapped.F_theta = DistributedDataParallel(wrapped.F_theta, **options)
        return _gradients(built, wrapped)
    except Exception as error:  # DDP may raise anything
        return error


@contextmanager
def _one_process() -> Iterator[None]:
    """Open a process group with one process and no communication for the block."""
    with tempfile.TemporaryDirectory() as folder:
        store = distributed.FileStore(str(Path(folder) / "store"), 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            yield
        finally:
            distributed.destroy_process_group()


def _gradients(built: Trainer, model: Model) -> list[Tensor | None]:
    """Return the gradient of each parameter of F_theta after the last of some steps that change no weight."""
    model.train()
    network: nn.Module = model.F_theta
    for step in range(_STEPS):
        random = StepRandom(built.device, built.recipe.seed, step)
        x_0, labels = built.data.batch(_SAMPLES, random)
        network.zero_grad(set_to_none=True)
        with products(model.matmul_precision, built.device):
            built.objective.loss(model, x_0, labels if built.conditional else None, step, random).total.backward()
    built.objective.zero_grad(set_to_none=True)
    return [p.grad for p in network.parameters()]


def _verdict(plain: list[Tensor | None], wrapped: list[Tensor | None]) -> Check:
    pairs = [(a, b) for a, b in zip(plain, wrapped, strict=True) if a is not None or b is not None]
    if any(a is None or b is None for a, b in pairs):
        return Check("ddp", "warn", "under DistributedDataParallel other parameters have a gradient")
    ours, theirs = (torch.cat([g.flatten() for g in side if g is not None]) for side in zip(*pairs, strict=True))
    difference = float((theirs - ours).norm() / ours.norm().clamp_min(torch.finfo(ours.dtype).tiny))
    found, values = f"gradients under DistributedDataParallel differ by {difference:.1e}", {"error": difference}
    if difference <= _ALLOWED:
        return Check("ddp", "ok", found, values=values)
    return Check("ddp", "warn", found, "train on one device, or wrap another part of the network", values)
