"""What the machine does: the GPUs by NVML where there are some, else processors and memory."""

from dataclasses import dataclass
from typing import Any

import psutil


@dataclass(frozen=True)
class Load:
    """One device.

    Attributes:
        name: what it is called.
        used: share of its time, 0 to 1.
        memory: bytes taken.
        memory_total: bytes there are.
        more: what else is known, e.g. temperature and power.
    """

    name: str
    used: float
    memory: int
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
        return [*(load for i, gpu in enumerate(self._gpus) if (load := self._gpu(i, gpu))), processors]

    def _gpu(self, index: int, gpu: Any) -> Load | None:
        nvml = self._nvml
        try:
            used = nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100
            memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
            degrees = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
            watts = nvml.nvmlDeviceGetPowerUsage(gpu) / 1000
        except nvml.NVMLError:
            return None
        return Load(f"GPU {index}", used, memory.used, memory.total, f"{degrees} °C {watts:.0f} W")
