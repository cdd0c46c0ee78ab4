"""The environment of a run, and how it is made reproducible."""

import os
import platform
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import deterministic

import cmbench
from cmbench.engine import build, repository
from cmbench.engine.ranks import gpu_id
from cmbench.engine.trainer import Trainer
from cmbench.engine.weights import Trained
from cmbench.measures import PARTIAL
from cmbench.rundir import floors, group
from cmbench.rundir.fields import whole
from cmbench.rundir.layout import SCHEMA
from cmbench.tables import Train
from cmbench.text import cut

_MOST_THREADS = 4096  # more than any machine has; torch creates as many as asked for


def make_reproducible(train: Train, threads: object = None) -> None:
    """Let a resumed run equal an uninterrupted one, unless `train.deterministic` gives that up.

    Args:
        train: of the recipe.
        threads: of the resumed run, since sums on the CPU depend on their number. A value from meta.json that is not
            a number of threads is ignored; `differences` reports it.
    """
    if (number := whole(threads)) is not None and 1 <= number <= _MOST_THREADS:
        torch.set_num_threads(number)
    choose_operations(train)


def choose_operations(train: Train) -> None:
    """Let torch refuse nondeterministic operations, or let it take, and cuDNN try out, whatever is fastest.

    This is for the whole process, and costs a microsecond where it is so already.
    """
    strict = train.deterministic
    if torch.are_deterministic_algorithms_enabled() == strict != torch.backends.cudnn.benchmark:
        return
    if strict:  # torch demands it; without it, cuBLAS has more memory to work with
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(strict)
    # Slow and not needed: no operation here reads memory that it did not write.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not strict


def given_up(train: Train) -> list[str]:
    """Return a line for the journal of each promise that the recipe gives up."""
    return [] if train.deterministic else ["train.deterministic = false: a resumed run does not continue bit for bit"]


def meta(built: Trainer, argv: Sequence[str]) -> dict[str, Any]:
    """Return the contents of meta.json: what stays the same for the whole run."""
    teacher = built.teacher.trained if built.teacher else None
    start = {**source(built.start.trained), "error": built.start.error} if built.start else None
    return {
        "schema": SCHEMA,
        "created": time.time(),
        "argv": list(argv),
        "directory": str(Path.cwd()),
        **here(built),
        "seed": built.recipe.seed,
        "teacher": source(teacher) if teacher else None,
        "start": start,
        "shape": list(built.data.shape),
        "classes": built.data.classes,
        "data": built.fingerprint,
        "parameters": sum(p.numel() for p in built.state.model.parameters()),
        "profile_edges": built.state.profile.edges.tolist(),
        "profile_noise_levels": built.state.model.path.noise_level(built.state.profile.edges.double()).tolist(),
        **floors.written(built.floor() if built.recipe.evaluate.every else {}),
    }


def source(trained: Trained) -> dict[str, Any]:
    """Return the origin of weights."""
    return {"recipe": trained.recipe.name, "step": trained.step, "ema": trained.ema, **trained.source}


def here(built: Trainer) -> dict[str, Any]:
    """Return what results depend on besides the recipe: device, threads, versions and code."""
    return {
        "host": socket.gethostname(),
        "device": _device_name(built.device),
        "ranks": built.ranks.size,
        "devices": devices(built),
        **software(),
    }


def software() -> dict[str, Any]:
    """Return the threads, the versions and the code with which this process works."""
    versions = {"cmbench": cmbench.__version__, "python": platform.python_version(), "torch": torch.__version__}
    return {"threads": torch.get_num_threads(), "versions": versions, "git": repository.look(Path.cwd())}


def differences(meta: dict[str, Any], built: Trainer) -> list[str]:
    """Return a line for each difference from where the run began."""
    return [*of_place(meta, built), *_of_version(meta, built)]


def of_place(meta: dict[str, Any], built: Trainer) -> list[str]:
    """Return a line for each difference of the machine, which may change bits of the results."""
    now = here(built)
    return [
        f"{key} was {cut(str(meta[key]), 200)}, is {cut(str(now[key]), 200)}: the run may not continue bit for bit"
        for key in ("host", "device", "ranks", "threads", "versions")
        if key in meta and meta[key] != now[key]
    ]


def _of_version(meta: dict[str, Any], built: Trainer) -> list[str]:
    """Return a line for each way in which a run of an earlier version differs from a new one."""
    lines = []
    if built.labels_in_turn and built.recipe.evaluate.every:
        lines.append("its rows measure equal shares of classes, as at its start; `cmbench eval` uses the data's shares")
    path, lowest = built.recipe.path, build.sigma_lowest(built.recipe)
    if 0 < path.sigma_mid < lowest:
        lines.append(f"path.sigma_mid = {path.sigma_mid:g} is not trained: two-step samples use {lowest:g} instead")
    if built.is_partial and built.recipe.evaluate.every and not floors.has_spread(meta):
        lines.append(
            f"true_error and self_error continue as true_error{PARTIAL} and self_error{PARTIAL}: over levels it trains"
        )
    return lines


def devices(built: Trainer) -> list[str]:
    """Return the name of each rank's device."""
    own = _device_name(built.device)
    return [each.gpu if each.gpu and built.device.type == "cuda" else own for each in built.ranks.machines] or [own]


def gpus(built: Trainer) -> dict[str, Any]:
    """Return what status.json says of GPUs: the option that chose them, and the identities of those of this host."""
    found: dict[str, Any] = {"gpus": given} if (given := os.environ.get(group.GIVEN)) else {}
    if built.device.type == "cuda":
        here = [each.gpu_id for each in built.ranks.machines if each.host == socket.gethostname()]
        found["gpu_ids"] = here or [gpu_id(built.device)]
    return found


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
