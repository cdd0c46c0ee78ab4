"""How rank 0 of a command lets all ranks draw trained weights' samples. The others wait in `answering.follow`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from cmbench.engine import sample
from cmbench.engine.ranks import Ranks
from cmbench.engine.weights import Trained
from cmbench.rundir.layout import RunDir


@dataclass(frozen=True)
class Place:
    """Where every rank finds the same weights and data.

    Attributes:
        run: the run.
        step: of the checkpoint.
        ema: as for `weights.load`.
        device: its name, as on the command line.
        runs_dir: where to look for a teacher's run.
        places: of the data, if they have moved, such as {"data.root": "/new"}.
        other_data: the data may differ from those that the run was trained on.
    """

    run: RunDir
    step: int
    ema: str
    device: str
    runs_dir: Path | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    other_data: bool = False

    def told(self) -> dict[str, Any]:
        """Return it as JSON, from which `heard` makes it again."""
        folder = None if self.runs_dir is None else str(self.runs_dir.resolve())
        found = {"run": str(self.run.path.resolve()), "step": self.step, "ema": self.ema, "device": self.device}
        return {**found, "runs_dir": folder, "places": dict(self.places), "other_data": self.other_data}


def heard(told: Mapping[str, Any]) -> Place:
    """Return the place that rank 0 has told."""
    folder = None if told["runs_dir"] is None else Path(told["runs_dir"])
    return Place(**{**told, "run": RunDir(Path(told["run"])), "runs_dir": folder})


def ask(ranks: Ranks, wanted: str, place: Place, **details: Any) -> None:
    """As rank 0, ask the others for something, and wait until they are ready for it.

    Raises:
        CmbenchError: as `Messages.agreed`.
    """
    if ranks.size > 1:
        ranks.tell({"do": wanted, "folder": str(Path.cwd()), "place": place.told(), **details})
        ranks.agreed(lambda: None)


def draw(
    ranks: Ranks, place: Place, trained: Trained, n: int, sigmas: Sequence[float], seed: int, labels: Tensor | None
) -> Tensor:
    """As rank 0, let all ranks draw samples, and return them as `sample.draw` does.

    Args:
        ranks: of the command; one draws alone.
        place: where the others find the weights.
        trained: the weights.
        n: number of samples.
        sigmas: as for `sample.draw`, like the seed and the labels.
        seed: of the latents.
        labels: (n,), for a conditional model.
    """
    ask(ranks, "draw", place, n=n, sigmas=list(sigmas), seed=seed, labels=labels is not None)
    return of_all(ranks, trained, n, sigmas, seed, None if labels is None else labels.cpu())


def of_all(ranks: Ranks, trained: Trained, n: int, sigmas: Sequence[float], seed: int, labels: Tensor | None) -> Tensor:
    """As any rank that has been asked, draw its share of the samples, and return all. Labels are those of rank 0."""
    with ranks.in_step():
        if labels is not None and ranks.size > 1:
            ranks.send_weights({"labels": labels})
        return sample.draw(trained.model, trained.sampler, n, sigmas, seed, labels, ranks)
