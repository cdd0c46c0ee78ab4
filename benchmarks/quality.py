"""How good the samples of trained runs are, as rows of a Markdown table.

    python benchmarks/quality.py RUN [RUN ...]

Digits: sliced Wasserstein distance of 1,000 samples to the held-out fifth; share of samples that scikit-learn's
logistic regression, trained on the real digits in the 0 to 16 in which they come, assigns to a class with probability
over .9 (a weak criterion: noise passes it too, so read it beside the distance); smallest and largest share of a class.
Ring: sliced Wasserstein distance of 10,000 samples to true draws, and the share of samples within four standard
deviations of a mode. 512 projections, fixed latents. The first rows are the real data, the floor and the noise.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from cmbench import recipe as recipes
from cmbench.engine import build, weights
from cmbench.engine.sample import default_sigmas, draw
from cmbench.evaluation.sliced_wasserstein import sliced_wasserstein
from cmbench.rundir import status
from cmbench.rundir.select import runs_folder, select

HEADER = "| samples | sliced W2 | confident or on-mode | smallest class | largest class |\n|---|---|---|---|---|"


class Digits:
    """The measures of digits."""

    n, steps = 1000, {"consistency": (1, 2), "average_velocity": (1, 2), "ode": (18,)}

    def __init__(self, data: object) -> None:
        self.real = data.held_out(self.n)
        self.train = data.train_sample(len(data.train))
        pictures, labels = data.oracle().points, data.train_labels
        self.classifier = LogisticRegression(max_iter=5000).fit(self._as_they_come(pictures), labels.cpu().numpy())

    def row(self, name: str, x: Tensor) -> str:
        """Return the row of one set of samples."""
        probabilities = self.classifier.predict_proba(self._as_they_come(x))
        shares = np.bincount(probabilities.argmax(axis=1), minlength=10) / len(x)
        confident = (probabilities.max(axis=1) > 0.9).mean()
        distance = sliced_wasserstein(x, self.real)
        return f"| {name} | {distance:.3f} | {confident:.1%} | {shares.min():.1%} | {shares.max():.1%} |"

    @staticmethod
    def _as_they_come(x: Tensor) -> np.ndarray:
        """[-1, 1] -> 0 to 16."""
        return (8 * (x.flatten(1).cpu().double() + 1)).numpy()


class Ring:
    """The measures of Gaussian mixtures."""

    n, steps = 10_000, {"consistency": (1, 2), "average_velocity": (1, 2), "ode": (18,)}

    def __init__(self, data: object) -> None:
        self.real, self.train, self.mixture = data.held_out(self.n), data.train_sample(self.n), data.mixture

    def row(self, name: str, x: Tensor) -> str:
        """Return the row of one set of samples."""
        distances = torch.cdist(x.cpu().double(), self.mixture.means.cpu())
        nearest, mode = distances.min(dim=1)
        on_mode = (nearest < 4 * self.mixture.variances.max().sqrt().cpu()).double().mean()
        shares = mode.bincount(minlength=len(self.mixture.means)) / len(x)
        distance = sliced_wasserstein(x, self.real)
        return f"| {name} | {distance:.3f} | {on_mode:.1%} | {shares.min():.1%} | {shares.max():.1%} |"


def main(selectors: list[str]) -> None:
    """Print the table."""
    measures: dict[str, Digits | Ring] = {}
    print(HEADER)
    for selector in selectors:
        run = select(selector, runs_folder(), with_checkpoint=True)
        recipe = recipes.load(Path(run.recipe))
        kind = recipe.data["kind"]
        if kind not in measures:
            data = build.data(recipe, torch.device("cpu"))
            measures[kind] = measure = {"digits": Digits, "mixtures": Ring}[kind](data)
            noise = torch.randn(measure.real.shape, generator=torch.Generator().manual_seed(0))
            print(measure.row(f"{kind}: real, held out", measure.real))
            print(measure.row(f"{kind}: floor, training data", measure.train))
            print(measure.row(f"{kind}: noise of the data's standard deviation", noise * measure.train.std()))
        trained, now = weights.load(run, torch.device("cpu")), status.read(run)
        for steps in measures[kind].steps[trained.sampler]:
            lowest, mid = weights.sigma_lowest(trained.recipe), trained.recipe.path.sigma_mid
            sigmas = default_sigmas(trained.model, trained.sampler, steps, lowest, mid)
            x = draw(trained.model, trained.sampler, measures[kind].n, sigmas)
            name = f"`{recipe.name}`, {steps} step{'s' if steps > 1 else ''}"
            print(measures[kind].row(name + (", diverged" if now["state"] == "diverged" else ""), x))


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))
