"""Loads of devices: of a GPU what its driver tells, and no less for what it does not."""

import sys
from types import SimpleNamespace

import pytest

from cmbench.tui import report
from cmbench.tui.system import System


class NotToldError(Exception):
    pass


def driver(**answers: object) -> SimpleNamespace:
    """Return a pynvml with one GPU that answers these questions alone."""

    def question(name):
        def ask(*_):
            if name not in answers:
                raise NotToldError
            return answers[name]

        return ask

    names = {"use": "UtilizationRates", "memory": "MemoryInfo", "degrees": "Temperature", "milliwatts": "PowerUsage"}
    return SimpleNamespace(
        NVMLError=NotToldError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        **{f"nvmlDeviceGet{long}": question(short) for short, long in names.items()},
    )


USE, MEMORY = SimpleNamespace(gpu=40), SimpleNamespace(used=3 * 2**30, total=8 * 2**30)
TOLD = {
    "all": (
        {"use": USE, "memory": MEMORY, "degrees": 60, "milliwatts": 300_400},
        ["GPU 0   40%", "memory 3/8 GiB", "60 °C 300 W"],
    ),
    "neither temperature nor power": ({"use": USE, "memory": MEMORY}, ["GPU 0   40%", "memory 3/8 GiB"]),
    "power alone of these": (
        {"use": USE, "memory": MEMORY, "milliwatts": 9_000},
        ["GPU 0   40%", "memory 3/8 GiB", "9 W"],
    ),
    "memory alone": ({"memory": MEMORY}, ["GPU 0   use not known", "memory 3/8 GiB"]),
    "nothing used": ({"use": SimpleNamespace(gpu=0), "degrees": 0}, ["GPU 0    0%", "0 °C"]),
    "nothing": ({}, ["GPU 0   use not known"]),
}


@pytest.mark.parametrize("case", TOLD)
def test_of_a_gpu_what_it_tells_is_shown(monkeypatch, case):
    answers, expected = TOLD[case]
    monkeypatch.setitem(sys.modules, "pynvml", driver(**answers))
    loads = System().look()
    assert [load.name for load in loads] == ["GPU 0", "CPU"]
    rows = [
        "".join(text for text, _ in row).translate({ord("#"): None, ord("."): None})
        for row in report.system(loads[:1], True)
    ]
    assert [row.split() for row in rows] == [line.split() for line in expected]


def test_without_a_driver_there_is_the_processor(monkeypatch):
    def none() -> None:
        raise NotToldError

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=none, NVMLError=NotToldError))
    (load,) = System().look()
    assert (load.name, 0 < load.memory < load.memory_total) == ("CPU", True)
