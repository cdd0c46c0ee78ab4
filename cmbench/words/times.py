"""Durations and moments as text."""

import time
from collections.abc import Sequence

EXACT = 4  # units of a duration that leave nothing out
NEVER = 1e11  # seconds; 3,000 years
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_NO_HOUR = "--:--:--"


def duration(seconds: float, units: int = 2) -> str:
    """Return a time in its largest units, at most `units`: 42s, 3m20s, 1h05m, 2d03h; ? if it is too long."""
    if not abs(seconds) < NEVER:
        return "?"
    left = max(0, round(seconds))
    first = next((i for i, (size, _) in enumerate(_UNITS) if left >= size), len(_UNITS) - 1)
    parts: list[str] = []
    for size, name in _UNITS[first : first + units]:
        parts.append(f"{left // size:02}{name}" if parts else f"{left // size}{name}")
        left %= size
    return "".join(parts)


def coarse(seconds: float) -> str:
    """Return a duration to about 3%: an estimate that changes every second would only cost bytes."""
    units = {30 * 86400: 86400, 30 * 3600: 3600, 30 * 600: 600, 30 * 60: 60, 300: 10, 30: 5}
    unit = next((unit for limit, unit in units.items() if limit < seconds < NEVER), 0)
    return duration(unit * round(seconds / unit) if unit else seconds)


def age(seconds: float) -> str:
    """Return now, 5 m, 2 h or 3 d: whole units that have passed; ? as in `duration`."""
    if seconds < 60 and abs(seconds) < NEVER:
        return "now"
    told = duration(seconds // 1, units=1)
    return told if told == "?" else f"{told[:-1]} {told[-1]}"


def date(moment: object, form: str = "%Y-%m-%d %H:%M:%S", otherwise: str = "?") -> str:
    """Return seconds since 1970 as local date and time: 2026-11-28 23:59:01."""
    try:
        return time.strftime(form, time.localtime(float(moment)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return otherwise


def day_and_hour(moment: object) -> tuple[str, str]:
    """Return the day and the time of day of a moment; without a moment no day, and dashes for the time."""
    day, _, hour = date(moment, otherwise=f" {_NO_HOUR}").partition(" ")
    return day, hour


def moments(times: Sequence[object], now: float | None = None) -> list[str]:
    """Return times of day, all of them with their days if the days differ or are not today.

    Args:
        times: seconds since 1970; anything else becomes dashes.
        now: a moment of today; the clock's if not given.
    """
    told = [day_and_hour(each) for each in times]
    days = {day for day, _ in told if day} | {day_and_hour(time.time() if now is None else now)[0]}
    if len(days) < 2:
        return [hour for _, hour in told]
    return [f"{day[5:] or '--/--':>5} {hour}" for day, hour in told]


class Stamps:
    """Puts the time of day in front of each line of a log, and the day if it changed."""

    def __init__(self) -> None:
        self._day = ""

    def of(self, moment: object, line: str) -> str:
        """Return a line with its time in front."""
        day, hour = day_and_hour(moment)
        before = f"{day} " if day and day != self._day else ""
        self._day = day or self._day
        return f"{before}{hour}  {line}"
