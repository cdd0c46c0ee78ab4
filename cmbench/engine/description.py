"""What data look like before training: numbers, shape, range, standard deviation, classes; in blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmbench import config, progress, recipe
from cmbench.arrays.moments import Moments, Sums
from cmbench.contracts import Data, HasNames, HasSummary, has
from cmbench.engine import build, fingerprint
from cmbench.errors import UsageError
from cmbench.finite import Finite, as_float

_BLOCK = 1 << 18  # numbers that are looked at together: what a processor's cache holds
_DRAWN = 1 << 16  # samples of data that are drawn without end


@dataclass(frozen=True)
class Description:
    """What was found.

    Attributes:
        kind: of the data.
        summary: one line of the data's own; empty if they have none.
        samples, held_out: how many; None for data that are drawn without end, of which `looked_at` were drawn.
        looked_at: number of training samples that the figures are of.
        shape: of one sample.
        whole: moments of all numbers, as the network gets them.
        channels: moments of each channel, or of each coordinate of points.
        classes: number of labels.
        counts: training samples of each class; empty if unknown.
        names: of the classes; empty if they have none.
        sigma_data: the value that fits, rounded to two digits.
        of_recipe: that of the recipe; None without a recipe.
        warnings: lines about what seems wrong.
    """

    kind: str
    summary: str
    samples: int | None
    held_out: int | None
    looked_at: int
    shape: tuple[int, ...]
    whole: Moments
    channels: Sequence[Moments]
    classes: int
    counts: Sequence[int]
    names: Sequence[str]
    sigma_data: float
    of_recipe: float | None
    warnings: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values for a screen."""
        n, m = self.samples, self.whole
        figures = f"of {self.looked_at:,} training samples, as the network gets them"
        held_out = "" if self.held_out is None else f", {self.held_out:,} held out"
        given = "" if self.of_recipe is None else f" (the recipe has {self.of_recipe:g})"
        return [
            ("kind", self.kind + (f": {self.summary}" if self.summary else "")),
            ("samples", (f"{n:,} for training" if n is not None else "drawn without end") + held_out),
            ("shape", f"{list(self.shape)}"),
            ("range", f"{m.low:.4g} to {m.high:.4g}, {figures}"),
            ("mean", f"{m.mean:.4g}"),
            ("standard deviation", f"{m.deviation:.4g}"),
            ("classes", f"{self.classes}" + self._spread()),
            ("path.sigma_data", f"{self.sigma_data:g} would fit{given}"),
        ]

    def _spread(self) -> str:
        if len(self.counts) < 2:
            return ""
        low, high = min(self.counts), max(self.counts)
        return f", of {low:,} training samples each" if low == high else f", of {low:,} to {high:,} training samples"


def of_table(table: Mapping[str, Any], overrides: Sequence[str], device: str) -> Data:
    """Build data of a recipe's [data] table alone, with overrides `data.key=value`.

    Raises:
        UsageError: an override is of another table, or data and keys do not fit.
    """
    given = recipe.parse_overrides(overrides)
    if others := [key for key in given if key != "data"]:
        raise UsageError(f"--set: found {others[0]}, allowed for a file or folder: keys of data")
    merged = recipe.merged({"data": dict(table)}, given)["data"]
    settings = {key: value for key, value in merged.items() if key != "kind"}
    cls, config_class = build.component("data", str(merged["kind"]))
    data: Data = cls(
        config.check(config_class, settings, str(table["root"]), "data"), build.device_of(device, "--device")
    )
    return data


def of(data: Data, sigma_data: float | None) -> Description:
    """Look at all training samples of a finite set, or at some of an endless one; tell how far it is.

    Args:
        data: the data.
        sigma_data: of the recipe, if there is one.
    """
    sums, n, rows = Sums(), 0, len(data.train) if isinstance(data, Finite) else _DRAWN
    with progress.told().counting("looking at samples", rows) as done:
        for x in _blocks(data):
            sums.add(x.cpu().numpy())
            n += len(x)
            done(len(x))
    whole = sums.whole()
    count, held_out = data.count_and_held_out if isinstance(data, Finite) else (None, None)
    return Description(
        type(data).__module__.rpartition(".")[2],
        data.summary if has(data, HasSummary) else "",
        count,
        held_out,
        n,
        tuple(data.shape),
        whole,
        sums.channels(),
        int(data.classes),
        torch.bincount(data.train_labels.cpu(), minlength=data.classes).tolist() if isinstance(data, Finite) else [],
        [str(name) for name in data.names] if has(data, HasNames) else [],
        float(f"{whole.deviation:.2g}"),
        sigma_data,
        _warnings(whole, sigma_data),
    )


def _blocks(data: Data) -> Iterator[Tensor]:
    """Yield the training samples in order."""
    if not isinstance(data, Finite):
        yield data.train_sample(_DRAWN)
        return
    step = max(1, _BLOCK // int(np.prod(data.shape)))
    for start in range(0, len(data.train), step):
        yield as_float(data.train[start : start + step])


def _warnings(whole: Moments, sigma_data: float | None) -> list[str]:
    if not whole.deviation:
        return ["all values are the same"]
    if sigma_data is not None and fingerprint.is_far(whole.deviation, sigma_data):
        return [f"path.sigma_data: found {sigma_data:g}, far from the standard deviation, {whole.deviation:.2g}"]
    return []
