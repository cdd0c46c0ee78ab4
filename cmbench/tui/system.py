"""What the machine does: the GPUs by NVML where there are some, else processors and memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


@dataclass(frozen=True)
class Load:
    """One device.

    Attributes:
        name: what it is called.
        used: share of its time, 0 to 1; None where the device does not tell.
        memory: bytes taken; None where the device does not tell.
        memory_total: bytes there are.
        more: what else is known, e.g. temperature and power.
    """

    name: str
    used: float | None
    memory: int | None
    memory_total: int
    more: str = ""


class System:
    """Asks for the load of the machine."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._gpus: list[Any] = []
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        except Exception:  # no library, no driver, no device: each says so in its own way
            self._gpus = []
        psutil.cpu_percent()  # the first answer is about nothing

    def look(self) -> list[Load]:
        """Return the load of each GPU, and of the processors."""
        memory = psutil.virtual_memory()
        processors = Load("CPU", psutil.cpu_percent() / 100, memory.total - memory.available, memory.total)
        return [*(self._gpu(i, gpu) for i, gpu in enumerate(self._gpus)), processors]

    def _gpu(self, index: int, gpu: Any) -> Load:
        nvml = self._nvml
        used = self._asked(nvml.nvmlDeviceGetUtilizationRates, gpu)
        memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, gpu)
        degrees = self._asked(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU)
        milliwatts = self._asked(nvml.nvmlDeviceGetPowerUsage, gpu)
        more = [] if degrees is None else [f"{degrees} °C"]
        more += [] if milliwatts is None else [f"{milliwatts / 1000:.0f} W"]
        return Load(
            f"GPU {index}",
            None if used is None else used.gpu / 100,
            None if memory is None else memory.used,
            0 if memory is None else memory.total,
            " ".join(more),
        )

    def _asked(self, question: Callable[..., T], *arguments: Any) -> T | None:
        """Return an answer of the driver; None where the device has none: a slice of one, a passive or lost one."""
        try:
            return question(*arguments)
        except self._nvml.NVMLError:
            return None
