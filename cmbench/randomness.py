"""Randomness as a function of (seed, step, stream), so that no random state needs saving."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np
import torch

from cmbench.errors import UsageError

Draw = Callable[[int, torch.Generator], torch.Tensor]  # draw(n, generator) returns (n, ...)


@dataclass(frozen=True)
class Part:
    """The rows start to stop of a batch of `whole` samples.

    Raises:
        ValueError: there are no such rows.
    """

    start: int
    stop: int
    whole: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= self.whole:
            raise ValueError(f"found rows {self.start} to {self.stop}, allowed: some of 0 to {self.whole}")

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """The rows, to index a tensor of the whole batch."""
        return slice(self.start, self.stop)

    @property
    def share(self) -> float:
        """The share of the batch."""
        return len(self) / self.whole


@dataclass(frozen=True)
class StepRandom:
    """The random numbers of one optimiser step. Equal fields give equal numbers, in any run and after any resume.

    Each sample's numbers depend on the seed, the step and the sample's place in the whole batch, and on nothing else.
    With a `part` only those rows of the batch are at hand: it draws for the whole batch and keeps its own rows.
    """

    device: torch.device
    seed: int
    step: int
    part: Part | None = field(default=None, kw_only=True)

    def stream_seed(self, stream: str) -> int:
        """Return 63 well-mixed bits for a named stream, by numpy's SeedSequence."""
        entropy = (self.seed, self.step, crc32(stream.encode()))
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1

    def generator(self, stream: str) -> torch.Generator:
        """Return a fresh generator on the device for a named stream, e.g. "noise". Objectives use `draw` instead.

        Raises:
            UsageError: only a part is at hand: draws of its size are not its rows of the whole batch.
        """
        if self.part is not None:
            raise UsageError(
                f'random.generator("{stream}"): found for a part of a batch (several ranks or train.micro_batch_size), '
                f'allowed: random.draw("{stream}", n, draw), where draw(n, generator) returns (n, ...)'
            )
        return torch.Generator(self.device).manual_seed(self.stream_seed(stream))

    def draw(self, stream: str, n: int, draw: Draw) -> torch.Tensor:
        """Return draw(n, generator) of a named stream for the n samples at hand. (n, ...).

        Raises:
            ValueError: n is not the size of the part.
        """
        if self.part is None:
            return draw(n, self.generator(stream))
        if n != len(self.part):
            raise ValueError(f"random.draw: found n = {n}, allowed: the {len(self.part)} samples of the part")
        return self.rows(draw(self.part.whole, self.batch.generator(stream)))

    def noise(self, like: torch.Tensor, stream: str = "noise") -> torch.Tensor:
        """Draw eps ~ N(0, I) in the shape and dtype of `like`, (B, ...)."""

        def normal(n: int, generator: torch.Generator) -> torch.Tensor:
            return torch.randn((n, *like.shape[1:]), dtype=like.dtype, device=self.device, generator=generator)

        return self.draw(stream, len(like), normal)

    @property
    def batch(self) -> "StepRandom":
        """The random numbers of the whole batch."""
        return self if self.part is None else replace(self, part=None)

    def whole(self, n: int) -> int:
        """Return the size of the whole batch, of which n samples are at hand."""
        return n if self.part is None else self.part.whole

    def rows(self, of_batch: torch.Tensor) -> torch.Tensor:
        """Return the rows at hand of a tensor of the whole batch.

        Raises:
            ValueError: the tensor is not of the whole batch.
        """
        if self.part is None:
            return of_batch
        if len(of_batch) != self.part.whole:
            raise ValueError(f"found {len(of_batch)} rows, allowed: the {self.part.whole} of the whole batch")
        return of_batch[self.part.rows]

    @contextmanager
    def dropout(self) -> Iterator[None]:
        """Within this block every forward pass of equal shape draws the same dropout mask, that of the step.

        Each part has its own mask, seeded by its start. So masks depend on how a batch is split; nothing else does.

        Dropout draws from the device's default generator. This seeds that generator and restores it afterwards, on CPU
        and GPU. (openai/consistency_models restores only the CPU generator, so its masks differ on a GPU.)
        """
        start = 0 if self.part is None else self.part.start
        with forked_seed(self.stream_seed(f"dropout {start}" if start else "dropout"), self.device):
            yield


@contextmanager
def forked_seed(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the default generators of the CPU and of a GPU inside the block and restore them after it.

    torch.manual_seed would also queue the seed for every unused GPU, with a stack trace, which takes .1 ms per call.
    """
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        torch.cuda.init()
        generators.append(
            torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
        )
    states = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
