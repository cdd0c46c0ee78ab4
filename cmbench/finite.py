"""A finite data set, drawn without replacement in an order that depends only on (seed, step).

Training samples of up to 4 GiB are kept on the device: in the memory of a GPU, or in main memory. Larger sets stay
where they lie. Batches are then gathered there, from a file as well, and only the batch goes to the device. For a GPU
the next batch is gathered while the present step still runs.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from cmbench import regular
from cmbench.equations.oracle import FinitePoints
from cmbench.errors import UsageError
from cmbench.randomness import StepRandom

_KEEP_ON_DEVICE = 4 * 2**30  # bytes; larger sets stay in host memory and move batch by batch
_SHARE = 0.5  # of the free main memory, which samples of a file may take
_CLOSED_FORM = 2**28  # numbers of a set that lies in a file, up to which it is read whole for its closed form


class Rows(Protocol):
    """Samples that lie elsewhere, such as in a file: what `Finite` asks of them; a tensor has it too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all samples, (M, *shape)."""

    @property
    def nbytes(self) -> int:
        """Their size in memory."""

    @property
    def device(self) -> torch.device:
        """Where an index must be."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return some samples, uint8 or float32, (n, *shape)."""

    def to(self, device: torch.device) -> "Tensor | Rows":
        """Return the samples on a device; on the CPU they may stay where they are."""


class Gathered:
    """Rows of an array that is mapped from a file, in an order of their own; they are read when they are asked for.

    Args:
        of: (N, *shape), uint8 or float32.
        index: (M,), the rows, in their order.
    """

    device = torch.device("cpu")

    def __init__(self, of: np.ndarray, index: Tensor) -> None:
        self._of, self._index = of, index
        self.shape = (len(index), *of.shape[1:])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return torch.from_numpy(self._of[self._index[index].numpy()])

    @property
    def nbytes(self) -> int:
        """The bytes that all rows take."""
        return math.prod(self.shape) * self._of.itemsize

    def to(self, device: torch.device) -> "Tensor | Gathered":
        """Return the samples on a device if they are few and main memory has room, else stay."""
        if self.nbytes > _KEEP_ON_DEVICE or self.nbytes > _SHARE * psutil.virtual_memory().available:
            regular.expect_single_rows(self._of)
            return self
        return self[:].to(device)


class Finite:
    """Training and held-out samples with labels; pictures stay uint8 and become [-1, 1] when drawn.

    Args:
        train: (M, *shape), uint8 pictures or float points, in memory or in a file.
        train_labels: (M,).
        test: (M', *shape), never trained on.
        test_labels: (M',).
        device: the device of the batches.
        horizontal_flip: mirror each drawn picture with probability one half.
    """

    draws_parts = True

    def __init__(
        self,
        train: Tensor | Rows,
        train_labels: Tensor,
        test: Tensor | Rows,
        test_labels: Tensor,
        device: torch.device,
        horizontal_flip: bool = False,
    ) -> None:
        home = device if train.nbytes <= _KEEP_ON_DEVICE else torch.device("cpu")
        self.device, self.horizontal_flip = device, horizontal_flip
        self.train: Tensor | Rows = train.to(home)
        self.train_labels = train_labels.long().to(self.train.device)
        self.test, self.test_labels = test, test_labels.long()
        self.shape, self.count_and_held_out = tuple(train.shape[1:]), (len(train), len(test))
        self.classes = int(max(train_labels.max(), test_labels.max())) + 1
        self._next: tuple[tuple[int, StepRandom], tuple[Tensor, Tensor]] | None = None  # a batch gathered ahead

    @property
    def draws_ahead(self) -> bool:
        """Whether a batch comes from main memory or from a file, which takes time that a GPU need not wait for."""
        return self.device.type == "cuda" and self.train.device.type != "cuda"

    def ahead(self, n: int, random: StepRandom) -> None:
        """Gather the batch that `batch` will be asked for, and send it to the device."""
        self._next = (n, random), self._rows(n, random)

    def batch(self, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return the n samples of a step, x_0 (n, *shape) and labels (n,); every epoch visits each sample once.

        With a part it gathers and moves only the part's rows.
        """
        if self._next is not None and self._next[0] == (n, random):
            (rows, labels), self._next = self._next[1], None
        else:
            rows, labels = self._rows(n, random)
        x_0 = as_float(rows)
        if self.horizontal_flip:
            flip = random.draw("flip", len(x_0), self._uniform) < 0.5
            x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
        return x_0, labels

    def _rows(self, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return the samples of a step as they are stored, and their labels, on the device."""
        M, first = len(self.train), random.step * n
        epochs = range(first // M, (first + n - 1) // M + 1)
        starts = ((epoch, first - epoch * M) for epoch in epochs)  # of the batch within each epoch
        order = torch.cat([_permutation(M, random.seed, epoch)[max(0, at) : at + n] for epoch, at in starts])
        index = sent(random.rows(order), self.train.device)
        return sent(self.train[index], self.device), sent(self.train_labels[index], self.device)

    def _uniform(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, generator=generator, device=self.device)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return n training samples with labels, drawn independently, as a perfect sampler would draw them."""
        index = torch.randint(len(self.train), (n,), generator=generator).to(self.train.device)
        return as_float(self.train[index].to(self.device)), self.train_labels[index].to(self.device)

    def held_out(self, n: int) -> Tensor:
        """Return up to n samples that training never sees, (n, *shape)."""
        return as_float(self.test[:n].to(self.device))

    def held_out_labels(self, n: int) -> Tensor:
        """Return the labels of the samples of `held_out`, (n,)."""
        return self.test_labels[:n].to(self.device)

    def train_sample(self, n: int) -> Tensor:
        """Return up to n training samples, (n, *shape)."""
        return as_float(self.train[_permutation(len(self.train), 0, 0)[:n].to(self.train.device)].to(self.device))

    @property
    def oracle(self) -> Callable[[], FinitePoints]:
        """The closed-form denoiser of the training set; an attribute that large sets in files do not have."""
        if not isinstance(self.train, Tensor) and math.prod(self.train.shape) > _CLOSED_FORM:
            raise AttributeError("oracle: the training set is too large to be read whole")
        return self._oracle

    def _oracle(self) -> FinitePoints:
        return FinitePoints(as_float(self.train[:]), self.train_labels).to(self.device)


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device. From main memory to a GPU it is copied out of pinned memory, and nobody waits."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def split(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on, and those that are held out: a share, drawn by chance, but never all of a class.

    Args:
        labels: (M,), int64, 0 to classes - 1, each of them there.
        share: of the M rows; less is held out where classes would lose their last row.

    Raises:
        UsageError: nothing would be left to hold out.
    """
    M = len(labels)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(0)).numpy()
    last = np.zeros(int(labels.max()) + 1, np.int64)
    last[labels[order]] = np.arange(M)  # the last of each class in this order stays
    free = np.ones(M, bool)
    free[last] = False
    if not free.any():
        found = f"{M} sample{'s' * (M > 1)} of {len(last)} class{'es' * (len(last) > 1)}"
        raise UsageError(f"data.held_out: {found} leave none to hold out, since each class keeps one to train on")
    wanted = max(1, round(share * M))
    test = np.flatnonzero(free)[:wanted]
    stays = np.ones(M, bool)
    stays[test] = False
    return order[stays], order[test]


def as_float(x: Tensor) -> Tensor:
    """Map uint8 pictures to float32 in [-1, 1]; leave points as they are."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def as_bytes(x: Tensor) -> Tensor:
    """Round pictures in [-1, 1] to the nearest of 256 levels, uint8: the inverse of `as_float`. nan becomes 0.

    EDM's sampling code rounds as here; ADM's cuts fractions off.
    """
    return ((x.nan_to_num(-1.0).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


@lru_cache(maxsize=4)
def _permutation(M: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(M, generator=StepRandom(torch.device("cpu"), seed, epoch).generator("order"))
