"""Run directories as files, without any training."""

import os
import time
from pathlib import Path
from typing import Any

from cmbench.rundir import annotations, status
from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Row, Tail
from cmbench.rundir.segments import that_count


def fake_run(folder: Path, name: str, age: float = 0.0, rows: int = 0, **fields: Any) -> RunDir:
    """Make a run that was heard of `age` seconds ago; fields as in status.json, note and tags."""
    run = RunDir(folder / name)
    run.path.mkdir(parents=True)
    run.recipe.write_text('name = "fake"  # [bold]\nseed = 0\n')
    os.utime(run.recipe, (time.time() - age - 10, time.time() - age - 10))
    run.metrics.write_bytes(
        b'{"segment":1,"first_step":1}\n'
        + b"".join(to_json({"segment": 1, "step": i, "loss": 1 / i}) + b"\n" for i in range(1, rows + 1))
    )
    if "note" in fields or "tags" in fields:
        annotations.annotate(run, fields.pop("note", None), fields.pop("tags", None))
    write_status(run, age, **fields)
    return run


def write_status(run: RunDir, age: float = 0.0, **fields: Any) -> None:
    """Replace its status.json, as a trainer of this process would."""
    loss, sw = fields.pop("loss", 0.5), fields.pop("sw", 0.06)
    figures = {
        "last": {} if loss is None else {"loss": loss},
        "best": {} if sw is None else {"sw_1step": {"value": sw, "step": 1}},
    }
    now = {"state": "finished", "step": 100, "of": 100, **status.owner(), **figures, **fields}
    run.status.write_bytes(to_json({**now, "heartbeat": time.time() - age}))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a log that count, in order."""
    return that_count(Tail(path).read())
