"""States, curves and names in a few characters, and any text in ASCII."""

import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from rich.cells import cell_len

from cmbench.rundir.columns import Floats
from cmbench.text import plain

_SIGNS = {  # state -> sign, its letter if the terminal only has ASCII, style
    "starting": ("○", "o", "green"),
    "running": ("●", "*", "green"),
    "paused": ("⏸", "=", "yellow"),
    "finished": ("✔", "+", "cyan"),
    "imported": ("◆", "i", "cyan"),
    "stopped": ("■", "#", "yellow"),
    "diverged": ("✖", "x", "red"),
    "failed": ("✖", "x", "red"),
    "crashed": ("✖", "x", "red"),
    "lost": ("?", "?", "magenta"),
    "gone": ("✖", "x", "red"),
    "unreadable": ("✖", "x", "red"),
}
_LIKE = {"-": "─━═▔▁▂▃▀▄▅▆▇—", "|": "│┃┊▏▎▍▌▋▊▉▐▕", "+": "┌┐└┘├┤┬┴┼╭╮╯╰▛▜▙▟", ".": "·•", "~": "…", "#": "█"}
_LIKE |= {"<": "←", ">": "→▶", "^": "↑▲", "v": "↓▼", "*": "★●"}
_ASCII = str.maketrans({sign: like for like, signs in _LIKE.items() for sign in signs})
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.,-~=*#"
_DECADES = 1.5  # a curve that spans more is drawn by its logarithm


def sign(state: str, ascii: bool = False) -> tuple[str, str]:
    """Return a state's sign and style."""
    shown, letter, style = _SIGNS.get(state, ("?", "?", ""))
    return letter if ascii else shown, style


def sparkline(values: Sequence[float | None], ascii: bool = False) -> str:
    """Draw one character per value, low to high; a space for None and for values that are not finite."""
    blocks = _ASCII_BLOCKS if ascii else _BLOCKS
    values = [v if v is not None and math.isfinite(v) else None for v in values]
    finite = [v for v in values if v is not None]
    if not finite:
        return ""
    if min(finite) > 0 and math.log10(max(finite) / min(finite)) > _DECADES:
        values, finite = [None if v is None else math.log(v) for v in values], [math.log(v) for v in finite]
    low, span = min(finite) / 2, max(finite) / 2 - min(finite) / 2  # halves: their difference is finite as well
    levels = [None if v is None else round((v / 2 - low) / span * (len(blocks) - 1)) if span else 0 for v in values]
    return "".join(" " if level is None else blocks[level] for level in levels)


def spark(values: Floats, width: int, ascii_only: bool = False) -> str:
    """Return a curve as a sparkline of the means of even parts; spaces for parts without values."""
    parts = [part[np.isfinite(part)] for part in np.array_split(values, max(1, min(width, len(values))))]
    return sparkline([float(part.mean()) if len(part) else None for part in parts], ascii_only)


def ascii_alone(text: str) -> str:
    """Return a text in ASCII of the same width: signs become similar ones, foreign letters question marks."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() else "?" * cell_len(c) for c in text.translate(_ASCII))


def short(name: str | PurePath) -> str:
    """Return a run's name without its date: ct_edm-20261122-221503-a3f9 as ct_edm·a3f9."""
    parts = plain(PurePath(name).name).rsplit("-", 3)
    return (
        f"{parts[0]}·{parts[3]}" if len(parts) == 4 and parts[1].isdigit() and parts[2].isdigit() else "-".join(parts)
    )
