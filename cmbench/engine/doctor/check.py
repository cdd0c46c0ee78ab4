"""The result of a check."""

from dataclasses import dataclass, field
from typing import Any, Literal

from cmbench.text import cut

Level = Literal["ok", "warn", "fail", "-"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was checked, in one or two words.
        level: "ok", "warn", "fail", or "-" if the check was not possible.
        found: what was found, in plain words.
        advice: what to do about it; empty if there is nothing to do.
        values: the numbers behind the finding, for programs.
    """

    name: str
    level: Level
    found: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)


def first_line(error: Exception | str) -> str:
    """Return an exception or a warning as one line, short enough for a table."""
    return cut(" ".join(str(error).split()) or type(error).__name__, 300)
