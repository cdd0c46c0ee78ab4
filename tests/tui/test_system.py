"""Loads of devices: of a GPU what its driver tells, and no less for what it does not."""

import sys
from types import SimpleNamespace

import pytest

from cmbench.tui.system import Load, System, load_line, load_rows


class NotToldError(Exception):
    pass


def driver(gpus: int = 1, **answers: object) -> SimpleNamespace:
    """Return a pynvml with GPUs that answer these questions alone."""

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
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetUUID=lambda index: f"GPU-{index}{index}",
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
        for row in load_rows(loads[:1], True)
    ]
    assert [row.split() for row in rows] == [line.split() for line in expected]


def test_without_a_driver_there_is_the_processor(monkeypatch):
    def none() -> None:
        raise NotToldError

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=none, NVMLError=NotToldError))
    (load,) = System().look()
    assert (load.name, 0 < load.memory < load.memory_total) == ("CPU", True)


@pytest.mark.parametrize("share", [-1, 0.0, 0.5, 1.0, 3.0])
def test_bars_of_the_system(share):
    loads = [Load("GPU 0", share, int(2**30 * share), 2**30, "60 °C 300 W"), Load("CPU", 0.1, 1, 0)]
    rows = ["".join(part for part, _ in row) for row in load_rows(loads, True)]
    assert len(rows) == 5
    assert rows[0].count("#") == round(12 * min(1, max(0, share)))
    assert rows[0].count("#") + rows[0].count(".") == 12
    assert "60 °C" in rows[2]


def test_the_machine_in_few_words():
    cpu, gib = Load("CPU", 0.97, 3 * 2**30, 24 * 2**30), 2**30
    gpus = [Load("GPU 0", 0.5, 30 * gib, 80 * gib, "60 °C"), Load("GPU 1", 1.0, 50 * gib, 80 * gib)]
    assert load_line([cpu]) == "CPU 97% 3/24 GiB"
    assert load_line([gpus[0], cpu]) == "GPU 50% 30/80 GiB  CPU 97% 3/24 GiB"
    assert load_line([*gpus, cpu]) == "2 GPUs 75% 80/160 GiB  CPU 97% 3/24 GiB"
    assert load_line([Load("GPU 0", None, None, 0), cpu]) == "GPU  CPU 97% 3/24 GiB"
    assert load_line([]) == ""


@pytest.mark.parametrize(
    ("ids", "seen"),
    [(None, "0123"), (["11", "33"], "13"), (["x"], "0123"), (["00", None, "", 3], "0"), ([], "0123"), ("1", "0123")],
)
def test_the_gpus_of_a_run_are_shown_and_all_where_they_are_not_known(monkeypatch, ids, seen):
    monkeypatch.setitem(sys.modules, "pynvml", driver(4, use=USE))
    assert [load.name for load in System().look(ids)] == [*(f"GPU {i}" for i in seen), "CPU"]


def test_each_of_many_gpus_has_one_row():
    gib = 2**30
    gpus = [Load(f"GPU {i}", i / 10, i * gib, 140 * gib, "60 °C 300 W") for i in range(8)]
    odd = [Load("GPU 8", None, None, 0), Load("CPU", 0.1, 3 * gib, 24 * gib)]
    rows = ["".join(part for part, _ in row) for row in load_rows([*gpus, *odd], True)]
    assert len(rows) == 9 + 2
    assert rows[7] == "GPU 7  ######..  70% 7/140 GiB"
    assert rows[8] == "GPU 8  use not known"
    assert rows[9].startswith("CPU ")
    assert max(map(len, rows)) <= 34  # columns of the panel
