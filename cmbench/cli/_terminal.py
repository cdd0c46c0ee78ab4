"""What the terminal can do."""

import os
import shutil
import sys
from typing import Literal, NamedTuple

from cmbench.cli import _screen


class Terminal(NamedTuple):
    """A finding about the terminal, like those of `engine.doctor` about the rest."""

    level: Literal["ok", "warn"]
    found: str
    advice: str


def look() -> Terminal:
    """Return a finding about the terminal that stdout goes to."""
    width, height = shutil.get_terminal_size()
    encoding = (sys.stdout.encoding or "ascii").lower()
    around = [
        name for name, key in (("tmux", "TMUX"), ("screen", "STY"), ("ssh", "SSH_CONNECTION")) if os.environ.get(key)
    ]
    term = os.environ.get("TERM", "")
    console = _screen.console()
    facts = [
        f"{width} x {height}",
        f"TERM={term}" if term else "TERM not set",
        f"colours: {console.color_system or 'none'}{' (NO_COLOR)' if console.no_color else ''}",
        encoding,
        *around,
    ]
    if not _screen.is_terminal():
        return Terminal("ok", f"none: output goes to a file or a pipe ({', '.join(facts)})", "")
    problems = []
    if width < 80 or height < 24:
        problems.append("enlarge it: tables and charts need 80 x 24")
    if term in ("", "dumb"):
        problems.append("export TERM=xterm-256color")
    if "utf" not in encoding:
        problems.append("export LANG=C.UTF-8: charts are drawn with Unicode")
    if "tmux" in around and not term.startswith(("tmux", "screen")):
        problems.append("inside tmux TERM should be tmux-256color")
    return Terminal("warn" if problems else "ok", ", ".join(facts), "; ".join(problems))
