"""`--gpus`: how many ranks train, and on which devices."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cmbench.errors import UsageError
from cmbench.rundir import group
from cmbench.text import shown

_ALLOWED = "allowed: a number of GPUs, or a list such as 0-3 or 0,2"
_ON_CPU = "--set train.device=cpu"
_MOST = 1024
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpus:
    """What --gpus asks for.

    Attributes:
        given: the option's value.
        indices: of the GPUs among those that torch sees.
        is_list: whether they were listed, not counted.
        on_cpu: whether they stand for ranks on the CPU.
        cpu_by: what the user gives for those.
    """

    given: str
    indices: tuple[int, ...]
    is_list: bool
    on_cpu: bool = False
    cpu_by: str = _ON_CPU

    @property
    def size(self) -> int:
        """The number of devices."""
        return len(self.indices)

    def devices(self, otherwise: str) -> list[str]:
        """Return the GPUs as CUDA_VISIBLE_DEVICES names them. Where there is none, a message allows `otherwise`.

        Raises:
            UsageError: there are not so many.
        """
        there = seen()
        if not there:
            raise UsageError(f"--gpus: found {shown(self.given)}, but torch sees no GPU here; allowed: {otherwise}")
        if max(self.indices) >= there:
            has = "one GPU, 0" if there == 1 else f"{there} GPUs, 0-{there - 1}"
            raise UsageError(f"--gpus: found {shown(self.given)}, but torch sees {has}")
        names = os.environ.get(_VISIBLE, "").replace(" ", "")
        visible = names.split(",") if names else [str(i) for i in range(there)]
        return [visible[i] for i in self.indices]

    def environment(self) -> dict[str, str]:
        """Return the variables of processes that train together on these devices, with the cores divided among them.

        Raises:
            UsageError: there are not so many GPUs.
        """
        found = {group.GIVEN: self.given}
        if not self.on_cpu:
            found[_VISIBLE] = ",".join(self.devices(f"{self.cpu_by}, for ranks on the CPU"))
        if self.size > 1 and "OMP_NUM_THREADS" not in os.environ:  # torchrun would set 1, and say so
            found["OMP_NUM_THREADS"] = str(max(1, _cores() // self.size))
        return found


def parsed(text: str | None) -> Gpus | None:
    """Return what the option asks for; None without it.

    Raises:
        UsageError: it is no number and no list; or torchrun started this process.
    """
    if text is None:
        return None
    if group.is_launched():
        raise UsageError(f"--gpus: found {shown(text)} under torchrun, which says how many; allowed: without it")
    if re.fullmatch("[0-9]{1,6}", text):
        indices, is_list = list(range(int(text))), False
    elif re.fullmatch(group.GPUS, text):
        indices, is_list = [i for part in text.split(",") for i in _range(part)], True
    else:
        raise UsageError(f"--gpus: found {shown(text)}, {_ALLOWED}")
    if not 0 < len(indices) <= _MOST:
        raise UsageError(f"--gpus: found {shown(text)}, allowed: 1 to {_MOST:,} of them")
    if len(set(indices)) < len(indices):
        raise UsageError(f"--gpus: found {shown(text)}, which names a GPU twice, allowed: each once")
    return Gpus(text, tuple(indices), is_list)


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def for_ranks(text: str | None, train: Mapping[str, Any], where: str) -> Gpus | None:
    """Return the devices of one run's ranks; None without the option.

    Args:
        text: the option's value.
        train: the table of that name in the run's recipe.
        where: the recipe or run, for messages.

    Raises:
        UsageError: they do not fit the run.
    """
    if (asked := parsed(text)) is None:
        return None
    device, batch_size = train["device"], train["batch_size"]
    if device == "cpu" and asked.is_list:
        raise UsageError(f"--gpus: found {shown(asked.given)} with train.device = 'cpu', allowed: a number of ranks")
    _check_device(device, {"auto", "cpu", "cuda"}, where)
    if batch_size < asked.size:
        allowed = f"allowed with {asked.size} ranks: at least {asked.size}"
        raise UsageError(f"{where}: train.batch_size: found {batch_size}, {allowed}")
    return Gpus(asked.given, asked.indices, asked.is_list, on_cpu=device == "cpu")


def for_work(text: str | None, device: str) -> Gpus | None:
    """Return the devices of the ranks of a command with an option --device; None without --gpus.

    Raises:
        UsageError: they do not fit that option, or torchrun started this process.
    """
    if (asked := parsed(text)) is None:
        return None
    if device not in ("auto", "cpu", "cuda") or (device == "cpu" and asked.is_list):
        allowed = "a number of ranks" if device == "cpu" else "with --device auto, cpu or cuda"
        raise UsageError(f"--gpus: found {shown(asked.given)} with --device {device}, allowed: {allowed}")
    return Gpus(asked.given, asked.indices, asked.is_list, device == "cpu", "--device cpu")


def pool(text: str | None, devices: set[str], where: str) -> list[str]:
    """Return the GPUs on which runs train, one each, as CUDA_VISIBLE_DEVICES names them; none without the option.

    Args:
        text: the option's value.
        devices: train.device of the runs.
        where: the recipe, for messages.

    Raises:
        UsageError: there are not so many, or a run trains elsewhere.
    """
    if (asked := parsed(text)) is None:
        return []
    for device in sorted(devices):
        _check_device(device, {"auto", "cuda"}, where)
    return asked.devices("--jobs N, for runs on the CPU")


def alone(device: str) -> dict[str, str]:
    """Return the variable that shows a process one GPU."""
    return {_VISIBLE: device}


def _check_device(device: str, allowed: set[str], where: str) -> None:
    if device not in allowed:
        *first, last = sorted(allowed)
        raise UsageError(
            f"{where}: train.device: found {shown(device)}, allowed with --gpus: {', '.join(first)} or {last}"
        )


def seen() -> int:
    """Return the number of GPUs that torch sees. Another process asks: here no driver may start before the choice."""
    script = "import os, torch; os.write(1, str(torch.cuda.device_count()).encode())"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdecimal() else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
