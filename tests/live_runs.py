"""A run directory as a trainer of this process would leave it, file by file, and how it grows."""

import time
from pathlib import Path
from typing import Any

from cmbench.rundir import status
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir

STAMP = "20260101-000000"
CREATED = 1_700_000_000.0
RECIPE = """
name = "live"
seed = 0
[data]
kind = "mixtures"
[network]
kind = "mlp"
[objective]
kind = "ct"
[path]
kind = "edm"
[train]
steps = 1000
batch_size = 32
[optimizer]
kind = "adam"
lr = 2e-4
[ema]
lengths = [0.5, 0.9]
"""
BINS = 8


def metrics(step: int, **values: Any) -> dict[str, Any]:
    """Return a row of metrics.jsonl."""
    usual = {
        "loss": 4 / (step or 1),
        "tangent_norm": 1 + 1 / (step or 1),
        "grad_norm": 0.5,
        "weight": 2.0,
        "images_per_s": 900.0,
    }
    return {"segment": 1, "step": step, "time": CREATED + step, **usual, "lr": 2e-4, "r": 3.0, **values}


def profile(step: int, bins: int = BINS, **values: Any) -> dict[str, Any]:
    """Return a row of profiles.jsonl."""
    course = [(i + 1) / step for i in range(bins)]
    parts = {f"anatomy_{part}": course for part in ("stable", "spatial", "temporal")}
    return {
        "segment": 1,
        "step": step,
        "time": CREATED + step,
        "tangent_norm": course,
        "loss": course,
        **parts,
        **values,
    }


def event(step: int, kind: str, **values: Any) -> dict[str, Any]:
    """Return a row of events.jsonl."""
    return {"segment": 1, "step": step, "time": CREATED + step, "kind": kind, **values}


def add(path: Path, *rows: dict[str, Any] | bytes) -> None:
    """Append rows, or bytes as they are."""
    with path.open("ab") as file:
        file.write(b"".join(row if isinstance(row, bytes) else to_json(row) + b"\n" for row in rows))


def write_status(run: RunDir, **fields: Any) -> None:
    """Replace status.json."""
    now = {"state": "running", "step": 40, "of": 1000, **status.owner(), "images_per_s": 900.0, "eta_s": 34.0}
    best = {"sw_1step": {"value": 0.04, "step": 20}}
    now |= {"checkpoint": 20, "last": {"loss": 0.1}, "best": best, "heartbeat": time.time()}
    run.status.write_bytes(to_json({**now, **fields}))


def live_run(folder: Path, name: str = f"live-{STAMP}-000a", rows: int = 40, **fields: Any) -> RunDir:
    """Make a run with a bit of everything; `fields` as in status.json."""
    run = RunDir(folder / name)
    for path in (run.path, run.control, run.snapshots, run.checkpoints):
        path.mkdir(parents=True, exist_ok=True)
    run.recipe.write_text(RECIPE)
    run.meta.write_bytes(to_json({"created": CREATED, "profile_edges": [float(i) for i in range(BINS + 1)]}))
    opens = {"segment": 1, "first_step": 1}
    add(run.metrics, opens, *(metrics(i) for i in range(1, rows + 1)), metrics(rows, sw_1step=0.04, sw_2step=0.03))
    add(run.profiles, opens, *(profile(i) for i in range(5, rows + 1, 5)))
    add(run.events, opens, event(1, "started"), event(20, "checkpoint", folder="checkpoints/20", best=True))
    add(run.events, event(30, "warning", text="the loss is high"))
    run.console.write_text("first line\nlast line\n")
    write_status(run, **fields)
    return run
