"""A run's rows as files of other tools: CSV, Parquet, or events of TensorBoard."""

import csv
import importlib.util
import io
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cmbench.errors import UsageError, did_you_mean
from cmbench.rundir import new_folder, rows
from cmbench.rundir.files import write_atomically
from cmbench.rundir.layout import RunDir
from cmbench.rundir.rows import Rows
from cmbench.text import plain, shown
from cmbench.views.chart_file import safe


def write(run: RunDir, kind: str, out: Path) -> dict[str, int]:
    """Write the rows of a run into a new folder, and return how many each table has.

    Raises:
        UsageError: a package is missing, the run has no rows, or the folder cannot be written.
    """
    if kind not in FORMATS:
        raise UsageError(f"--metrics: found {shown(kind)}, allowed: {', '.join(FORMATS)}{did_you_mean(kind, FORMATS)}")
    package, writer = _WRITERS[kind]
    if package and importlib.util.find_spec(package) is None:
        raise UsageError(f"--metrics {kind}: {package} is not installed (pip install 'cmbench[export]')")
    found = rows.of_run(run)
    if not any(found.values()):
        raise UsageError(f"{run.name}: no rows yet")
    with new_folder.made(out, "--out") as folder:
        writer(folder, found)
    return {name: len(table) for name, table in found.items()}


def _to_csv(folder: Path, found: dict[str, Rows]) -> None:
    """Write one file a table: empty where there is no value, nan and inf where it was not finite."""
    for name, table in found.items():
        if not table:
            continue
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(map(safe, table[0]))
        writer.writerows(["" if value is None else safe(value) for value in row.values()] for row in table)
        write_atomically(folder / f"{name}.csv", buffer.getvalue().encode())


def _to_parquet(folder: Path, found: dict[str, Rows]) -> None:
    """Write one file a table: null where there is no value, NaN and infinities as they are."""
    import pyarrow as pa
    from pyarrow import parquet

    for name, table in found.items():
        if not table:
            continue
        columns = {plain(key): _column([row[key] for row in table], pa) for key in table[0]}
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.table(columns), sink)
        write_atomically(folder / f"{name}.parquet", sink.getvalue().to_pybytes())


def _column(values: Sequence[Any], pa: Any) -> Any:
    """Return an Arrow array of one type: texts, whole numbers or numbers."""
    there = [value for value in values if value is not None]
    if any(isinstance(value, str) for value in there):
        return pa.array([None if value is None else plain(value) for value in values], pa.string())
    if there and all(isinstance(value, int) for value in there):
        return pa.array(values, pa.int64())
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _to_tensorboard(folder: Path, found: dict[str, Rows]) -> None:
    """Write scalars: metrics by name, profile/QUANTITY/BIN, and evaluation/MEASURE at the checkpoint's step."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    # EventFileWriter writes in a thread, where a full disk goes unheard.
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    now = time.time()
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    for name, table in found.items():
        for row in table:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _SCALARS[name](row)]
            if row["step"] is not None and values:
                at = row.get("time") or 0.0
                writer.write(Event(wall_time=at, step=row["step"], summary=Summary(value=values)).SerializeToString())
    write_atomically(folder / f"events.out.tfevents.{now:.0f}.cmbench", buffer.getvalue())


def _of_metrics(row: dict[str, Any]) -> list[tuple[str, float]]:
    return [(plain(key), float(value)) for key, value in row.items() if key not in _PLACES and value is not None]


def _of_profiles(row: dict[str, Any]) -> list[tuple[str, float]]:
    own = [(key, value) for key, value in row.items() if key not in _PLACES and value is not None]
    return [(f"profile/{plain(key)}/bin {row['bin']:02d}", float(value)) for key, value in own]


def _of_evaluations(row: dict[str, Any]) -> list[tuple[str, float]]:
    if row["value"] is None or not math.isfinite(row["value"]):
        return []
    steps = f"_{row['steps']}step" if row["steps"] is not None else ""
    features = f" {plain(row['features'])}" if row["features"] else ""
    return [(f"evaluation/{plain(row['metric'])}{steps}{features} ema {row['ema']}", row["value"])]


_PLACES = {"step", "time", "segment", "bin", "t_low", "t_high", "noise_level_low", "noise_level_high"}
_SCALARS: dict[str, Callable[[dict[str, Any]], list[tuple[str, float]]]] = {
    "metrics": _of_metrics,
    "profiles": _of_profiles,
    "evaluations": _of_evaluations,
}
_WRITERS: dict[str, tuple[str, Callable[[Path, dict[str, Rows]], None]]] = {
    "csv": ("", _to_csv),
    "parquet": ("pyarrow", _to_parquet),
    "tensorboard": ("tensorboard", _to_tensorboard),
}
FORMATS = tuple(_WRITERS)
