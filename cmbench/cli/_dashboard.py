"""The dashboard in this terminal, where there is one that can show it."""

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
    """Whether there is a terminal in which the cursor can be moved: input and output, and not a dumb one."""
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
    """Return the user's settings. A command that starts something asks for them first, so that it is not too late.

    Raises:
        UsageError: they cannot be used.
    """
    if os.environ.get("SSH_CONNECTION"):  # 256 colours take half the bytes of all of them
        os.environ.setdefault("TEXTUAL_COLOR_SYSTEM", "256")
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")  # Textual reads both when it is imported
    from cmbench import settings as preferences

    given = preferences.load()
    if given.theme or given.keys:  # their names are known once every screen is imported
        from cmbench.tui import keys
        from cmbench.tui.colours import themes

        preferences.check_names(given, [theme.name for theme in themes()], keys.actions)
        if given.keys:
            keys.check(given.keys, keys.listening(), str(preferences.path()))
    return given


def show(runs_dir: Path, runs: Sequence[RunDir] = (), ascii_only: bool = False) -> None:
    """Show the browser, or the dashboard of one run, or the comparison of several, until the user leaves.

    Below a run's own screens lies the browser of the folder that the run is in, which need not be `runs_dir`.

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
    """Show that a trainer starts, then its run's dashboard, until the user leaves. Return the run.

    Raises:
        RefusedError: the trainer said no.
        KeyboardInterrupt: the user said no before it had accepted; no trainer is left.
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
        _screen.line(f"{start.subject}: still starts, the run goes on (Ctrl-C: cancel)", err=True)
    return start.wait()


def _run(app: "CmbenchApp") -> None:
    with nullcontext() if _is_in_browser() else sane_terminal():
        app.run()
    if app.return_code:
        raise SystemExit(app.return_code)
