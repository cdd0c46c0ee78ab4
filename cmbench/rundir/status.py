"""status.json: written atomically, and judged by its readers."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import psutil

from cmbench.errors import FULL, ConflictError
from cmbench.rundir.fields import best, moment, number_of, numbers, text, whole
from cmbench.rundir.files import overwrite, read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir

LIVE = ("starting", "running", "paused", "lost")
IMPORTED = "imported"  # weights of others: never trained here, and not to be resumed
LOST_AFTER = 60.0  # seconds without a heartbeat
CRASHED_AFTER = 600.0

UNREADABLE = "unreadable"


_TYPES: dict[str, Callable[[object], Any]] = {
    "state": text,
    "reason": text,
    "host": text,
    "launch": text,
    "step": whole,
    "of": whole,
    "ranks": whole,
    "gpus": text,
    "images": whole,
    "segment": whole,
    "heartbeat": moment,
    "pid": whole,
    "pid_start": number_of,
    "train_s": moment,
    "images_per_s": number_of,
    "eta_s": moment,
    "checkpoint": whole,
    "last": numbers,
    "best": best,
}
_MAY_BE_NULL = ("of", "images_per_s", "eta_s", "checkpoint")  # if the trainer does not know


def owner() -> dict[str, Any]:
    """Return what identifies this process among all others, past ones included: pid, its start time, host."""
    return {"pid": os.getpid(), "pid_start": psutil.Process().create_time(), "host": socket.gethostname()}


def write(run: RunDir, status: dict[str, Any]) -> None:
    """Replace status.json, with the current time as heartbeat; on a full disk, overwrite it in place.

    Raises:
        OSError: the file cannot be written.
    """
    content = to_json({**status, "heartbeat": time.time()}, indent=True) + b"\n"
    try:
        write_atomically(run.status, content, durable=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        overwrite(run.status, content)


def read(run: RunDir) -> dict[str, Any]:
    """Return the status with its true `state`: a trainer that died is "crashed", a silent one "lost".

    If the run's folder is missing or cannot be reached, the state is "gone". If status.json is not a file, or its
    content is not a status, the state is "unreadable".
    """
    return judged(run, read_json(run.status))


def judged(run: RunDir, written: dict[str, Any] | None) -> dict[str, Any]:
    """Return the status that `read` derives from the content of status.json; fields of a wrong type are dropped."""
    sound = _missing(run) if written is None else _sound(written)
    status = {"state": "starting", "step": 0, **sound}
    if "heartbeat" not in status:
        status["heartbeat"] = _age_of(run)
    if status["state"] in LIVE:
        status["state"] = _judge(status)
    return status


def _missing(run: RunDir) -> dict[str, Any]:
    """Return the fields that are known if status.json is missing or broken."""
    if not os.path.isdir(run.path):  # noqa: PTH112 - False on any error
        return {"state": "gone"}
    if not os.path.lexists(run.status):
        return {}
    written = read_json(run.status)  # it may have just been written; it is never there in part
    return {"state": UNREADABLE} if written is None else _sound(written)


def _sound(written: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that have the right type."""
    sound = {key: _TYPES[key](value) if key in _TYPES else value for key, value in written.items()}
    wrong = [key for key in _TYPES.keys() & sound.keys() if sound[key] is None and key not in _MAY_BE_NULL]
    for key in wrong:
        del sound[key]
    return sound


def is_live(run: RunDir) -> bool:
    """Return whether a trainer works on this run, or may."""
    return read(run)["state"] in LIVE


def refuse_imported(run: RunDir) -> None:
    """Refuse to train an imported run further: it has no optimiser, and its recipe trained nothing.

    Raises:
        ConflictError: the run was imported.
    """
    if read(run)["state"] == IMPORTED:
        raise ConflictError(f"{run.name}: was imported, and is not trained further; allowed: a run with {start(run)}")


def start(run: RunDir) -> str:
    """Return what to type so that a new run begins with the weights of this one."""
    return f"--set start.run={run.name}"


def _judge(status: dict[str, Any]) -> str:
    if status.get("host") == socket.gethostname():
        return status["state"] if _is_running(status) else "crashed"
    silent = time.time() - status["heartbeat"]
    if silent > CRASHED_AFTER:
        return "crashed"
    return "lost" if silent > LOST_AFTER else status["state"]


def _is_running(status: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(status["pid"])
        same = abs(process.create_time() - status["pid_start"]) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError, OverflowError):
        return False


def _age_of(run: RunDir) -> float:
    try:
        return run.path.stat().st_mtime
    except OSError:
        return 0.0
