"""True pixels on terminals that support them, through the optional package textual-image."""

import fcntl
import io
import os
import struct
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

_KITTY = ("kitty", "ghostty")  # kitty's protocol with placeholders, which other terminals with this protocol lack
_SIXEL = ("foot", "mlterm", "contour", "wezterm", "iterm", "konsole", "yaft")
_SIGNS = ("TERM", "TERM_PROGRAM", "LC_TERMINAL")  # SSH passes on the first and the last


def pixel_protocol(environ: Mapping[str, str] = os.environ) -> str:
    """Return the picture protocol of this terminal: "kitty", "sixel", or "" for half blocks.

    Call it before the application runs. It reads the environment and does not ask the terminal, because a late answer
    would arrive as keys. CMBENCH_PIXELS (kitty, sixel or off) takes precedence. Inside tmux and screen, and without
    textual-image, the result is "".
    """
    wanted = environ.get("CMBENCH_PIXELS", "") or _named(environ)
    if wanted not in ("kitty", "sixel") or not (_is_tty(sys.__stdout__) and _is_tty(sys.__stderr__)):
        return ""
    return wanted if image_class(wanted) else ""


def image_class(protocol: str) -> type[Any] | None:
    """Return the widget class that shows a PIL picture by a protocol, or None if it is not available."""
    if protocol not in ("kitty", "sixel"):
        return None
    try:
        with _terminal_unasked():
            from textual_image.widget import SixelImage, TGPImage
    except Exception:  # not installed, or its query of the terminal failed
        return None
    return TGPImage if protocol == "kitty" else SixelImage


def cell_size() -> tuple[int, int]:
    """Return width and height of a cell in pixels, as textual-image assumes them."""
    from textual_image._terminal import get_cell_size

    size = get_cell_size()
    return size.width, size.height


def _named(environ: Mapping[str, str]) -> str:
    if "TMUX" in environ or environ.get("TERM", "").startswith(("screen", "tmux")):
        return ""
    signs = " ".join(environ.get(sign, "").lower() for sign in _SIGNS)
    if "KITTY_WINDOW_ID" in environ or any(name in signs for name in _KITTY):
        return "kitty"
    return "sixel" if any(name in signs for name in _SIXEL) else ""


def _is_tty(stream: Any) -> bool:
    return stream is not None and stream.isatty()


@contextmanager
def _terminal_unasked() -> Iterator[None]:
    """Keep textual-image from querying the terminal at import. It takes the cell size from the environment instead."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        packed = fcntl.ioctl(sys.__stdout__.fileno(), termios.TIOCGWINSZ, bytes(8))  # type: ignore[union-attr]
        rows, columns, width, height = struct.unpack("4H", packed)
        if width and height:
            os.environ.setdefault("TEXTUAL_CELL_WIDTH", str(width // columns))
            os.environ.setdefault("TEXTUAL_CELL_HEIGHT", str(height // rows))
    stdout = sys.__stdout__
    vars(sys)["__stdout__"] = io.StringIO()  # no terminal
    try:
        yield
    finally:
        vars(sys)["__stdout__"] = stdout
