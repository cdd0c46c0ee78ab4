"""The dashboard in this terminal, where there is one that can show it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cmbench.cli._guard import sane_terminal
from cmbench.rundir.layout import RunDir


def can_be_shown() -> bool:
    """Whether there is a terminal in which the cursor can be moved: input and output, and not a dumb one."""
    if os.environ.get("TEXTUAL_DRIVER"):  # a browser, by `cmbench serve`
        return True
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def show(runs_dir: Path, runs: Sequence[RunDir] = (), ascii_only: bool = False) -> None:
    """Show the browser, or the dashboard of one run, or the comparison of several, until the user leaves.

    Raises:
        UsageError: the user's settings cannot be used.
    """
    if "SSH_CONNECTION" in os.environ:  # 256 colours take half the bytes of all of them
        os.environ.setdefault("TEXTUAL_COLOR_SYSTEM", "256")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    from cmbench.tui import settings as preferences
    from cmbench.tui.app import CmbenchApp
    from cmbench.tui.widgets.pixels import pixel_protocol

    settings = preferences.load()
    if ascii_only:
        settings = settings.model_copy(update={"ascii": True})
    app = CmbenchApp(runs_dir, runs, settings, pixels=pixel_protocol())
    with sane_terminal():
        app.run()
    if app.return_code:
        raise SystemExit(app.return_code)
