"""The load of the machine while a run trains, for machine.jsonl: cheap to read; unavailable values are left out."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil

EVERY = 5.0  # seconds between rows at first
_ROWS = 5000  # after so many rows the interval grows, so that a long run's file stays small
_GIB = 2.0**30


class Machine:
    """Asks the system, and NVML if the run trains on a GPU.

    Args:
        has_gpu: whether to look at GPUs.
    """

    def __init__(self, has_gpu: bool) -> None:
        self._process, self._gpus = psutil.Process(), list[Any]()
        self._nvml: Any = None
        self._next = time.monotonic() + EVERY
        if has_gpu:
            with suppress(Exception):  # without library or driver, the exceptions vary
                import pynvml

                pynvml.nvmlInit()
                self._gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
                self._nvml = pynvml
        with suppress(psutil.Error, OSError):
            psutil.cpu_percent()  # the first answer is meaningless

    def due(self, train_s: float) -> bool:
        """Return whether a row is due after so many seconds of training; if so, schedule the next one."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + max(EVERY, train_s / _ROWS)
        return True

    def look(self) -> dict[str, float]:
        """Return the available values: shares from 0 to 1, GiB, degrees Celsius, watts; all GPUs by number."""
        found: dict[str, float] = {}
        with suppress(psutil.Error, OSError, AttributeError):
            found["cpu_use"] = psutil.cpu_percent() / 100
            memory = psutil.virtual_memory()
            found["memory_gib"] = (memory.total - memory.available) / _GIB
            found["rss_gib"] = self._process.memory_info().rss / _GIB
        for i, gpu in enumerate(self._gpus):
            found |= {f"gpu{i}_{name}": value for name, value in self._of_gpu(gpu).items()}
        return {f"machine_{name}": round(value, 4) for name, value in found.items()}

    def _of_gpu(self, gpu: Any) -> dict[str, float]:
        nvml, found = self._nvml, dict[str, float]()
        asked: dict[str, Callable[[], float]] = {
            "use": lambda: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            "memory_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu).used / _GIB,
            "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
        }
        for name, ask in asked.items():
            with suppress(nvml.NVMLError):  # a slice of a GPU, or a passively cooled or lost one
                found[name] = ask()
        return found
