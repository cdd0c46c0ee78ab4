"""The checks of plug-ins: the project's own objectives pass them, and each notices what it is there for."""

import importlib

import pytest
import torch

from cmbench.contracts import Terms
from cmbench.equations import timesteps
from cmbench.objectives import ct
from cmbench.recipe import component_names
from cmbench.testing import check_objective

OWN = [
    (kind, path)
    for kind in component_names("objectives")
    for path in importlib.import_module(f"cmbench.objectives.{kind}").Objective.paths
]


@pytest.mark.parametrize(("kind", "path"), OWN)
def test_the_projects_own_pass(kind, path):
    module = importlib.import_module(f"cmbench.objectives.{kind}")
    check_objective(module.Objective, module.Config(), path)


def changed(terms: Terms, **values) -> Terms:
    return Terms(**{**vars(terms), **values})


class NoEdges(ct.Objective):
    profile_edges = None

    def __getattribute__(self, name):
        if name == "profile_edges":
            raise AttributeError(name)
        return super().__getattribute__(name)


class OwnDraws(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        torch.rand(1)
        return super().loss(model, x_0, labels, step, random)


class OwnMasks(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        t = model.time(torch.ones(len(x_0), dtype=x_0.dtype))
        model(x_0, t, labels)
        return super().loss(model, x_0, labels, step, random)


class SameDraws(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        return super().loss(model, x_0, labels, step, type(random)(random.device, 0, 0))


class NoGradient(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, total=terms.total.detach().requires_grad_())


class GradientEverywhere(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, weight=terms.weight.clone().requires_grad_())


class Coupled(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, loss=terms.loss - terms.loss.mean())


class Masking(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, total=terms.total.nan_to_num())


class Float32(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, total=terms.total.float())


class Descending(ct.Objective):
    def profile_edges(self, bins):
        return timesteps.log_edges(bins, 0.002, 80.0).flip(0)


class Remembering(ct.Objective):
    seen = 0

    def loss(self, model, x_0, labels, step, random):
        self.seen += 1
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, total=terms.total * (1 + self.seen % 5))


class PastDraw(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        u = torch.rand(len(x_0), generator=random.generator("own"), dtype=x_0.dtype)
        return changed(terms, total=terms.total * (1 + u[0]))


class OverTheBatch(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        return changed(terms, total=terms.total / terms.loss.square().mean().sqrt())


class OwnGradient(ct.Objective):
    """Each part has the right value, and a gradient that depends on the size of the part."""

    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        total = terms.total.detach() + (terms.total - terms.total.detach()) * len(x_0)
        return changed(terms, total=total)


class Paired(ct.Objective):
    """Every second sample counts with the one before it, which is at hand if parts keep pairs together."""

    def loss(self, model, x_0, labels, step, random):
        terms = super().loss(model, x_0, labels, step, random)
        apart = (x_0[0::2] - x_0[1::2]).square().mean()
        return changed(terms, total=terms.total + apart * next(model.parameters()).sum())


class InPairs(Paired):
    group = 2


def test_parts_keep_groups_together():
    check_objective(InPairs, ct.Config())
    with pytest.raises(RuntimeError, match="must match the size"):
        check_objective(Paired, ct.Config())


BROKEN = {
    NoEdges: "it lacks profile_edges",
    OwnDraws: "leaves torch's generator",
    SameDraws: "another seed or step",
    OwnMasks: "leaves torch's generator|different dropout masks",
    NoGradient: "no gradient reaches",
    GradientEverywhere: "weight carries a gradient",
    Coupled: "the losses of",
    Masking: "does not show in total",
    Float32: "total is torch.float32",
    Descending: "do not ascend",
    Remembering: "its loss differs",
    PastDraw: r"cannot take a part of a batch.*allowed: random.draw\(\"own\", n, draw\)",
    OverTheBatch: "its total is not the mean",
    OwnGradient: "the gradient of .* is not the mean",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda cls: cls.__name__)
def test_what_is_broken_is_named(broken):
    with pytest.raises(AssertionError, match=BROKEN[broken]):
        check_objective(broken, ct.Config())
