"""Writing files that matter: to a temporary name, fsynced, renamed; and JSON that knows no NaN."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that every reader, and every crash, sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed writer left in a folder; only its one writer may call this."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_json(value: Any, indent: bool = False) -> bytes:
    """Encode, with numpy scalars and arrays; non-finite numbers become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | (orjson.OPT_INDENT_2 if indent else 0))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file, or None where it is missing or broken."""
    try:
        value = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def name_nonfinite(row: Mapping[str, Any]) -> dict[str, Any]:
    """Replace each non-finite number by None and name it under "nonfinite", e.g. {"loss": "nan"}."""
    lost = {key: str(v) for key, v in row.items() if isinstance(v, float) and not math.isfinite(v)}
    if not lost:
        return dict(row)
    return {**{key: None if key in lost else value for key, value in row.items()}, "nonfinite": lost}
