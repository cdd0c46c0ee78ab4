"""The dashboard in this terminal, if the terminal can show it."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cmbench.cli import _screen
from cmbench.cli._guard import sane_terminal
from cmbench.rundir.launch import Start
from cmbench.rundir.layout import RunDir

if TYPE_CHECKING:
    from cmbench.settings import Settings
    from cmbench.tui.app import CmbenchApp


def can_be_shown() -> bool:
    """Whether input and output are a terminal in which the cursor can be moved, not a dumb one."""
    if _is_in_browser():
        return True
    return has_terminal() and os.environ.get("TERM", "") not in ("", "dumb")


def has_terminal() -> bool:
    """Whether input and output are a terminal; either may be closed."""
    return sys.stdin is not None and sys.stdin.isatty() and _screen.is_terminal()


def _is_in_browser() -> bool:
    """Whether `cmbench serve` started this process."""
    return bool(os.environ.get("TEXTUAL_DRIVER"))


def settings() -> "Settings":
    """Return the user's settings. A command that starts something reads them first, so that errors come in time.

    Raises:
        UsageError: the settings cannot be used.
    """
    if os.environ.get("SSH_CONNECTION"):  # 256 colours take half the bytes of true colour
        os.environ.setdefault("TEXTUAL_COLOR_SYSTEM", "256")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")  # Textual reads both when it is imported
    from cmbench import settings as preferences

    given = preferences.load()
    if given.theme or given.keys:  # the names are known only once every screen is imported
        from cmbench.tui import keys
        from cmbench.tui.colours import themes

        preferences.check_names(given, [theme.name for theme in themes()], keys.actions)
        if given.keys:
            keys.check(given.keys, keys.listening(), str(preferences.path()))
    return given


def show(runs_dir: Path, runs: Sequence[RunDir] = (), ascii_only: bool = False) -> None:
    """Show the browser, the dashboard of one run, or the comparison of several, until the user leaves.

    A run's own screens lie on top of the browser of the run's folder, which may differ from `runs_dir`.

    Raises:
        UsageError: the user's settings cannot be used.
    """
    given = settings()
    from cmbench.tui import kept
    from cmbench.tui.app import CmbenchApp
    from cmbench.tui.widgets.pixels import pixel_protocol

    if ascii_only:
        given = given.model_copy(update={"ascii": True})
    folder = runs[0].path.parent if runs else runs_dir
    _run(CmbenchApp(folder, runs, given, pixels=pixel_protocol(), kept=kept.Kept(kept.path())))


def show_start(start: Start) -> RunDir:
    """Show the start of a trainer, then its run's dashboard, until the user leaves. Return the run.

    Raises:
        RefusedError: the trainer refused.
        KeyboardInterrupt: the user cancelled before the trainer had accepted; no trainer is left.
    """
    from cmbench.tui import kept
    from cmbench.tui.app import CmbenchApp
    from cmbench.tui.widgets.pixels import pixel_protocol

    app = CmbenchApp(Path(), (), settings(), pixels=pixel_protocol(), kept=kept.Kept(kept.path()), start=start)
    _run(app)
    if app.refusal is not None:
        raise app.refusal
    if app.is_cancelled:
        raise KeyboardInterrupt
    if not start.is_answered:
        _screen.line(f"{start.subject}: still starting, the run goes on (Ctrl-C: cancel)", err=True)
    return start.wait()


def _run(app: "CmbenchApp") -> None:
    with nullcontext() if _is_in_browser() else sane_terminal():
        app.run()
    if app.return_code:
        raise SystemExit(app.return_code)
