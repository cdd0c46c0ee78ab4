"""Figures and states in a few characters, for tables and lines of state."""

import math
import time
from collections.abc import Sequence

_SIGNS = {  # state -> sign, its letter where the terminal has no more than ASCII, style
    "starting": ("○", "o", "green"),
    "running": ("●", "*", "green"),
    "paused": ("⏸", "=", "yellow"),
    "finished": ("✔", "+", "cyan"),
    "stopped": ("■", "#", "yellow"),
    "diverged": ("✖", "x", "red"),
    "failed": ("✖", "x", "red"),
    "crashed": ("✖", "x", "red"),
    "lost": ("?", "?", "magenta"),
    "gone": ("✖", "x", "red"),
    "unreadable": ("✖", "x", "red"),
}
_BLOCKS, _ASCII_BLOCKS = "▁▂▃▄▅▆▇█", "_.,-~=*#"
NEVER = 1e11  # seconds; 3,000 years
_DECADES = 1.5  # a course over more of them is drawn by its logarithm


def sign(state: str, ascii: bool = False) -> tuple[str, str]:
    """Return a state's sign and style."""
    shown, letter, style = _SIGNS.get(state, ("?", "?", ""))
    return letter if ascii else shown, style


def number(value: float | None) -> str:
    """Four significant digits without a leading zero: .0231, 1.234, 1.2e-05; nothing where there is none."""
    if value is None:
        return ""
    text = f"{value:.3e}" if 0 < abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.4g}"
    if "e" in text:
        digits, _, exponent = text.partition("e")
        return f"{float(digits):.2g}e{int(exponent)}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def four_digits(value: float) -> str:
    """Return 0.0231, 1.234, 1.2e-05: four significant digits as tables and lines of text have them."""
    return f"{value:.4g}"


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds, such as 1:02:03 or 0:42; ? where no clock shows so much."""
    if not abs(seconds) < NEVER:
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def count(value: int) -> str:
    """Return 9999 as it is, 184320 as 184k, 94371840 as 94M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= 10 * size or (value >= size and value % size == 0):
            return f"{value // size}{letter}"
    return str(value)


def progress(step: int, of: int | None) -> str:
    """Return how far a run is: 184k/400k, 400k at its end, 184k where none is known."""
    return count(step) if of is None or step == of else f"{count(step)}/{count(of)}"


def age(seconds: float) -> str:
    """Return now, 5 m, 2 h or 3 d; ? as `clock`."""
    if not abs(seconds) < NEVER:
        return "?"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"


def date_and_clock(moment: object) -> tuple[str, str]:
    """Return the day and the time of day, here, of seconds since 1970: 2026-11-28 and 23:59:01; dashes for no time."""
    try:
        day, _, hour = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(moment))).partition(" ")  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "", "--:--:--"
    return day, hour


def moments(times: Sequence[object], now: float | None = None) -> list[str]:
    """Return times of day, all of them with their days where these differ, or are not today's.

    Args:
        times: seconds since 1970; what is none becomes dashes.
        now: which day is today's; the clock's if not given.
    """
    told = [date_and_clock(each) for each in times]
    days = {day for day, _ in told if day} | {date_and_clock(time.time() if now is None else now)[0]}
    if len(days) < 2:
        return [hour for _, hour in told]
    return [f"{day[5:] or '--/--':>5} {hour}" for day, hour in told]


def sparkline(values: Sequence[float | None], ascii: bool = False) -> str:
    """Draw a character a value, low to high; nothing stands where there is none, or one that is not finite."""
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
