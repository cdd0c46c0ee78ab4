"""status.json, replaced atomically, and what a reader makes of it."""

import os
import socket
import time
from typing import Any

import psutil

from cmbench.errors import FULL
from cmbench.rundir.files import overwrite, read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir

LIVE = ("starting", "running", "paused", "lost")
LOST_AFTER = 60.0  # seconds without a heartbeat
CRASHED_AFTER = 600.0

_NUMBER, _NONE = (int, float), type(None)
_TYPES: dict[str, Any] = {
    "state": str,
    "reason": str,
    "step": int,
    "of": (int, _NONE),
    "heartbeat": _NUMBER,
    "pid": int,
    "pid_start": _NUMBER,
    "images_per_s": (*_NUMBER, _NONE),
    "eta_s": (*_NUMBER, _NONE),
    "checkpoint": (int, _NONE),
    "last": dict,
    "best": dict,
}


def owner() -> dict[str, Any]:
    """Return what identifies this process among all that ever ran: pid, its start time, host."""
    return {"pid": os.getpid(), "pid_start": psutil.Process().create_time(), "host": socket.gethostname()}


def write(run: RunDir, status: dict[str, Any]) -> None:
    """Replace status.json, with the heartbeat of now; on a full disk, write over it.

    Raises:
        OSError: it cannot be written.
    """
    content = to_json({**status, "heartbeat": time.time()}, indent=True) + b"\n"
    try:
        write_atomically(run.status, content, durable=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        overwrite(run.status, content)


def read(run: RunDir) -> dict[str, Any]:
    """Return the status with `state` as it truly is: a trainer that died shows as crashed, a silent one as lost.

    Where the run's whole folder is not there, or can be reached no more, the state is "gone".
    """
    written = read_json(run.status)
    if written is None and not os.path.isdir(run.path):  # noqa: PTH112 - False whatever stands in the way
        written = {"state": "gone"}
    return judged(run, written or {})


def judged(run: RunDir, written: dict[str, Any]) -> dict[str, Any]:
    """Return what `read` makes of the content of status.json; a field of another type than its own is not there."""
    sound = {key: value for key, value in written.items() if isinstance(value, _TYPES.get(key, object))}
    status = {"state": "starting", "step": 0, "heartbeat": _age_of(run), **sound}
    if status["state"] in LIVE:
        status["state"] = _judge(status)
    return status


def is_live(run: RunDir) -> bool:
    """Return whether a trainer works on this run, or may."""
    return read(run)["state"] in LIVE


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
