"""Restores the terminal after a dashboard was killed, which the dashboard itself cannot do."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Main screen, no mouse, no focus reports, no bracketed paste, plain keyboard, cursor, lines that wrap, no colours.
_RESET = r"\033[?1049l\033[?1000;1002;1003;1006;1015l\033[?1004l\033[?2004l\033[<u\033[?25h\033[?7h\033[0m"
# Modes that Textual leaves on however it ends: a mouse that counts pixels, and sizes reported as input. It still turns
# them on if the terminal's answer comes while it exits.
_LEFT = r"\033[?1016l\033[?2048l"
# This script ends with its input: it reads a word if all is well, and nothing if the process at the other end died. It
# may then be in the background, where changing the terminal would stop it without the trap. If the dead process led the
# session, /dev/tty can no longer be opened: so the terminal is the script's output from the start.
_WATCH = r"""trap "" TTOU HUP INT; { read -r word || { stty "$1" <&1; printf "$2"; }; printf "$3"; } 2>/dev/null"""


@contextmanager
def sane_terminal() -> Iterator[None]:
    """Let a small process restore the terminal if this one dies while the block runs.

    A block that ends by itself restores its own modes, except those in _LEFT.
    """
    try:
        with open("/dev/tty", "r+b", buffering=0) as terminal:  # noqa: PTH123 - a device
            modes = subprocess.run(["stty", "-g"], stdin=terminal, capture_output=True, text=True, check=True).stdout
            arguments = ["sh", "-c", _WATCH, "sh", modes.strip(), _RESET, _LEFT]
            watcher = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=terminal)
    except (OSError, subprocess.SubprocessError):  # no terminal, or no stty: then nothing can be restored
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            watcher.communicate(os.linesep.encode(), timeout=5)
