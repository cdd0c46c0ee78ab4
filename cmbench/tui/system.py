"""The load of the machine, as numbers and in words: GPUs by NVML if there are any, processors and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from cmbench.views.report import Row

T = TypeVar("T")
_GPU = "GPU "
_MOST_IN_FULL = 3  # GPUs, with three rows each


@dataclass(frozen=True)
class Load:
    """One device.

    Attributes:
        name: name of the device.
        used: share of time in use, 0 to 1; None where the device does not report it.
        memory: bytes in use; None where the device does not report them.
        memory_total: bytes in total.
        more: other readings, e.g. temperature and power.
    """

    name: str
    used: float | None
    memory: int | None
    memory_total: int
    more: str = ""


class System:
    """Reads the load of the machine."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._gpus: list[Any] = []
        self._ids: list[str] = []
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            self._ids = [str(self._asked(pynvml.nvmlDeviceGetUUID, gpu)) for gpu in self._gpus]
        except Exception:  # no library, no driver, no device: each raises its own error
            self._gpus = []
        psutil.cpu_percent()  # the first answer is meaningless

    def look(self, gpu_ids: object = None) -> list[Load]:
        """Return the load of each GPU, and of the processors.

        Args:
            gpu_ids: of the GPUs to look at, as status.json lists them; all where the driver knows none of these.
        """
        wanted = [one for one in gpu_ids if isinstance(one, str) and one] if isinstance(gpu_ids, list) else []
        numbered = list(enumerate(self._gpus))
        own = [numbered[i] for i, found in enumerate(self._ids) if any(found.endswith(one) for one in wanted)]
        memory = psutil.virtual_memory()
        processors = Load("CPU", psutil.cpu_percent() / 100, memory.total - memory.available, memory.total)
        return [*(self._gpu(i, gpu) for i, gpu in own or numbered), processors]

    def _gpu(self, index: int, gpu: Any) -> Load:
        nvml = self._nvml
        used = self._asked(nvml.nvmlDeviceGetUtilizationRates, gpu)
        memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, gpu)
        degrees = self._asked(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = self._asked(nvml.nvmlDeviceGetPowerUsage, gpu)
        more = [] if degrees is None else [f"{degrees} °C"]
        more += [] if milliwatts is None else [f"{milliwatts / 1000:.0f} W"]
        return Load(
            f"{_GPU}{index}",
            None if used is None else used.gpu / 100,
            None if memory is None else memory.used,
            0 if memory is None else memory.total,
            " ".join(more),
        )

    def _asked(self, question: Callable[..., T], *arguments: Any) -> T | None:
        """Return the driver's answer. None where the device has none: a slice of a GPU, a passive or a lost one."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None


def load_line(loads: Sequence[Load]) -> str:
    """Return use and memory in a few words, all GPUs together, for screens without room for `system`."""
    gpus = [load for load in loads if load.name.startswith(_GPU)]
    name = "GPU" if len(gpus) == 1 else f"{len(gpus)} GPUs"
    others = [_in_words(load.name, [load]) for load in loads if load not in gpus]
    return "  ".join([*([_in_words(name, gpus)] if gpus else []), *others])


def _in_words(name: str, loads: Sequence[Load]) -> str:
    used = [load.used for load in loads if load.used is not None]
    taken = [load.memory for load in loads if load.memory is not None]
    text = f"{name} {sum(used) / len(used):.0%}" if used else name
    return f"{text} {_gib(sum(taken), sum(load.memory_total for load in loads))}" if taken else text


def _gib(taken: int, total: int) -> str:
    return f"{taken / 2**30:.0f}/{total / 2**30:.0f} GiB"


def load_rows(loads: Sequence[Load], ascii_only: bool) -> list[Row]:
    """Return a bar of use and a bar of memory for each device, as far as the device reports them.

    Of many GPUs each has one row, with its memory in numbers.
    """
    rows: list[Row] = []
    gpus = [load for load in loads if load.name.startswith(_GPU)]
    if len(gpus) > _MOST_IN_FULL:
        rows += [_in_one_row(load, ascii_only) for load in gpus]
        loads = [load for load in loads if load not in gpus]
    for load in loads:
        name = (f"{load.name:<6}", "strong")
        if load.used is None:
            rows.append([name, (" use not known", "muted")])
        else:
            rows.append([name, *_bar(load.used, ascii_only), (f" {load.used:>4.0%}", "")])
        if load.memory is not None:
            share = load.memory / max(1, load.memory_total)
            taken = _gib(load.memory, load.memory_total)
            rows.append([("memory", "muted"), *_bar(share, ascii_only), (f" {taken}", "")])
        if load.more:
            rows.append([("       " + load.more, "muted")])
    return rows


def _in_one_row(load: Load, ascii_only: bool) -> Row:
    """Return use and memory of a GPU."""
    bar = [(" use not known", "muted")] if load.used is None else _bar(load.used, ascii_only, 8)
    use = "" if load.used is None else f" {load.used:>4.0%}"
    memory = "" if load.memory is None else f" {_gib(load.memory, load.memory_total)}"
    return [(f"{load.name:<6}", "strong"), *bar, (use + memory, "")]


def _bar(share: float, ascii_only: bool, width: int = 12) -> Row:
    full = round(min(max(share, 0.0), 1.0) * width)
    used, free = ("#", ".") if ascii_only else ("━", "─")
    return [(" " + used * full, "good"), (free * (width - full), "muted")]
