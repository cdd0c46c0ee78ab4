"""Writing files that matter: to a temporary name, fsynced, renamed; and JSON that knows no NaN."""

import errno
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson


def write_atomically(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file so that every reader, and every crash, sees the old content or the new.

    What is not `durable`, such as a heartbeat, may be the old content again after a power cut.

    Raises:
        OSError: the place cannot be written, a folder among them.
    """
    if not path.name or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
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
    """Name each non-finite number, which JSON writes as null, under "nonfinite".

    {"loss": nan, "bins": [1.0, inf]} gains "nonfinite": {"loss": "nan", "bins": {"1": "inf"}}.
    """
    lost = {key: name for key, value in row.items() if (name := _nonfinite(value))}
    return {**row, "nonfinite": lost} if lost else dict(row)


def _nonfinite(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return {str(i): name for i, item in enumerate(value) if (name := _nonfinite(item))}
    return ""
