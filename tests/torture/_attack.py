"""What an attack is: cases that follow from a count and a seed, and a check that says what one of them cost."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torture import _processes


class Result(NamedTuple):
    """One case: what was done, what was lost, empty for nothing, and how many tries it stands for."""

    case: str
    lost: str
    tries: int = 1


@dataclass(frozen=True)
class Attack:
    """One kind of attack.

    Attributes:
        name: of its file.
        promise: what the program says will happen, in one sentence.
        tries: in the long form.
        short: tries in the form that the suite makes.
        cases: from how many and a seed, the same ones each time.
        check: what a case cost, or an empty string.
        spoilt: breaks the program, or what it left.
        tells: words of what `check` must then say of one of the short form's cases.
        prepare: what takes long and is inherited by every process that makes tries.
        size: tries that a case stands for.
        together: several cases share a process; the check forks nothing.
        seconds: after which such a case counts as hung.
    """

    name: str
    promise: str
    tries: int
    short: int
    cases: Callable[[int, int], Sequence[Any]]
    check: Callable[[Any], str]
    spoilt: Callable[[], AbstractContextManager[Any]]
    tells: str
    prepare: Callable[[], object] = lambda: None
    size: int = 1
    together: bool = False
    seconds: float = 20.0

    def results(self, count: int, seed: int, part: int = 0, parts: int = 1, holding: str = "") -> Iterator[Result]:
        """Make so many tries, or each of them whose number is `part` modulo `parts` and whose text holds something."""
        cases = [case for case in self.cases(-(-count // self.size), seed)[part::parts] if holding in _shown(case)]
        told = _processes.each(cases, self.check, self.seconds) if self.together else map(self._safely, cases)
        for case, lost in zip(cases, told, strict=True):
            yield Result(_shown(case), lost, self.size)

    def _safely(self, case: object) -> str:
        try:
            return self.check(case)
        except Exception as error:  # what the attack itself did not foresee is told as a loss
            return f"the check ended by {type(error).__name__}: {error}"


def _shown(case: object) -> str:
    text = ascii(case)
    return text if len(text) <= 300 else f"{text[:280]}... ({len(text)} characters)"


def sampled(everything: Sequence[Any], count: int, chance: Any) -> list[Any]:
    """Return so many of a list in its order, spread evenly; the whole of it again and again where it is too short."""
    rounds, rest = divmod(count, len(everything)) if everything else (0, 0)
    picked = sorted(chance.sample(range(len(everything)), rest)) if rest else []
    return [*everything] * rounds + [everything[i] for i in picked]


@contextlib.contextmanager
def replaced(owner: Any, name: str, new: Any) -> Iterator[None]:
    """Put something in the place of an attribute."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)
