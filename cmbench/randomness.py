"""Randomness as a function of (seed, step, stream), so that no random state needs saving."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch


@dataclass(frozen=True)
class StepRandom:
    """The random numbers of one optimiser step. Equal fields give equal numbers, in any run and after any resume."""

    device: torch.device
    seed: int
    step: int

    def stream_seed(self, stream: str) -> int:
        """Return 63 well-mixed bits for a named stream, by numpy's SeedSequence."""
        entropy = (self.seed, self.step, crc32(stream.encode()))
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) >> 1

    def generator(self, stream: str) -> torch.Generator:
        """Return a fresh generator on the device for a named stream, e.g. "noise"."""
        return torch.Generator(self.device).manual_seed(self.stream_seed(stream))

    def noise(self, like: torch.Tensor, stream: str = "noise") -> torch.Tensor:
        """Draw eps ~ N(0, I) in the shape and dtype of `like`, (B, ...)."""
        return torch.randn(like.shape, dtype=like.dtype, device=self.device, generator=self.generator(stream))

    @contextmanager
    def dropout(self) -> Iterator[None]:
        """Within this block every forward pass of equal shape draws the same dropout mask, that of the step.

        Dropout draws from the device's default generator. This seeds that generator and restores it afterwards, on CPU
        and GPU. (openai/consistency_models restores only the CPU generator, so its masks differ on a GPU.)
        """
        with forked_seed(self.stream_seed("dropout"), self.device):
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
