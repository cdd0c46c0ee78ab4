"""Many samples in batches of bounded memory, written as they are drawn, and taken up again after any end.

Sample k follows from the seed and k alone. Batches begin at multiples of their size and are always drawn whole, so
that even the arithmetic is the same for any number of samples and of ranks, and after any break.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cmbench.engine import asking, memory, sample
from cmbench.engine.asking import Place
from cmbench.engine.ranks import Ranks
from cmbench.engine.stores import Folder, Single, Store, labels_of
from cmbench.engine.weights import Trained
from cmbench.errors import stopping_on_write_errors

_KEPT = 16  # rounds of the ranks, after which what was drawn is made to survive a crash


@dataclass(frozen=True)
class Wanted:
    """The samples that are asked for.

    Attributes:
        n: number of samples.
        batch_size: how many are drawn at once by each rank.
        sigmas: as for `sample.draw`.
        seed: of all noise.
        classes: of a conditional model, which takes labels; 0 without them.
        label: the class of all samples; None for all classes in turn.
        weights: the SHA-256 of the weights' file.
        out: a folder, or a file that ends in .npz.
        safetensors: a second file; empty without one.
    """

    n: int
    batch_size: int
    sigmas: list[float]
    seed: int
    classes: int
    label: int | None
    weights: str
    out: str
    safetensors: str = ""

    @property
    def labels(self) -> Tensor | None:
        """The label of each sample, (n,), for a conditional model."""
        return labels_of(self.n, self.label, self.classes) if self.classes else None

    def stores(self, place: Place, trained: Trained) -> list[Store]:
        """Return where the samples are kept."""
        which = "all in turn" if self.label is None else self.label
        made = {
            **{"run": place.run.name, "checkpoint": trained.step, "ema": trained.ema, "sigmas": list(self.sigmas)},
            **{"seed": self.seed, "class": which if self.classes else None, "weights": self.weights},
        }
        out, shape = Path(self.out), trained.model.shape
        is_single = out.suffix.lower() == ".npz" and not out.is_dir()
        first = Single(out, self.n, shape, made, self.labels, "--out") if is_single else None
        stores: list[Store] = [first or Folder(out, self.n, shape, made, self.labels)]
        if self.safetensors:
            stores.append(Single(Path(self.safetensors), self.n, shape, made, None, "--safetensors"))
        return stores


class Bulk:
    """Draws samples into their stores, as rank 0.

    Args:
        ranks: of the command.
        place: of the weights.
        trained: the weights.
        wanted: the samples.

    Raises:
        UsageError: a store was begun otherwise, or cannot be written.
        StoppedError: there is no room on the disk.
    """

    def __init__(self, ranks: Ranks, place: Place, trained: Trained, wanted: Wanted) -> None:
        self._ranks, self._place, self._trained, self.wanted = ranks, place, trained, wanted
        self._stores = wanted.stores(place, trained)
        n, size = wanted.n, wanted.batch_size
        with stopping_on_write_errors(f"--out {wanted.out}"):
            for store in self._stores:
                store.check()
            for store in self._stores:
                store.begin()
            starts = range(0, n, size)
            self._blocks = [i for i in starts if any(store.lacks(i, min(i + size, n)) for store in self._stores)]
        self.done = n - sum(min(i + size, n) - i for i in self._blocks)  # samples that are there

    def draw(self, tell: Callable[[int], object]) -> int:
        """Draw what is missing, and return how many of it are not finite. `tell` is told of each round's samples.

        Raises:
            StoppedError: there is no room on the disk; what is there is kept.
        """
        asking.ask(self._ranks, "bulk", self._place, samples=asdict(self.wanted), blocks=self._blocks)
        reached: int | None = None

        def after(done: int, samples: int) -> None:
            nonlocal reached
            reached, self.done = done, self.done + samples
            tell(samples)

        try:
            bad = _share(self._ranks, self._trained, self.wanted, self._stores, self._blocks, after)
        except BaseException:
            if self._ranks.size == 1:
                with suppress(Exception):
                    _keep(self.wanted, self._stores, reached)
            raise
        with stopping_on_write_errors(f"--out {self.wanted.out}"):
            for store in self._stores:
                store.finish()
        return bad


def answer(ranks: Ranks, trained: Trained, order: Mapping[str, Any]) -> None:
    """As any other rank, draw the share of what rank 0 has asked for."""
    wanted = Wanted(**order["samples"])
    stores = wanted.stores(asking.heard(order["place"]), trained)
    for store in stores:
        store.join()
    _share(ranks, trained, wanted, stores, order["blocks"], lambda done, samples: None)


def _share(
    ranks: Ranks,
    trained: Trained,
    wanted: Wanted,
    stores: Sequence[Store],
    blocks: Sequence[int],
    after: Callable[[int, int], object],
) -> int:
    """Draw every size-th block, in rounds with the other ranks; return how many samples of all are not finite.

    `after` is told of each round, below which number all samples are there, and how many the round has drawn.
    """
    n, size, bad = wanted.n, wanted.batch_size, 0
    with ranks.in_step():
        for first in range(0, len(blocks), ranks.size):
            all_of_round = blocks[first : first + ranks.size]
            mine = all_of_round[ranks.member.rank] if ranks.member.rank < len(all_of_round) else None
            bad += ranks.agreed(lambda: 0 if mine is None else _block(trained, wanted, stores, mine))  # noqa: B023
            done = min(all_of_round[-1] + size, n)
            after(done, sum(min(i + size, n) - i for i in all_of_round))
            if first // ranks.size % _KEPT == _KEPT - 1 or first + ranks.size >= len(blocks):
                ranks.agreed(lambda: _keep(wanted, stores, done if ranks.leads else None))  # noqa: B023
        return sum(ranks.all_told(bad))


def _block(trained: Trained, wanted: Wanted, stores: Sequence[Store], start: int) -> int:
    """Draw a batch, whole even if fewer samples are wanted, and return how many of it are not finite."""
    numbers = range(start, start + wanted.batch_size)
    labels = None
    if wanted.classes:
        labels = labels_of(numbers.stop, wanted.label, wanted.classes)[start:]
    with memory.wanted_by("--batch-size", wanted.batch_size):
        x = sample.draw_numbered(trained.model, trained.sampler, numbers, wanted.sigmas, wanted.seed, labels)
        x = x[: wanted.n - start].cpu()
    with stopping_on_write_errors(f"--out {wanted.out}"):
        for store in stores:
            store.put(start, x)
    return int((~x.flatten(1).isfinite().all(dim=1)).sum())


def _keep(wanted: Wanted, stores: Sequence[Store], done: int | None) -> None:
    with stopping_on_write_errors(f"--out {wanted.out}"):
        for store in stores:
            store.keep(done)


def takes(shape: Sequence[int]) -> bool:
    """Return whether samples of a shape are pictures of one or three colours."""
    return len(shape) == 3 and shape[0] in (1, 3)
