"""What a check came to."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cmbench.text import cut

Level = Literal["ok", "warn", "fail", "-"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at, one or two words.
        level: "ok", "warn", "fail", or "-" for what could not be looked at.
        found: what was found, in plain words.
        advice: what to do about it; empty where there is nothing to do.
        values: the numbers behind it, for programs.
    """

    name: str
    level: Level
    found: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def first_line(error: Exception | str) -> str:
    """Return an exception or a warning as one line, short enough for a table."""
    return cut(" ".join(str(error).split()) or type(error).__name__, 300)
