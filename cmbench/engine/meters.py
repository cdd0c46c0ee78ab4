"""Means that gather on the device and come to the host at log steps alone. They are part of a checkpoint."""

import torch
from torch import Tensor

from cmbench.objectives._terms import Terms


class Means:
    """Means of scalars since the last `flush`."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one step's scalars."""
        for name, value in {**values, "count": values["loss"].new_ones(())}.items():
            previous = self.sums.get(name)
            added = value.detach().double()
            self.sums[name] = added if previous is None else previous + added

    def flush(self) -> dict[str, float]:
        """Return the means and start anew."""
        if not self.sums:
            return {}
        values = dict(zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True))
        count = values.pop("count")
        self.sums = {}
        return {name: value / count for name, value in values.items()}


class Profile:
    """Per time bin: how many samples, and the means of loss, weighted loss, weight and tangent norm.

    Args:
        edges: (bins + 1,) ascending times; what lies outside counts into the outer bins.
    """

    def __init__(self, edges: Tensor) -> None:
        self.edges = edges
        self.sums: dict[str, Tensor] = {}

    def add(self, terms: Terms) -> None:
        """Add one batch's per-sample terms."""
        values = {
            "count": torch.ones_like(terms.loss),
            "loss": terms.loss,
            "weighted_loss": terms.weight * terms.loss,
            "weight": terms.weight,
        }
        if terms.tangent_norm is not None:
            values["tangent_norm"] = terms.tangent_norm
        inner = self.edges[1:-1].to(terms.t)
        index = torch.bucketize(terms.t.contiguous(), inner, right=True)
        for name, value in values.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros(len(self.edges) - 1, dtype=torch.float64, device=value.device)
            self.sums[name].index_add_(0, index, value.double())

    def flush(self) -> dict[str, list[float | None]]:
        """Return the counts and the means of each bin (None where it is empty) and start anew."""
        sums = {name: value.tolist() for name, value in self.sums.items()}
        self.sums = {}
        if not sums:
            return {}
        count = sums.pop("count")
        means = {name: [v / n if n else None for v, n in zip(row, count, strict=True)] for name, row in sums.items()}
        return {"count": count, **means}
