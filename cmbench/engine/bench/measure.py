"""Measures recipes in turn: in one process, or on all ranks of a command, each of which takes its part of a step."""

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from cmbench.engine import environment, together
from cmbench.engine.bench import cost, timing
from cmbench.engine.bench.cost import Amounts, Cost
from cmbench.engine.bench.subject import Asked, Subject, built_as, recorder
from cmbench.engine.bench.timing import Clock
from cmbench.engine.memory import LackError
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.errors import CmbenchError
from cmbench.tables import Train

_LEAST, _MOST, _PATIENCE = 5, 50, 20.0  # rounds, and seconds after which no further one begins
_WARM_UP = 2  # steps
Built = Sequence[tuple[Trainer, list[str]]]


@dataclass(frozen=True)
class Measured:
    """The costs of recipes, measured in turn.

    Attributes:
        costs: of each.
        rounds: how many medians are over.
        ranks: how many trained.
        ratio: of the seconds of a step, the first to the second, the median of the rounds; None for one recipe.
        ratios: of the seconds of a step, each to the first, medians of the rounds.
        ran: cores that this process had during the rounds, on average: on a CPU below one if others took it away.
    """

    costs: Sequence[Cost]
    rounds: int
    ranks: int
    ratio: float | None
    ratios: Sequence[float]
    ran: float


def measure(asked: Sequence[Asked], rounds: int | None, ranks: Ranks, clock: Clock = time.perf_counter) -> Measured:
    """As rank 0, measure recipes, which all ranks build and train in memory.

    Args:
        asked: one recipe or more.
        rounds: how many; None: as many as fit into some seconds.
        ranks: of the command.
        clock: of works and phases on this rank; no other tells its seconds.

    Raises:
        CmbenchError: a recipe cannot be built or trained.
    """
    if ranks.size > 1:
        told = [each.told() for each in asked]
        ranks.tell({"do": "bench", "folder": str(Path.cwd()), "asked": told, "rounds": rounds})
    return on_all(asked, rounds, ranks, clock)


def follow(ranks: Ranks, order: dict[str, Any]) -> None:
    """As any other rank, take part in what rank 0 measures."""
    with suppress(OSError):
        os.chdir(order["folder"])
    on_all([Asked.heard(told) for told in order["asked"]], order["rounds"], ranks)


def on_all(asked: Sequence[Asked], rounds: int | None, ranks: Ranks, clock: Clock = time.perf_counter) -> Measured:
    """As any rank, measure. The result is that of this rank's device. Raises as `measure`."""
    environment.make_reproducible(Train())
    built = ranks.agreed(lambda: [built_as(each) for each in asked])
    with ranks.in_step(), ExitStack() as open_until_end:
        alone: list[float | None] = [None] * len(built)
        if ranks.size > 1:
            alone = ranks.agreed(lambda: _alone(built, rounds) if ranks.leads else alone)
            built = [(_joined(each, ranks), differs) for each, differs in built]
        writes = [open_until_end.enter_context(recorder(each)) if ranks.leads else None for each, _ in built]
        subjects = [Subject(each, own, clock) for (each, _), own in zip(built, writes, strict=True)]
        return _measured(subjects, [differs for _, differs in built], rounds, ranks, alone)


def _measured(
    subjects: Sequence[Subject],
    differs: Sequence[list[str]],
    rounds: int | None,
    ranks: Ranks,
    alone: Sequence[float | None],
) -> Measured:
    amounts = [_amounts(subject) for subject in subjects]
    with _told_of_failure(*subjects):
        began = _clocks()
        seconds = _in_turn(subjects, rounds, ranks)
    spent, passed = (now - then for now, then in zip(_clocks(), began, strict=True))
    of_each = list(zip(subjects, seconds, strict=True))
    costs = [
        cost.of(subject, own, counted, other, told)
        for (subject, own), counted, other, told in zip(of_each, amounts, alone, differs, strict=True)
    ]
    steps = [cost.of_rounds(subject, own) for subject, own in of_each]
    ratio = timing.ratio(steps[0], steps[1]) if len(steps) > 1 else None
    ratios = [timing.ratio(own, steps[0]) for own in steps]
    return Measured(costs, len(steps[0]), ranks.size, ratio, ratios, spent / passed)


def _clocks() -> tuple[float, float]:
    """Return the seconds of this process on any core, and those of the clock."""
    return time.process_time(), time.monotonic()


def _amounts(subject: Subject) -> Amounts:
    """Count what single steps need, after some that warm up."""
    with _told_of_failure(subject):
        for _ in range(_WARM_UP):
            subject.step()
        subject.phases_of_step()
        subject.phases.clear()
        flop = subject.operations()
        kept, peaks = subject.peaks()
        return Amounts(flop, kept, peaks, subject.status())


def _in_turn(subjects: Sequence[Subject], rounds: int | None, ranks: Ranks) -> list[dict[str, list[float]]]:
    """Return the seconds of each subject's works, in rounds of all works of all subjects."""
    works = {(i, name): work for i, subject in enumerate(subjects) for name, work in subject.works().items()}
    found = timing.interleaved(works, _pace(rounds, ranks), subjects[0].built.device, clock=subjects[0].clock)
    for subject in subjects:
        del subject.phases[0]  # of the warm-up
    return [{name: own for (j, name), own in found.items() if j == i} for i in range(len(subjects))]


def _pace(rounds: int | None, ranks: Ranks) -> Callable[[int], bool]:
    """Return whether there is a further round after so many, as rank 0 decides."""
    began = time.monotonic()

    def goes_on(done: int) -> bool:
        in_time = done < _LEAST or (done < _MOST and time.monotonic() - began < _PATIENCE)
        return ranks.all_told(in_time if rounds is None else done < rounds)[0]

    return goes_on


def _alone(built: Built, rounds: int | None) -> list[float | None]:
    """As rank 0, return the images per second of whole batches on this rank, and put the states back.

    It is None for a batch that this rank has no memory for.
    """
    rates: list[float | None] = []
    for each, _ in built:
        state = each.state
        before = {group: {name: x.cpu().clone() for name, x in own.items()} for group, own in state.groups().items()}
        try:
            rates.append(_rate(Subject(replace(each, ranks=Ranks())), rounds))
        except LackError:
            rates.append(None)
        state.load(0, before)
    return rates


def _rate(subject: Subject, rounds: int | None) -> float:
    with _told_of_failure(subject):
        for _ in range(_WARM_UP):
            subject.step()
        found = timing.interleaved({"": subject.works()["step"]}, _pace(rounds, Ranks()), subject.built.device)
    return subject.at_once * subject.built.recipe.train.batch_size / median(found[""])


def _joined(built: Trainer, ranks: Ranks) -> Trainer:
    """Return the trainer with ranks of its own, which have begun together: each network has its own sums."""
    joined = replace(built, ranks=copy.copy(ranks))
    together.begin(joined)
    return joined


@contextmanager
def _told_of_failure(*subjects: Subject) -> Iterator[None]:
    """Turn a step that fails into one line, which names the recipes that took steps."""
    try:
        yield
    except CmbenchError:
        raise
    except (ArithmeticError, NotImplementedError, RuntimeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        names = " or ".join(subject.built.recipe.name for subject in subjects)
        raise CmbenchError(f"{names}: the training step fails: {why}") from error
