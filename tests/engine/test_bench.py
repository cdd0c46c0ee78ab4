"""What `cmbench bench` measures, on work whose seconds, bytes and operations are known."""

import tempfile
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cmbench import consent
from cmbench.engine import compute, trainer
from cmbench.engine.bench import cost, memory, passes, steps, timing
from cmbench.engine.bench.measure import measure
from cmbench.engine.bench.phases import Stopwatch, heard
from cmbench.engine.bench.subject import Asked, Subject, recorder
from cmbench.engine.loop import Metrics
from cmbench.engine.phases import unheard
from cmbench.engine.ranks import Ranks
from cmbench.errors import CmbenchError
from cmbench.randomness import StepRandom
from cmbench.tables import Train

CPU = torch.device("cpu")
TRIGFLOW = "path={kind='trigflow', boundary='zero'}"


def built(*overrides: str) -> trainer.Trainer:
    return trainer.from_file("tiny.toml", overrides)


def told(*overrides: str, steps_taken: int = 1) -> list[str]:
    """What a listener hears of the last of so many steps, without what belongs to none."""
    subject, names = Subject(built(*overrides)), list[str]()
    for _ in range(steps_taken):
        names.clear()
        subject._listened(names.append)
    assert names[-1] == ""
    return [name for name in names if name]


def test_works_take_turns_and_are_compared_within_a_round():
    """The machine is three times slower in the second round, which the ratio does not show."""
    now, done = 0.0, list[str]()

    def work(name: str, seconds: float) -> None:
        nonlocal now
        now += seconds * (3 if len(done) > 5 else 1)
        done.append(name)

    works = {"long": lambda: work("long", 4.0), "short": lambda: work("short", 1.0)}
    found = timing.interleaved(works, lambda n: n < 2, CPU, times=2, clock=lambda: now)
    assert done == ["long", "short"] * 5
    assert found == {"long": [8.0, 24.0], "short": [2.0, 6.0]}
    assert timing.ratio(found["long"], found["short"]) == 4.0


def test_phases_of_a_step_follow_each_other_without_a_gap(home, put_back, monkeypatch):
    """With a clock that ticks at each look, every phase takes one second each time that it begins."""
    subject, ticks = Subject(built()), count()
    monkeypatch.setattr(Stopwatch, "_now", lambda self: float(next(ticks)))
    watch, names = Stopwatch(CPU), list[str]()

    def hear(name: str) -> None:
        names.append(name)
        watch(name)

    subject._listened(hear)
    assert watch.taken() == {name: float(names.count(name)) for name in names if name}
    assert watch.taken() == {}


def test_each_pass_is_told_by_who_makes_it(home, put_back, teacher):
    before = ["data", "optimiser"]
    after = ["backward", "diagnostics", "optimiser", "averages", "diagnostics", "log", "rows", "profiles"]
    ct = ["loss", "target", "loss", "student", "loss"]
    assert told() == [*before, *ct, *after]
    assert told("objective.kind=ict") == [*before, *ct, *after]
    cd = told("objective.kind=cd", "teacher.kind=run", f"teacher.run={teacher.name}")
    assert [name for name in cd if name in ("teacher", "target", "student")] == [
        "teacher",
        "teacher",
        "target",
        "student",
    ]
    parts = told("train.micro_batch_size=4")
    assert parts[2:14] == [*ct, "backward", *ct, "backward"]


def test_a_tangent_in_one_pass_with_the_student_is_told_as_such(home, put_back):
    sct = ["objective={kind='sct'}", TRIGFLOW]
    names = told(*sct)
    assert names[2:5] == ["loss", "student and tangent", "loss"]
    assert names[6:10] == ["diagnostics", "optimiser", "anatomy", "optimiser"]
    names = told("objective={kind='sct', tangent_method='jvp'}", TRIGFLOW)
    assert [name for name in names if name in ("student", "tangent")] == ["tangent", "student"]
    assert "anatomy" not in told(*sct, "profile.anatomy_every=0")
    assert "profiles" not in told(*sct, "profile.every=0")


def test_who_listens_changes_nothing_and_leaves_nothing(home, put_back):
    heard_of, alone = built(), built()
    with heard(heard_of, lambda name: None):
        of_heard = steps.taken(steps.in_memory(heard_of))
        for _ in range(3):
            next(of_heard)
    of_alone = steps.taken(steps.in_memory(alone))
    for _ in range(3):
        next(of_alone)
    for mine, theirs in zip(heard_of.state.model.parameters(), alone.state.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert heard_of.state.phase is unheard
    for module in heard_of.state.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_bytes_are_those_of_tensors_that_live_at_a_time():
    x = torch.ones(1000)
    with memory.peaks(CPU) as peaks:
        peaks("one")
        y = x * 2  # 4,000 bytes
        y.add_(1)
        z = y.view(10, 100)
        peaks("two")
        del y
        a = torch.cat([x, x])  # 8,000 more; the view keeps the first
        del a, z
        peaks("three")
        b = x + 1
        peaks("")
    assert b.nbytes == 4000
    assert peaks.bytes == {"one": 4000, "two": 12000, "three": 4000}


def test_a_step_needs_more_memory_with_more_samples_and_no_more_in_more_parts(home, put_back):
    found = {}
    for size, micro in ((64, 0), (128, 0), (128, 64)):
        subject = Subject(built(f"train.batch_size={size}", f"train.micro_batch_size={micro}"))
        subject.step()
        found[size, micro] = subject.peaks()
    (_, small), (_, large), (_, parts) = found.values()
    assert large["student"] == pytest.approx(2 * small["student"], rel=0.1)
    assert parts["student"] < small["student"] * 1.3
    assert len({kept for kept, _ in found.values()}) == 1


def test_operations_are_those_of_the_passes(home, put_back):
    """A target is one forward pass more; what the network passes back to its input is not computed."""
    of_denoise, of_ict = (Subject(built(f"objective.kind={kind}")) for kind in ("denoise", "ict"))
    one = 8 * compute._flops(of_denoise.built.state.model)
    denoise, ict = of_denoise.operations(), of_ict.operations()
    assert ict - denoise == one
    assert 2 * one < denoise <= 3 * one
    data, random = of_denoise.built.data, StepRandom(CPU, 0, 0)
    of_passes = denoise - compute.operations(lambda: data.batch(8, random))
    model = of_ict.built.state.model.train()
    x, t = torch.zeros(8, 2), torch.full((8,), 0.5)
    assert compute.operations(lambda: passes.bare(model, x, t)) == of_passes
    assert compute.operations(lambda: passes.bare(model, x, t, size=3)) == of_passes


def test_a_product_does_what_it_counts():
    multiply, operations = passes.product(CPU, Train(precision="bfloat16"))
    assert multiply().dtype == torch.bfloat16
    assert compute.operations(multiply) == operations


def test_what_is_not_done_at_each_step_is_shared_out(home, put_back):
    """Rows every 3 steps and profiles every 4, as in the recipe; a look at the tangent every 20."""
    made = built("objective={kind='sct'}", TRIGFLOW, "profile.anatomy_every=20")
    of_step = {
        "data": 1.0,
        "backward": 4.0,
        "anatomy": 40.0,
        "log": 3.0,
        "rows": 6.0,
        "profiles": 8.0,
        "diagnostics": 0.5,
    }
    subject = SimpleNamespace(built=made, phases=[of_step] * 3, at_once=2, of_product=100, compiling=9.0)
    seconds = {"step": [10.0, 12.0, 14.0], "bare": [2.0, 2.0, 4.0], "product": [4.0, 4.0, 4.0]}
    amounts = cost.Amounts(flop=27.0, kept=7, peaks={"backward": 30, "anatomy": 20, "diagnostics": 10}, status=0.5)
    found = cost.of(subject, seconds, amounts)
    assert (found.seconds, found.images_per_s, found.bare) == (6 + 3, 8 / 9, 1.0)
    assert found.ratio == 8.0  # of 8, 9 and 5
    assert found.product == 50.0
    assert found.share == pytest.approx(27 / 9 / 50)
    assert {phase.name: (phase.seconds, phase.bytes) for phase in found.phases} == {
        "data": (1.0, 0),
        "backward": (4.0, 30),
        "diagnostics": (0.5 + 2 + 1, 20),
        "recording": (2 + 2 + 0.5 * 9, None),
    }
    assert (found.peak, found.compiling) == (37, 9.0)


def test_rows_are_written_as_in_training_and_to_a_temporary_folder(home, put_back, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))
    (home / "tmp").mkdir()
    made = built()
    with recorder(made) as written:
        subject = Subject(made, written)
        for _ in range(2):
            subject.phases_of_step()
        rows = written.run.metrics.read_text().splitlines()
        assert subject.status() > 0
    assert len([row for row in rows if '"loss"' in row]) == 2
    assert list((home / "tmp").iterdir()) == []
    assert Subject(made).status() == 0


def test_steps_in_memory_have_neither_rows_nor_an_end(home, put_back):
    made, events = built("train.steps=2"), list[object]()
    several = steps.taken(steps.in_memory(made, rows_every=0), events.append)
    for _ in range(5):
        next(several)
    assert events == []
    assert made.state.step == 5
    next(steps.taken(steps.in_memory(made, rows_every=1, batch_size=4), events.append))
    assert [isinstance(event, Metrics) for event in events] == [True, False]


def test_two_recipes_in_turn(home, put_back):
    both = [Asked(Path("tiny.toml"), changes) for changes in ((), ("train.batch_size=16",))]
    found = measure(both, 2, Ranks())
    assert (found.rounds, found.ranks, len(found.costs)) == (2, 1, 2)
    first, second = found.costs
    assert second.flop == 2 * first.flop
    assert found.ratio is not None
    assert found.ratios[0] == 1
    assert len(found.ratios) == 2
    assert first.alone is None
    assert {phase.name for phase in first.phases} >= {"data", "student", "target", "backward", "averages", "recording"}


def test_seconds_are_those_of_the_given_clock(home, put_back):
    """A clock that ticks at each look: every work takes one second, and a phase one each time that it begins."""
    ticks = count()
    found = measure([Asked(Path("tiny.toml"), ("log.every=2",))] * 2, 3, Ranks(), lambda: float(next(ticks)))
    assert found.ratios == [1, 1]
    (own, _), rare = found.costs, 1 / 2  # the log
    assert (own.seconds, own.bare, own.ratio) == (1 + rare, 1, 1 + rare)
    seconds = {phase.name: phase.seconds for phase in own.phases}
    assert (seconds["data"], seconds["backward"], seconds["optimiser"]) == (1, 1, 2)


def test_a_step_that_fails_is_one_line(home, put_back):
    with pytest.raises(CmbenchError, match=r"^tiny: the training step fails: the (loss|gradient) is not finite"):
        measure([Asked(Path("tiny.toml"), ("optimizer.lr=1e30",))], 3, Ranks())


def test_data_that_are_not_here_are_noise_and_said(home, put_back):
    changes = (f"data={{kind='images', root='{home}/none', name='mnist'}}", "network={kind='unet', width=8}")
    consent.typed(changes)
    (own,) = measure([Asked(Path("tiny.toml"), (*changes, "train.batch_size=2"))], 1, Ranks()).costs
    assert "noise of shape [1, 28, 28] is used instead" in own.differs[0]


def test_phases_are_those_of_a_step_after_another(home, put_back):
    """The matrix product before it fills the caches with its own: a step right after it takes longer."""
    subject = Subject(built())
    before = subject.built.state.step
    subject.works()["phases"]()
    assert subject.built.state.step == before + 2
    assert len(subject.phases) == 1
