"""What the machines did while several runs trained: the figures of machine.jsonl, compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cmbench.comparison.member import Member
from cmbench.rundir.columns import Column

PREFIX = "machine_"  # of the names of machine curves


@dataclass(frozen=True)
class Load:
    """One curve of one run over all its rows, which are a few seconds apart, in the curve's own unit.

    Attributes:
        mean, lowest, highest: of the finite values.
        rows: number of finite values.
    """

    mean: float
    lowest: float
    highest: float
    rows: int


Loads = Mapping[str, Sequence[Load | None]]


def names_of(members: Sequence[Member]) -> list[str]:
    """Return the machine curves of all runs together; runs of earlier versions have none."""
    return sorted({name for member in members for name in member.machine})


def loads(members: Sequence[Member], names: Sequence[str]) -> Loads:
    """Return each curve's load, one per run; None for runs without the curve."""
    return {name: [_load(member.machine.get(name)) for member in members] for name in names}


def _load(column: Column | None) -> Load | None:
    if column is None or not len(found := column.finite().value):
        return None
    return Load(float(found.mean()), float(found.min()), float(found.max()), len(found))
