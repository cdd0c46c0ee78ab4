"""The user's alert: a command to run or an address to notify when a run diverges, has a spike, or ends."""

import os
import subprocess
import threading
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from cmbench.rundir.files import to_json
from cmbench.rundir.layout import RunDir
from cmbench.text import brief, plain

if TYPE_CHECKING:
    from cmbench.engine.recorder import Record
    from cmbench.engine.runner import Runner
    from cmbench.settings import Alert

SECONDS = 10.0  # that a command or an address may take
_ENDS = ("finished", "stopped", "failed")


class Alerts:
    """Sends alerts. Training waits for them only when it ends, and continues even if they fail."""

    def __init__(self, wanted: "Alert", runner: "Runner") -> None:
        self._wanted, self._runner = wanted, runner
        self._threads: list[threading.Thread] = []

    def take(self, record: "Record") -> None:
        """Send an alert for a row of the journal, if the user wants one. At an end, wait until it is sent."""
        kind = _kind(record.stream, record.row)
        if kind not in self._wanted.on or not (self._wanted.command or self._wanted.url):
            return
        facts = _facts(kind, record.row, self._runner.folder)
        thread = threading.Thread(target=self._tell, args=(facts,), daemon=True)
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()
        if kind != "spike":
            for each in self._threads:
                each.join(2 * SECONDS + 1)
            for text in self._take_warnings():
                self._runner.recorder.event("warning", text=text)

    def _take_warnings(self) -> list[str]:
        warnings = self._runner.recorder.warnings
        own = [text for text in warnings if text.startswith("alert: ")]
        for text in own:
            warnings.remove(text)
        return own

    def _tell(self, facts: dict[str, Any]) -> None:
        for why in (_run(self._wanted.command, facts), _send(self._wanted.url, facts)):
            if why:
                self._runner.recorder.warnings.append(f"alert: {brief(plain(why))}")


def _kind(stream: str, row: dict[str, Any]) -> str:
    kind = row.get("kind") if stream == "events" else ""
    if kind == "warning":
        return "spike" if "bins" in row else ""
    return "diverged" if kind == "diverged" else "end" if kind in _ENDS else ""


def _facts(kind: str, row: dict[str, Any], run: RunDir) -> dict[str, Any]:
    text = next((str(row[key]) for key in ("text", "error", "reason", "what") if row.get(key)), "")
    return {
        "event": kind,
        "kind": row.get("kind"),
        "run": run.name,
        "path": str(run.path),
        "step": row.get("step"),
        "text": text,
    }


def _run(command: tuple[str, ...], facts: dict[str, Any]) -> str:
    """Run a command with the facts in CMBENCH_ALERT_* and as JSON on its input; return what went wrong."""
    if not command:
        return ""
    told = {f"CMBENCH_ALERT_{key.upper()}": str(value).replace("\0", "") for key, value in facts.items()}
    try:
        done = subprocess.run(
            list(command),
            input=to_json(facts),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            env={**os.environ, **told},
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {SECONDS:g} s and was ended"
    except (OSError, ValueError) as error:
        return f"{command[0]}: {getattr(error, 'strerror', None) or error}"
    return f"{command[0]} ended with exit code {done.returncode}" if done.returncode else ""


def _send(url: str, facts: dict[str, Any]) -> str:
    """Send the facts as JSON; return what went wrong, without the address, which may hold a secret."""
    if not url:
        return ""
    try:
        request = urllib.request.Request(url, to_json(facts), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=SECONDS):
            return ""
    except (OSError, ValueError, HTTPException) as error:
        return f"the address answered: {getattr(error, 'reason', None) or type(error).__name__}"
