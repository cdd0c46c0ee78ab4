"""Parts of a batch: their rows, and that training in parts is training on the whole batch."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from fake_runs import read_rows

from cmbench import consent
from cmbench.contracts import Terms
from cmbench.data import mixtures
from cmbench.engine import build, loop, passes, runner, trainer
from cmbench.engine.trainer import Trainer
from cmbench.errors import UsageError
from cmbench.objectives import ct
from cmbench.randomness import Part, StepRandom
from cmbench.recipe import load

CPU = torch.device("cpu")
MICRO = "train.micro_batch_size=3"
UNET = ["data.kind=digits", "network={kind='unet', width=8, multipliers=[1], depth=1}"]
TRIGFLOW = ["path.kind=trigflow", "profile.anatomy_every=2", "profile.anatomy_n=7"]
LINEAR = ["path.kind=linear", "profile.anatomy_every=2", "profile.anatomy_n=2"]


def built(home: Path, *overrides: str) -> Trainer:
    always = ["train.steps=5", "log.every=2", "profile.every=2", "evaluate.every=0", "snapshot.every=0"]
    return trainer.from_file(home / "tiny.toml", [*always, *overrides])


@pytest.mark.parametrize(
    ("n", "size", "ends"),
    [
        (8, 8, [8]),
        (8, 20, [8]),
        (8, 4, [4, 8]),
        (8, 3, [3, 6, 8]),
        (7, 6, [6, 7]),
        (3, 1, [1, 2, 3]),
    ],
)
def test_parts_are_equal_but_for_the_last(n, size, ends):
    parts = passes.split(n, size)
    assert [part.stop for part in parts] == ends
    assert [part.start for part in parts] == [0, *ends[:-1]]
    assert {part.whole for part in parts} == {n}
    assert sum(part.share for part in parts) == pytest.approx(1)


class Unaware(mixtures.Data):
    """Knows nothing of parts, and draws by a generator."""

    draws_parts = False

    def batch(self, n, random):
        assert random.part is None
        return self.mixture.sample(n, random.generator("data"))


@pytest.mark.parametrize("cls", [mixtures.Data, Unaware])
def test_a_part_of_the_data_is_that_of_the_whole_batch(cls):
    data, random = cls(mixtures.Config(), CPU), StepRandom(CPU, 1, 2)
    x_0, labels = passes.drawn(data, 8, random)
    for part in (Part(0, 3, 8), Part(3, 8, 8)):
        mine, own = passes.drawn(data, 8, dataclasses.replace(random, part=part))
        assert torch.equal(mine, x_0[part.rows])
        assert torch.equal(own, labels[part.rows])


def assert_near(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Within a millionth of the largest number."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        atol = 1e-6 * max(1.0, float(value.nan_to_num().abs().max()))
        torch.testing.assert_close(
            found[name], value, rtol=1e-6, atol=atol, equal_nan=True, msg=lambda m, name=name: f"{name}: {m}"
        )


def numbers(row: list[float | None]) -> torch.Tensor:
    return torch.tensor([math.nan if value is None else value for value in row], dtype=torch.float64)


MEASURED = {"loss", "unweighted_loss", "weight", "tangent_norm", "grad_norm"}  # the others, such as N, are exact
KINDS = {
    "ct": [],
    "digits": UNET,
    "augmented": [
        "data={kind='digits', augment=0.5}",
        "network={kind='ddpmpp', width=8, multipliers=[1], depth=1, attention=[], augment_labels=9}",
    ],
    "labels": ["network.class_conditional=true", "objective={kind='ict'}", "optimizer.clip=0.5"],
    "sct": [*TRIGFLOW, "objective={kind='sct'}", "network.class_conditional=true"],
    "meanflow": [*LINEAR, "objective={kind='meanflow'}"],
    "cd": ["objective={kind='cd'}", "teacher.kind=oracle"],
}


@pytest.mark.parametrize("micro", [1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_training_in_parts_is_training_on_the_whole_batch(home, kind, micro):
    """Weights, averages, rows of metrics and of the profile, the tangent's parts among them."""
    whole, parts = (built(home, *KINDS[kind], f"train.micro_batch_size={size}") for size in (0, micro))
    events = [list(loop.train(one)) for one in (whole, parts)]
    for group, tensors in whole.state.groups().items():
        if group in ("model", "objective") or group.startswith("ema"):
            assert_near(parts.state.groups()[group], tensors)
    for event, wanted in zip(events[1], events[0], strict=True):
        assert type(event) is type(wanted)
        if isinstance(event, loop.Metrics):
            row = {name: value for name, value in event.values.items() if name != "images_per_s"}
            assert row == pytest.approx({name: wanted.values[name] for name in row}, rel=1e-6)
            assert {name for name, value in row.items() if value != wanted.values[name]} <= MEASURED
        if isinstance(event, loop.Profiled):
            assert_near(*({name: numbers(row) for name, row in own.values.items()} for own in (event, wanted)))
            assert sum(event.values.get("anatomy_count", [0])) == {"sct": 7, "meanflow": 2}.get(kind, 0)


def test_a_micro_batch_of_the_whole_batch_is_the_same_to_the_bit(home):
    whole, same = built(home), built(home, "train.micro_batch_size=8")
    for one in (whole, same):
        list(loop.train(one))
    for group, tensors in whole.state.groups().items():
        assert all(torch.equal(same.state.groups()[group][name], value) for name, value in tensors.items())


def test_no_more_samples_than_asked_go_through_the_network_at_once(home):
    one, seen = built(home, *TRIGFLOW, "objective={kind='sct'}", MICRO), []
    one.state.model.F_theta.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    list(loop.train(one))
    assert set(seen) == {3, 2, 1}  # 8 is 3 + 3 + 2, and 7 samples of the anatomy are 3 + 3 + 1


@pytest.mark.parametrize(("what", "called"), [("loss", "loss"), ("gradient", "gradient"), ("weights", "gradient")])
def test_a_part_that_is_not_finite_stops_the_step_and_is_named(home, monkeypatch, what, called):
    """Sample 4 of the batch, which is the second of its part."""
    loss, times = ct.Objective.loss, []

    def broken(self: ct.Objective, model, x_0, labels, step: int, random: StepRandom) -> Terms:
        terms = loss(self, model, x_0, labels, step, random)
        if step != 3 or random.part.start != 3:
            return terms
        times.append(terms.t[1].item())
        if what == "loss":
            spoilt = terms.loss.clone()
            spoilt[1] = float("nan")
            return dataclasses.replace(terms, total=terms.total * spoilt.mean(), loss=spoilt)
        of = model.last_F[1] if what == "gradient" else next(p for p in model.parameters() if p.requires_grad)
        return dataclasses.replace(terms, total=terms.total + (of - of.detach()).abs().sum().sqrt())

    monkeypatch.setattr(ct.Objective, "loss", broken)
    one, before = built(home, MICRO), {}
    for event in loop.train(one):
        if isinstance(event, loop.Stepped):
            before = {g: {k: v.clone() for k, v in own.items()} for g, own in one.state.groups().items()}
    assert isinstance(event, loop.Diverged)
    assert (event.step, event.what) == (3, called)
    assert event.times == ([] if what == "weights" else times)
    for group, tensors in one.state.groups().items():
        assert all(torch.equal(before[group][name], value) for name, value in tensors.items()), group


OWN = """
import torch
from cmbench.objectives import ct

Config = ct.Config

class Drawing(ct.Objective):
    def loss(self, model, x_0, labels, step, random):
        torch.rand(len(x_0), generator=random.generator("own"))
        return super().loss(model, x_0, labels, step, random)

class Pairs(ct.Objective):
    group = 2
"""


@pytest.fixture
def own(home):
    (home / "own_passes.py").write_text(OWN)
    return home


def test_an_objective_that_draws_past_draw_is_refused_in_one_line(own, cmbench):
    own_kind = ["--set", "objective={kind='own_passes:Drawing'}"]
    outcome = cmbench("run", "tiny.toml", *own_kind, "--set", MICRO, "--foreground")
    assert outcome.code == 2
    (line,) = (line for line in (outcome.out + outcome.err).splitlines() if "random.generator" in line)
    assert 'random.generator("own"): found for a part of a batch (several ranks or train.micro_batch_size)' in line
    assert 'allowed: random.draw("own", n, draw)' in line
    assert "Traceback" not in outcome.out + outcome.err
    assert cmbench("run", "tiny.toml", *own_kind, "--foreground").code == 0


def test_parts_keep_groups_together(own):
    def complete(*overrides: str) -> object:
        overrides = ("objective={kind='own_passes:Pairs'}", *overrides)
        consent.typed(overrides)
        return build.complete(load(Path("tiny.toml"), overrides), "tiny.toml")

    complete()
    complete("train.micro_batch_size=4")
    says = "tiny.toml: train.micro_batch_size: found 3, allowed for objective 'own_passes:Pairs': multiples of 2"
    with pytest.raises(UsageError, match=says):
        complete(MICRO)


def test_a_run_of_before_has_no_parts(home, put_back):
    """A recipe in a run's directory without the key is one with 0."""
    made = runner.create(consent.named(home / "tiny.toml", []), None, ["cmbench"])
    for _ in made.records():
        if made.trainer.state.step == 3:
            made.request_stop("test")
    text = made.run.recipe.read_text()
    assert "micro_batch_size = 0\n" in text
    made.run.recipe.write_text(text.replace("micro_batch_size = 0\n", ""))
    again = runner.resume(made.run)
    assert again.trainer.recipe.train.at_once == 8
    list(again.records())
    assert read_rows(made.run.metrics)[-1]["step"] == 12
