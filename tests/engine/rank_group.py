"""What one of several ranks does in a test: `torchrun rank_group.py FOLDER`. Rank 0 writes what came out as JSON."""

import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import distributed

from cmbench.contracts import Terms
from cmbench.engine import loop, passes, ranks, together, trainer
from cmbench.engine.meters import Means
from cmbench.engine.phases import unheard
from cmbench.engine.ranks import Ranks
from cmbench.engine.trainer import Trainer
from cmbench.measures import row_key
from cmbench.model import Model
from cmbench.objectives import ct
from cmbench.randomness import StepRandom

B = 11  # shares of 5 and 6
CPU = torch.device("cpu")
QUIET = [
    "evaluate.every=25",
    "snapshot.every=25",
    "log.every=3",
    "profile.every=4",
    "train.steps=50",
    "train.batch_size=7",
]
TRIGFLOW = ["path.kind=trigflow", "profile.anatomy_every=2", "profile.anatomy_n=5"]
SHORT = ["train.steps=20", "evaluate.every=10", "snapshot.every=10"]  # where rounding grows faster from step to step
RUNS = {
    "ct": [],
    "clipped": ["optimizer.clip=0.05", "network.class_conditional=true", "train.micro_batch_size=2"],
    "sct": [*TRIGFLOW, "objective={kind='sct'}"],
    "edm2": [
        "data.kind=digits",
        "network={kind='edm2', width=8, multipliers=[1, 2], depth=1, attention=[], log_variance_channels=8}",
        "objective={kind='denoise', log_variance='network'}",
        *SHORT,
    ],
    "edm2_ct": [
        "data.kind=digits",
        "network={kind='edm2', width=8, multipliers=[1, 2], depth=1, attention=[], log_variance_channels=8}",
        *SHORT,
    ],
    "own": ["objective={kind='own_ranks:Uneven'}"],
    "cd": ["objective={kind='cd'}", "teacher.kind=oracle", "evaluate.self_error_n=7"],
}
Found = dict[str, torch.Tensor]


def gradients(kind: str, settings: dict, size: int, together_with: Ranks | None) -> Found:
    """Return the total and the gradients of a batch in float64, of all ranks or of this process alone."""
    import test_every_objective as every

    own = together_with or Ranks()
    objective, model = every.with_dropout(kind, 0.0, classes=3, **settings)
    parameters = [p for module in (model, objective) for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    state = SimpleNamespace(model=model, objective=objective, teacher=None, step=30, optimizer=optimizer, phase=unheard)
    part = own.part(B, objective)
    if together_with:
        own.wrap(model)
    x_0 = 0.5 * torch.randn(B, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    random = StepRandom(CPU, 0, 30, part=part)
    terms, _ = passes.backward(state, random.rows(x_0), random.rows(torch.arange(B) % 3), random, size, own)
    total = own.added_up(objective, terms.total)
    named = [*model.named_parameters(), *objective.named_parameters(prefix="own")]
    return {"total": total.detach(), **{name: p.grad.clone() for name, p in named if p.grad is not None}}


def difference(found: Found, wanted: Found) -> float:
    """The largest difference, relative to the largest number of its tensor."""
    assert found.keys() == wanted.keys()
    errors = [(found[k] - v).abs().max() / v.abs().max().clamp_min(1e-300) for k, v in wanted.items() if v.numel()]
    return float(torch.stack(errors).max())


def of_every_objective(group: Ranks) -> dict[str, float]:
    import test_every_objective as every

    cases = {p.id: p.values for p in every.METHODS}
    whole = {name: gradients(*case, B, None) for name, case in cases.items()}
    found = {
        f"{name}, {size} at once": difference(gradients(*case, size, group), whole[name])
        for name, case in cases.items()
        for size in (B, 2)
    }
    in_four = {name: gradients(*case, 3, None) for name, case in cases.items()}
    return found | {f"{name}, one rank in four parts": difference(in_four[name], whole[name]) for name in cases}


@contextlib.contextmanager
def mutant(name: str, group: Ranks) -> Iterator[None]:
    """Break one thing that ranks must do."""

    def own_noise(self, like, stream="noise"):
        return torch.randn(
            like.shape, dtype=like.dtype, generator=self.batch.generator(f"{stream} {group.member.rank}")
        )

    def mean(state, bucket):
        work = distributed.all_reduce(bucket.buffer().div_(group.size), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    add, part = Means.add, Ranks.part

    def overlapping(self, n, objective=None):
        found = part(self, n, objective)
        return replace(found, start=found.start - 1, stop=found.stop - 1) if self.member.rank == 1 else found

    unset = property(lambda self: None, lambda self, value: None)
    broken = {
        "the objective's own gradients are not sent": (Ranks, "added_up", lambda self, objective, total: total),
        "the gradients of the dual pass are not sent": (Model, "recorded_by", unset),
        "a rank draws its own noise": (StepRandom, "noise", own_noise),
        "gradients are averaged": (ranks, "_added_up", mean),
        "a mean of means": (Means, "add", lambda self, values, share=1.0: add(self, values)),
        "a sample is drawn twice": (Ranks, "part", overlapping),
    }
    with mock.patch.object(*broken[name], create=name == "the gradients of the dual pass are not sent"):
        yield


def built(overrides: list[str], own: Ranks) -> Trainer:
    made = trainer.from_file(Path("tiny.toml"), [*QUIET, *overrides])
    made.ranks = own
    return made


def numbers(row: object) -> torch.Tensor:
    values = row if isinstance(row, list) else [row]
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float64)


def trained(made: Trainer) -> tuple[Found, list[tuple[str, int, Found]]]:
    """Train to the end, and return weights with averages, and the numbers of each event."""
    events = []
    for event in loop.train(made):
        if isinstance(event, loop.Metrics | loop.Profiled):
            values = {key: numbers(row) for key, row in event.values.items() if key != "images_per_s"}
            events.append((type(event).__name__, event.step, values))
        if isinstance(event, loop.Evaluated):
            values = {key: numbers(row) for key, row in {**event.values, **event.profile}.items()}
            events.append(("Evaluated", event.step, values))
        if isinstance(event, loop.Snapshotted):
            drawn = {str(n): x for n, x in event.samples.items()}
            drawn |= {k: x for k, x in dataclasses.asdict(event.film).items() if x is not None} if event.film else {}
            events.append(("Snapshotted", event.step, {name: x.double().flatten() for name, x in drawn.items()}))
        if isinstance(event, loop.Diverged):
            row = {"times": numbers(event.times), "norm": numbers(event.tangent_norm)}
            events.append((event.what, event.step, row))
    groups = made.state.groups()
    kept = {
        f"{name}.{key}": v for name, own in groups.items() for key, v in own.items() if name not in ("means", "profile")
    }
    return kept, events


def furthest(mine: tuple, theirs: tuple) -> dict[str, float]:
    """The largest differences of weights and of rows, where a number below 1 counts as 1."""
    weights, events = theirs
    assert [event[:2] for event in mine[1]] == [event[:2] for event in events], (mine[1], events)
    assert mine[0].keys() == weights.keys()
    of_rows = [0.0]
    for (_, _, row), (_, _, wanted) in zip(mine[1], events, strict=True):
        assert row.keys() == wanted.keys(), row.keys() ^ wanted.keys()
        for key, value in wanted.items():
            assert torch.equal(row[key].isnan(), value.isnan()), key
            of_rows.append(float(((row[key] - value).abs() / value.abs().clamp_min(1.0)).nan_to_num().max()))
    return {"weights": max(float((mine[0][k] - v).abs().max()) for k, v in weights.items()), "rows": max(of_rows)}


def as_one(overrides: list[str], group: Ranks) -> dict[str, float]:
    """Train on all ranks, and on this one alone."""
    made = built(overrides, group)
    together.begin(made)
    found, wanted = trained(made), trained(built(overrides, Ranks()))
    if not group.leads:  # it draws its share, and measures no samples
        of_samples = {row_key(name, k) for name in made.recipe.evaluate.metrics for k in made.recipe.evaluate.steps}
        for *_, row in wanted[1]:
            for key in of_samples & row.keys():
                del row[key]
    return furthest(found, wanted)


def evaluated_apart(group: Ranks) -> float:
    """The largest difference of an evaluation, a film and samples before the first step."""
    made, alone = built(RUNS["ct"], group), built(RUNS["ct"], Ranks())
    found, wanted = (
        {**{key: numbers(v) for key, v in m.evaluate().items()}, "true": numbers(m.true_error().bins), "f": m.film().f}
        for m in (made, alone)
    )
    return max(float((found[key] - wanted[key]).abs().max()) for key in found)


@contextlib.contextmanager
def spoilt(sample: int) -> Iterator[None]:
    """Let one sample of the batch of step 3 be nan."""
    loss = ct.Objective.loss

    def broken(self, model, x_0, labels, step, random) -> Terms:
        terms = loss(self, model, x_0, labels, step, random)
        start, stop = (random.part.start, random.part.stop) if random.part else (0, len(x_0))
        if step != 3 or not start <= sample < stop:
            return terms
        bad = terms.loss.clone()
        bad[sample - start] = math.nan
        return dataclasses.replace(terms, total=terms.total * bad.mean(), loss=bad)

    with mock.patch.object(ct.Objective, "loss", broken):
        yield


def sums_of(made: Trainer) -> Found:
    return {f"{n} {k}": v.clone() for n in ("means", "profile") for k, v in getattr(made.state, n).sums.items()}


def saved(group: Ranks) -> dict[str, object]:
    """Save in the middle of a row, and load on as many ranks and on one: its own sums, and those of all."""
    made = built([], group)
    together.begin(made)
    for event in loop.train(made):
        if isinstance(event, loop.Stepped) and event.step == 7:
            break
    groups, mine = made.state.groups(group), sums_of(made)
    again, alone = built([], group), built([], Ranks())
    for other in (again, alone):
        other.state.load(7, groups)
        other.state.share(other.ranks)
    whole = {f"{n} {k}": v.sum(dim=0) for n in ("means", "profile") for k, v in groups[n].items()}
    same = all(torch.equal(sums_of(again)[key], value) for key, value in mine.items())
    rows = {tuple(v.shape)[:1] for n in ("means", "profile") for v in groups[n].values()} == {(group.size,)}
    fits = sums_of(alone).keys() == whole.keys() and all(torch.equal(sums_of(alone)[k], v) for k, v in whole.items())
    return {"same": group.all_told(same) == [True] * group.size, "rows": rows, "sum": fits and len(whole) > 5}


def found_by_the_check(name: str, overrides: list[str], group: Ranks) -> str:
    made = built(overrides, group)
    try:
        with mutant(name, group) if name else contextlib.nullcontext():
            together.begin(made)
    except Exception as error:
        return str(error)
    return ""


def main() -> None:
    group = ranks.gather()
    assert ranks.current() is group
    assert group.all_told({"rank": group.member.rank}) == [{"rank": k} for k in range(group.size)]
    found: dict[str, object] = {"size": group.size}
    found["gradients"] = of_every_objective(group)
    found["runs"] = {name: as_one(overrides, group) for name, overrides in RUNS.items()}
    if group.size == 2:
        sct = ("sct", {}, B)
        ours, of_ct = gradients(*sct, None), gradients("ct", {}, B, None)
        found["mutants"] = mutants = {}
        for name, case, wanted in (
            ("the objective's own gradients are not sent", sct, ours),
            ("the gradients of the dual pass are not sent", sct, ours),
            ("gradients are averaged", sct, ours),
            ("a rank draws its own noise", ("ct", {}, B), of_ct),
        ):
            with mutant(name, group):
                mutants[name] = difference(gradients(*case, group), wanted)
        with mutant("a mean of means", group):
            mutants["a mean of means"] = as_one(RUNS["ct"], group)["rows"]
        with mutant("a sample is drawn twice", group):
            mutants["a sample is drawn twice"] = evaluated_apart(group)
        with spoilt(5):
            found["diverged"] = as_one(RUNS["ct"], group)
        found["saved"] = saved(group)
        found["checked"] = {
            "own": found_by_the_check("the objective's own gradients are not sent", RUNS["sct"], group),
            "dual": found_by_the_check("the gradients of the dual pass are not sent", RUNS["sct"], group),
            "past the model": found_by_the_check("", ["objective={kind='own_ranks:Past'}"], group),
            "dropout": found_by_the_check("", ["network.dropout=0.5"], group),
        }
    if group.leads:
        Path(sys.argv[1]).write_text(json.dumps(found))
    group.close()
    os._exit(0)  # as the command line does


if __name__ == "__main__":
    from cmbench import consent

    consent.typed(["objective={kind='own_ranks:Uneven'}"])
    consent.typed(["objective={kind='own_ranks:Past'}"])
    main()
