"""Means that accumulate on the device and move to the host only at log steps. They are part of a checkpoint.

On a CPU a small tensor's operation costs more than its numbers, so there means are numbers, and the samples of several
steps go into their bins together. All is added in the same order, so the sums are the same bit for bit.
"""

from itertools import groupby

import torch
from torch import Tensor

from cmbench.contracts import Anatomy, Terms
from cmbench.quantities import COUNTS, OF_TIMES

_OWN = ("count", "loss", "weighted_loss", "weight")
_TOGETHER = 32  # steps whose samples go into their bins together on a CPU


def of_rank(sums: dict[str, Tensor], dims: int, rank: int, size: int) -> dict[str, Tensor]:
    """Return the sums of one rank among `size`, from those of a checkpoint, so that all ranks together have the same.

    Args:
        sums: of `dims` dimensions where one rank saved them, else with a row for each rank.
        dims: of a sum.
        rank: whose they are; with another number of ranks than before, rank 0 takes all.
        size: the number of ranks.
    """
    found = {}
    for name, value in sums.items():
        rows = value if value.ndim > dims else value[None]
        whole = rows[rank] if len(rows) == size else rows.sum(dim=0)
        found[name] = whole if rank == 0 or len(rows) == size else torch.zeros_like(whole)
    return found


class Means:
    """Means of scalars since the last `flush`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}  # numbers where they come from a CPU

    @property
    def sums(self) -> dict[str, Tensor]:
        """The sums, float64, to be saved or added up over ranks."""
        return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in self._sums.items()}

    @sums.setter
    def sums(self, sums: dict[str, Tensor]) -> None:
        is_number = {name: x.device.type == "cpu" and x.ndim == 0 for name, x in sums.items()}  # or a row for each rank
        self._sums = {name: x.item() if is_number[name] else x for name, x in sums.items()}

    def add(self, values: dict[str, Tensor], share: float = 1.0) -> None:
        """Add one step's scalars, which are means over a share of its batch."""
        for name, value in {**values, "count": values["loss"].new_ones(())}.items():
            previous = self._sums.get(name)
            double = value.item() if value.device.type == "cpu" else value.detach().double()
            added = double if share == 1 else double * share
            self._sums[name] = added if previous is None else previous + added

    def flush(self) -> dict[str, float]:
        """Return the means and start over."""
        if not self._sums:
            return {}
        sums = self.sums
        values = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
        count = values.pop("count")
        self._sums = {}
        return {name: value / count for name, value in values.items()}


class Profile:
    """Per time bin: the number of samples, and the means of the values given to `add`.

    Args:
        edges: (bins + 1,) ascending times; samples outside count into the outer bins.
    """

    def __init__(self, edges: Tensor) -> None:
        self.edges = edges
        self._between: Tensor | None = None  # the inner edges, where the times are
        self._sums: dict[str, Tensor] = {}
        self._waiting: list[tuple[Tensor, dict[str, Tensor]]] = []  # times and values, not yet in their bins

    @property
    def sums(self) -> dict[str, Tensor]:
        """The sums of each bin, (bins,) float64."""
        self._settle()
        return self._sums

    @sums.setter
    def sums(self, sums: dict[str, Tensor]) -> None:
        self._sums, self._waiting = sums, []

    def add(self, terms: Terms, F_gradient: Tensor | None = None) -> None:
        """Add one batch's per-sample terms.

        Args:
            terms: of the objective. Its tensors are kept for some steps; those that lie within others are copied.
            F_gradient: (B,), norm of the gradient of each sample's weighted loss with respect to F_theta's output. It
                replaces the gradient in the weights, which is not known per sample. Adaptive weighting is meant to
                flatten its variance over the bins.
        """
        if taken := [name for name in terms.per_sample if name in OF_TIMES or name in _OWN or name in COUNTS]:
            raise ValueError(
                f"Terms.per_sample: found {', '.join(taken)}, which the engine writes itself; allowed: other names, "
                "which OF_SAMPLES of cmbench.quantities may give a title"
            )
        values = {"loss": terms.loss, "weight": terms.weight, **terms.per_sample}
        if terms.tangent_norm is not None:
            values["tangent_norm"] = terms.tangent_norm
        if F_gradient is not None:
            values["F_gradient"] = F_gradient
        self._add(terms.t, values)

    def add_anatomy(self, anatomy: Anatomy) -> None:
        """Add the parts of the tangent of some samples, which have their own count."""
        values = {"count": torch.ones_like(anatomy.t), **anatomy.values}
        self._add(anatomy.t, {f"anatomy_{name}": value for name, value in values.items()})

    def _add(self, t: Tensor, values: dict[str, Tensor]) -> None:
        self._waiting.append((_own(t), {name: _own(value) for name, value in values.items()}))
        if t.device.type != "cpu" or len(self._waiting) == _TOGETHER:  # a GPU does not add them one after another
            self._settle()

    def _settle(self) -> None:
        """Put what waits into its bins, in order."""
        waiting, self._waiting = self._waiting, []
        for names, group in groupby(waiting, lambda each: tuple(each[1])):
            each = list(group)
            t = torch.cat([own for own, _ in each])
            values = _with_products({name: torch.cat([own[name] for _, own in each]) for name in names})
            if self._between is None or self._between.device != t.device or self._between.dtype != t.dtype:
                self._between = self.edges[1:-1].to(t)  # once: the host would wait for a GPU each time
            index = torch.bucketize(t, self._between, right=True)
            for name, value in values.items():
                if name not in self._sums:
                    self._sums[name] = torch.zeros(len(self.edges) - 1, dtype=torch.float64, device=value.device)
                self._sums[name].index_add_(0, index, value.double())

    def flush(self) -> dict[str, list[float | None]]:
        """Return the counts and the means of each bin (None where it is empty), and start over."""
        sums = {name: value.tolist() for name, value in self.sums.items()}
        self.sums = {}
        counts: dict[str, list[float | None]] = {
            name: sums.pop(name) for name in ("count", "anatomy_count") if name in sums
        }
        means: dict[str, list[float | None]] = {}
        for name, row in sums.items():
            count = counts["anatomy_count" if name.startswith("anatomy_") else "count"]
            means[name] = [v / n if n and v is not None else None for v, n in zip(row, count, strict=True)]
        if squares := means.pop("F_gradient_square", None):
            pairs = zip(squares, means["F_gradient"], strict=True)
            means["F_gradient_variance"] = [
                None if square is None or mean is None else max(0.0, square - mean**2) for square, mean in pairs
            ]
        means |= counts
        return means


def _own(x: Tensor) -> Tensor:
    """Return a tensor, or a copy if it lies within another, such as a weight that a later step moves."""
    return x if x.untyped_storage().nbytes() == x.nbytes else x.clone()


def _with_products(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a batch with its count and the products that are added up too; those of a look as given."""
    if "loss" not in values:
        return values
    loss, weight = values.pop("loss"), values.pop("weight")
    values = {"count": torch.ones_like(loss), "loss": loss, "weighted_loss": weight * loss, "weight": weight, **values}
    if (gradient := values.get("F_gradient")) is not None:
        values["F_gradient_square"] = gradient.double().square()
    return values
