"""Noise levels of a sampler, as the command line takes them and file names hold them. No torch."""

import hashlib
from itertools import pairwise

from cmbench.errors import UsageError
from cmbench.text import shown

_LONGEST = 80  # characters of noise levels in a file's name


def refuse_both(steps: int | None, sigmas: str) -> None:
    """Refuse steps beside noise levels, of which one would do nothing.

    Raises:
        UsageError: both were given.
    """
    if steps is not None and sigmas:
        raise UsageError("--steps, --sigmas: found both, allowed: one of them")


def parsed(text: str, low: float, high: float) -> list[float]:
    """Read the descending noise levels of `--sigmas`, above `low` and up to `high`.

    Raises:
        UsageError: they are not numbers, do not descend, or leave the range.
    """
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--sigmas: found {shown(text)}, allowed: comma-separated numbers, e.g. 80,0.8") from None
    descending = all(a > b for a, b in pairwise(levels))
    if not descending or not all(low < level <= high for level in levels):
        raise UsageError(f"--sigmas: found {shown(text)}, allowed: descending numbers above {low:g}, up to {high:g}")
    return levels


def brief(levels: list[float]) -> str:
    """Return noise levels as a part of a file's name: a digest, where they are many."""
    text = ",".join(f"{level:g}" for level in levels)
    return text if len(text) <= _LONGEST else hashlib.sha256(text.encode()).hexdigest()[:12]
