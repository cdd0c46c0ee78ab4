"""Requests to a trainer: small files renamed into place, answered in the journal."""

import secrets
import time
from typing import Any

from cmbench.errors import writing
from cmbench.rundir.files import read_json, to_json, write_atomically
from cmbench.rundir.layout import RunDir


def request(run: RunDir, action: str) -> str:
    """Ask the trainer for an action, "stop" for one, and return the request's id."""
    identity = f"{time.time_ns()}-{secrets.token_hex(2)}"
    with writing(run.control):
        write_atomically(run.control / f"{identity}.json", to_json({"id": identity, "action": action}))
    return identity


def take(run: RunDir) -> list[dict[str, Any]]:
    """Return the waiting requests, oldest first, and remove them."""
    waiting = sorted(run.control.glob("[0-9]*.json"))
    requests = [read_json(path) for path in waiting]
    for path in waiting:
        path.unlink(missing_ok=True)
    return [r for r in requests if r is not None]
