"""Run directories with a recipe and rows of one's own, to be compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_runs import fake_run
from tiny import TINY

from cmbench.rundir.files import name_nonfinite, to_json
from cmbench.rundir.layout import RunDir

CREATED = 1000.0
EDGES = [0.01, 0.1, 1.0, 10.0, 80.0]


def compared_run(
    folder: Path,
    name: str,
    metrics: Mapping[str, Sequence[float]],
    steps: Sequence[int] | None = None,
    recipe: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    profiles: Mapping[int, Mapping[str, Sequence[float]]] | None = None,
    **fields: Any,
) -> RunDir:
    """Make a run with a row a step: metrics of equal length; a row is written a second after the one before.

    Args:
        steps: of the rows; 1, 2, 3 and so on if not given.
        recipe: texts of the tiny recipe and what stands there instead.
        meta: beside what a run always has.
        profiles: rows of profiles.jsonl by step.
        fields: as for `fake_run`.
    """
    run = fake_run(folder, name, **fields)
    text = TINY
    for old, new in (recipe or {}).items():
        assert old in text
        text = text.replace(old, new)
    run.recipe.write_text(text)
    run.meta.write_bytes(to_json({"created": CREATED, "profile_edges": EDGES, "host": "here", **(meta or {})}))
    n = max(map(len, metrics.values()), default=0)
    rows = [
        {"step": step, "time": CREATED + i + 1, "images": 8 * step} for i, step in enumerate(steps or range(1, n + 1))
    ]
    for key, values in metrics.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = float(value)
    write_rows(run.metrics, rows)
    if profiles:
        write_rows(run.profiles, [{"step": step, "time": 0.0, **bins} for step, bins in profiles.items()])
    return run


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of one segment, as a trainer does."""
    lines = [{"segment": 1, "first_step": 1}, *(name_nonfinite({"segment": 1, **row}) for row in rows)]
    path.write_bytes(b"".join(to_json(line) + b"\n" for line in lines))


def losses(n: int = 40, seed: int = 0, noise: float = 0.05) -> list[float]:
    """Return a loss that falls, with noise."""
    return (1 / np.sqrt(np.arange(1, n + 1)) + noise * np.random.default_rng(seed).normal(size=n)).tolist()
