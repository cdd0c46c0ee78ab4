"""A finite data set in memory, drawn without replacement in an order that depends only on (seed, step)."""

from functools import lru_cache

import torch
from torch import Tensor

from cmbench.equations.oracle import FinitePoints
from cmbench.randomness import StepRandom

_KEEP_ON_DEVICE = 4 * 2**30  # bytes; larger sets stay in host memory and move batch by batch


class Finite:
    """Training and held-out samples with labels; pictures stay uint8 and become [-1, 1] when drawn.

    Args:
        train: (M, *shape), uint8 pictures or float points.
        train_labels: (M,).
        test: (M', *shape), never trained on.
        test_labels: (M',).
        device: the device of the batches.
        horizontal_flip: mirror each drawn picture with probability one half.
    """

    draws_parts = True

    def __init__(
        self,
        train: Tensor,
        train_labels: Tensor,
        test: Tensor,
        test_labels: Tensor,
        device: torch.device,
        horizontal_flip: bool = False,
    ) -> None:
        home = device if train.nbytes <= _KEEP_ON_DEVICE else torch.device("cpu")
        self.device, self.horizontal_flip = device, horizontal_flip
        self.train, self.train_labels = train.to(home), train_labels.long().to(home)
        self.test, self.test_labels = test, test_labels.long()
        self.shape, self.count_and_held_out = tuple(train.shape[1:]), (len(train), len(test))
        self.classes = int(max(train_labels.max(), test_labels.max())) + 1

    def batch(self, n: int, random: StepRandom) -> tuple[Tensor, Tensor]:
        """Return the n samples of a step, x_0 (n, *shape) and labels (n,); every epoch visits each sample once.

        With a part it gathers and moves only the part's rows.
        """
        M, first = len(self.train), random.step * n
        epochs = range(first // M, (first + n - 1) // M + 1)
        order = torch.cat([_permutation(M, random.seed, epoch) for epoch in epochs])
        start = first - epochs[0] * M
        index = random.rows(order[start : start + n]).to(self.train.device)
        x_0 = as_float(self.train[index].to(self.device))
        if self.horizontal_flip:
            flip = random.draw("flip", len(x_0), self._uniform) < 0.5
            x_0 = torch.where(flip[:, None, None, None], x_0.flip(-1), x_0)
        return x_0, self.train_labels[index].to(self.device)

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

    def oracle(self) -> FinitePoints:
        """Return the closed-form denoiser of the training set."""
        return FinitePoints(as_float(self.train), self.train_labels).to(self.device)


def as_float(x: Tensor) -> Tensor:
    """Map uint8 pictures to float32 in [-1, 1]; leave points as they are."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


@lru_cache(maxsize=4)
def _permutation(M: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(M, generator=StepRandom(torch.device("cpu"), seed, epoch).generator("order"))
