"""Numbers as text: in few characters for charts and narrow tables, in four digits for tables and lines of text."""

import math
from collections.abc import Iterable

NONE = "-"  # where there is no number
_ROOM = 7  # characters of a number


def four_digits(value: float | None, deviation: float | None = None) -> str:
    """Return four significant digits, e.g. 0.0231, 1.234, 1.2e-05, and a deviation if given; a dash for None."""
    if value is None:
        return NONE
    return f"{value:.4g}" if deviation is None else f"{value:.4g} ± {deviation:.2g}"


def number(value: float | None, step: float = 0.0) -> str:
    """Return a number in at most seven characters, with the digits that a spacing of `step` needs.

    From ten thousand on with k, M, G, T; far from one with exponents. Empty for None.
    """
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0 or size < 1e-9 * step:
        return "0"
    if size < 9999.5 and (size >= 1e-3 or step >= 1e-4):
        return _fixed(value, step)
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if 0.99995 * unit <= size < 1e15:
            return _fixed(value / unit, step / unit, name)
    return _exponent(value, step)


def _fixed(value: float, step: float, unit: str = "") -> str:
    if not step:
        return _fitting(f"{value:.{digits}g}{unit}" for digits in (4, 3, 2))
    wanted = min(_ROOM, max(0, -math.floor(math.log10(step) + 1e-9)))
    return _fitting(f"{value:.{digits}f}{unit}" for digits in range(wanted, -1, -1))


def _exponent(value: float, step: float) -> str:
    wanted = 1
    if step:
        wanted = min(_ROOM, max(0, math.floor(math.log10(abs(value))) - math.floor(math.log10(step) + 1e-9)))
    parts = (f"{value:.{digits}e}".split("e") for digits in range(wanted, -1, -1))
    return _fitting(f"{m.rstrip('0').rstrip('.') if '.' in m else m}e{int(e)}" for m, e in parts)


def _fitting(forms: Iterable[str]) -> str:
    """Return the first form that fits, else the last: a label that is cut off would be another number."""
    form = ""
    for form in forms:
        if len(form) <= _ROOM:
            break
    return form


def _count(value: int) -> str:
    """Return 9999 as it is, 184320 as 184k, 94371840 as 94M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= 10 * size or (value >= size and value % size == 0):
            return f"{value // size}{letter}"
    return str(value)


def progress(step: int, of: int | None) -> str:
    """Return how far a run is: 184k/400k, 400k at its end, 184k if the end is not known."""
    return _count(step) if of is None or step == of else f"{_count(step)}/{_count(of)}"
