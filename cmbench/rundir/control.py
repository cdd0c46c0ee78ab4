"""Requests to a trainer: small files, renamed into place and answered in the journal."""

import re
import secrets
import time
from contextlib import suppress
from typing import Any

from cmbench.errors import refusing_write_errors
from cmbench.rundir.files import read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir

NAME = r"[0-9]{19}-[0-9a-f]{4}\.json"  # of a request's file
ACTIONS = ("pause", "continue", "checkpoint", "snapshot", "set", "stop")


def request(run: RunDir, action: str, **details: Any) -> str:
    """Ask the trainer for one of ACTIONS, and return the request's id, which the answer repeats.

    Args:
        run: the run.
        action: what to do.
        details: for "set": settings={"optimizer.lr": 1e-4}, checked by `cmbench.steering`.

    Raises:
        UsageError: the run's folder cannot be written.
    """
    identity = new_id()
    with refusing_write_errors(run.control):
        write_atomically(run.control / f"{identity}.json", to_json({"id": identity, "action": action, **details}))
    return identity


def new_id() -> str:
    """Return an id that no other request has; later ids sort after earlier ones."""
    return f"{time.time_ns()}-{secrets.token_hex(2)}"


def take(run: RunDir) -> list[dict[str, Any]]:
    """Return the waiting requests, oldest first, and remove their files. An unreadable request has only an id.

    Files with other names stay. A file that cannot be removed is not returned: it would be granted again and again.
    """
    requests = []
    for path in sorted(path for path in run.control.glob("[0-9]*.json") if re.fullmatch(NAME, path.name)):
        if path.is_file() and not path.is_symlink():
            request = {**(read_json(path) or {}), "id": path.stem}
            with suppress(OSError):
                path.unlink()
                requests.append(request)
    return requests
