"""Putting the terminal right after a dashboard that was killed: nothing inside it could do that."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Main screen, no mouse, no focus reports, no bracketed paste, plain keyboard, cursor, lines that wrap, no colours.
_RESET = r"\033[?1049l\033[?1000;1002;1003;1006;1015l\033[?1004l\033[?2004l\033[<u\033[?25h\033[?7h\033[0m"
# What Textual leaves behind however it ends: a mouse that counts pixels, and sizes told as input, which it still turns
# on where the terminal's answer comes while it goes.
_LEFT = r"\033[?1016l\033[?2048l"
# Ends with its input: by a word where all is well, by nothing where the one who held the other end died. It may then
# stand in the background, where changing the terminal would stop it, but for the trap; and the terminal may be nobody's
# any more, where that one led the session: so it is its output from the start, not found anew as /dev/tty.
_WATCH = r"""trap "" TTOU HUP INT; { read -r word || { stty "$1" <&1; printf "$2"; }; printf "$3"; } 2>/dev/null"""


@contextmanager
def sane_terminal() -> Iterator[None]:
    """Let a small process wait for this one's death while the block runs, and then restore the terminal.

    Where the block ends by itself, its modes are its own care, but for those in _LEFT.
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
