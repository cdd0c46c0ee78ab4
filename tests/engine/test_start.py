"""First weights from a run: taken over bit for bit, refused where they mean nothing, and their difference reported."""

import shutil

import pytest
import torch
from fake_runs import read_rows
from tiny import DISTILL, TEACHER, set_options

from cmbench import consent
from cmbench.engine import checkpoint, runner, start, trainer, weights
from cmbench.equations.gaussian_path import EDM, TrigFlow
from cmbench.errors import NotFoundError, UsageError
from cmbench.model import Model
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.select import all_runs

CPU = torch.device("cpu")
QUIET = ["log.every=100", "profile.every=0", "snapshot.every=0", "evaluate.every=0", "checkpoint.every=0"]


def begin(home, source, *overrides: str) -> trainer.Trainer:
    return trainer.from_file(home / "tiny.toml", [f"start.run={source.name}", *overrides])


def assert_weights(found: dict, wanted: dict) -> None:
    assert set(found) == set(wanted)
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize(("ema", "group"), [("", "ema_0.5"), ("'0.5'", "ema_0.5"), ("none", "model")])
def test_the_same_function_begins_with_the_same_weights_and_no_error(home, teacher, ema, group):
    built = begin(home, teacher, f"start.ema={ema}")
    wanted = checkpoint.load_group(teacher, 12, group)
    assert_weights(built.state.model.state_dict(), wanted)
    for copy in (built.objective.target, *(average.model for average in built.state.averages)):
        assert_weights(copy.state_dict(), wanted)
    assert built.start.error == 0
    assert all(p.requires_grad for p in built.state.model.parameters())


def test_without_start_the_weights_are_drawn_from_the_seed(home, teacher):
    built = trainer.from_file(home / "tiny.toml")
    assert built.start is None
    wanted = checkpoint.load_group(teacher, 12, "ema_0.5")
    assert not torch.equal(built.state.model.state_dict()["F_theta.input.weight"], wanted["F_theta.input.weight"])


def test_the_source_does_not_follow_the_student(home, teacher):
    built = begin(home, teacher)
    with torch.no_grad():
        for parameter in built.state.model.parameters():
            parameter.zero_()
    assert_weights(built.start.trained.model.state_dict(), checkpoint.load_group(teacher, 12, "ema_0.5"))


def test_a_network_that_is_told_another_time_begins_as_another_function(home, teacher):
    assert begin(home, teacher, "path.c_noise=identity").start.error > 1e-3


def test_a_network_that_is_told_the_same_time_on_another_path_begins_as_the_same_function(home):
    """TrigFlow's t is the angle of the EDM path: only rounding is left."""
    made = runner.create(consent.named(home / "tiny.toml", [*TEACHER, *QUIET, "path.c_noise=angle"]), None, [])
    list(made.records())
    on_trigflow = ["objective={kind='denoise'}", "path.kind=trigflow", "path.scalings=edm"]
    assert 0 < begin(home, made.run, *on_trigflow).start.error < 1e-5
    assert begin(home, made.run, *on_trigflow, "path.c_noise=log").start.error > 1e-3


def test_dropout_may_differ(home, teacher):
    assert begin(home, teacher, "network.dropout=0.3").start.error == 0


@pytest.mark.parametrize(
    ("network", "others"),
    [
        ("adm', head_channels=8", {"dropout": 0.3, "label_dropout": 0.0}),
        ("edm2', head_channels=8", {"dropout": 0.3, "dropout_sizes": [4]}),
    ],
    ids=["adm", "edm2"],
)
def test_all_that_acts_in_training_alone_may_differ(home, network, others):
    """A teacher that has learnt the data without labels too may begin a student that does not, and the other way."""
    left_out = "label_dropout=0.2, " if "adm" in network else ""
    tables = f"kind='{network}, width=8, multipliers=[1, 2], depth=1, attention=[4], class_conditional=true"
    taught = [*TEACHER, *QUIET, "train.steps=1", "data={kind='digits'}", f"network={{{left_out}{tables}}}"]
    made = runner.create(consent.named(home / "tiny.toml", taught), None, [])
    list(made.records())
    own = [f"network.{key}={value}" for key, value in others.items()]
    assert begin(home, made.run, "data={kind='digits'}", f"network={{{tables}}}", *own).start.error == 0


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["network.width=8"], "network.width is 16 there and 8 here"),
        (["network.embedding_scale=2.0"], "network.embedding_scale is 1.0 there and 2.0 here"),
        (["network.class_conditional=true"], "network.class_conditional is False there and True here"),
        (["path.sigma_data=0.4"], "path.sigma_data is 0.5 there and 0.4 here"),
        (
            ["path.kind=trigflow", "path.scalings=trigflow", "objective={kind='continuous'}"],
            "path.scalings is edm there and trigflow here; scalings of another path serve this one too",
        ),
        (
            ["path.kind=linear", "path.scalings=edm", "objective={kind='meanflow'}"],
            "its data's shape or classes, or the number of times that its network takes, differ",
        ),
    ],
    ids=["width", "embedding", "labels", "sigma_data", "scalings", "times"],
)
def test_weights_that_mean_something_else_are_refused_in_one_line(home, teacher, overrides, why):
    with pytest.raises(UsageError) as told:
        trainer.from_file("tiny.toml", [f"start.run={teacher.name}", *overrides])
    assert str(told.value) == (
        f"tiny.toml: start.run: found '{teacher.name}', but {why}; "
        "allowed: the same (dropout may differ), or no [start]"
    )


@pytest.mark.parametrize("data", ["data={kind='mixtures', name='grid'}", "data={kind='mixtures', name='unequal'}"])
def test_weights_for_another_number_of_classes_are_refused(home, conditional, data):
    with pytest.raises(UsageError, match=r"start\.run: found .* data's shape or classes"):
        begin(home, conditional, "network.class_conditional=true", data)


def test_a_source_that_is_not_there(home, teacher):
    with pytest.raises(NotFoundError, match="nobody: no such run"):
        trainer.from_file(home / "tiny.toml", ["start.run=nobody"])
    with pytest.raises(UsageError, match=r"tiny\.toml: start\.ema: found '0\.7', allowed: 0\.5, none"):
        begin(home, teacher, "start.ema=0.7")
    assert trainer.from_file(home / "tiny.toml", ["start.run=''"]).start is None


def test_a_student_does_not_begin_twice(home, teacher):
    twice = [*DISTILL, f"teacher.run={teacher.name}", "teacher.initialise_student=true"]
    with pytest.raises(UsageError, match=r"start: found one, allowed: none where teacher\.initialise_student = true"):
        begin(home, teacher, *twice)


def test_a_student_that_begins_as_its_teacher_says_so_too(home, teacher):
    overrides = [*DISTILL, f"teacher.run={teacher.name}", "teacher.initialise_student=true"]
    built = trainer.from_file(home / "tiny.toml", overrides)
    assert built.start.trained is built.teacher.trained
    assert built.start.error == 0
    assert trainer.from_file(home / "tiny.toml", overrides[:-1]).start is None


def test_a_selector_becomes_a_name(home, teacher):
    assert trainer.from_file(home / "tiny.toml", ["start.run=@latest:dm"]).recipe.start.run == teacher.name
    by_path = trainer.from_file(home / "tiny.toml", [f"start.run=runs/{teacher.name}"])
    assert by_path.recipe.start.run == str(teacher.path.resolve())


@pytest.mark.parametrize(("c_noise", "differs"), [("log", False), ("identity", True)])
def test_a_run_tells_where_its_first_weights_came_from(home, teacher, cmbench, c_noise, differs):
    sets = set_options([*TEACHER, "name=on", f"start.run={teacher.name}", f"path.c_noise={c_noise}"])
    outcome = cmbench("run", "tiny.toml", *sets)
    assert outcome.code == 0
    (run,) = (r for r in all_runs(home / "runs") if r.name.startswith("on-"))
    (event,) = (row for row in read_rows(run.events) if row["kind"] == "initialised")
    source = {"recipe": "dm", "step": 12, "ema": "0.5"}
    assert (event["step"], event["source"]) == (0, source)
    assert (event["error"] > 1e-3) if differs else (event["error"] == 0)
    assert read_json(run.meta)["start"] == {**source, "error": event["error"]}
    percent = f"{100 * event['error']:.4g}%"
    assert f"first weights from dm, step 12, ema 0.5; output differs by {percent}" in outcome.out
    (line,) = (row for row in cmbench("show", run.name).out.splitlines() if row.startswith("first weights"))
    assert line.rstrip().split(maxsplit=2)[2] == f"{teacher.name}, step 12, ema 0.5; output differs by {percent}"


def test_a_run_that_drew_its_first_weights_tells_so(cmbench, trained):
    (line,) = (row for row in cmbench("show", trained.name).out.splitlines() if row.startswith("first weights"))
    assert line.rstrip().split(maxsplit=2)[2] == "drawn from the seed"
    assert not [row for row in read_rows(trained.events) if row["kind"] == "initialised"]


@pytest.mark.parametrize("stop", [0, 7])
def test_a_run_is_resumed_without_the_run_that_it_began_from(home, teacher, put_back, stop):
    """Killed before its first checkpoint, or stopped with one: in both cases it ends as the unbroken run."""
    overrides = [*TEACHER, "name=on", f"start.run={teacher.name}", "path.c_noise=identity", "log.every=1"]
    unbroken = runner.create(consent.named(home / "tiny.toml", overrides), None, [])
    list(unbroken.records())
    made = runner.create(consent.named(home / "tiny.toml", overrides), None, [])
    for _ in (records := made.records()):
        if made.trainer.state.step >= max(stop, 2):
            break
    if not stop:
        made.stop_now = lambda: iter(())  # as a crash does, without a checkpoint
    records.close()
    assert bool(steps_of_checkpoints(made.run)) == bool(stop)
    shutil.rmtree(teacher.path)
    resumed = runner.resume(made.run)
    assert resumed.trainer.start.error == unbroken.trainer.start.error > 0
    list(resumed.records())
    for group, tensors in checkpoint.load(unbroken.run, 12).items():
        assert_weights(checkpoint.load_group(made.run, 12, group), tensors)


def test_kept_weights_that_are_gone_are_named(home, teacher, put_back):
    made = runner.create(consent.named(home / "tiny.toml", [f"start.run={teacher.name}"]), None, [])
    made.close()
    shutil.rmtree(made.run.start)
    with pytest.raises(NotFoundError, match=r"start: the run's own copy of another run's weights is missing"):
        runner.resume(made.run)


class Louder(Model):
    """Denoises to a quarter more."""

    def denoise(self, x_t, t, labels=None):
        return 1.25 * super().denoise(x_t, t, labels)


class Wave(torch.nn.Linear):
    def forward(self, x, c_noise, labels):
        return super().forward(x) + torch.sin(c_noise)[:, None]


@pytest.mark.parametrize("path", [EDM(), TrigFlow(0.5)])
def test_difference_is_relative_to_the_source(path):
    torch.manual_seed(0)
    settings = (Wave(3, 3), (3,), path, 0.5, 0.002, 80.0)
    source, student = Model(*settings), Louder(*settings)
    student.train()
    assert start.difference(student, source) == pytest.approx(0.25, rel=1e-5)
    assert student.training
    assert start.difference(source, student) == pytest.approx(0.2, rel=1e-5)
    assert start.difference(source, source) == 0


@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (0.5, 5.0), (1e-4, 1e-3)])
def test_difference_is_looked_at_over_the_students_own_noise_levels(low, high):
    class Watched(Model):
        def denoise(self, x_t, t, labels=None):
            seen.append(t)
            return super().denoise(x_t, t, labels)

    seen: list[torch.Tensor] = []
    source = Model(Wave(3, 3), (3,), EDM(), 0.5, 0.002, 80.0)
    start.difference(Watched(Wave(3, 3), (3,), EDM(), 0.5, low, high), source)
    levels = seen[0].unique()
    assert torch.allclose(levels[[0, -1]], torch.tensor([low, high]))
    assert torch.allclose(levels.log().diff(), levels.log().diff().mean(), rtol=1e-3)


def test_cost_of_the_source_is_carried_over(home, teacher):
    """Twelve steps of eight images, three passes each; a source that is also the teacher counts once."""
    assert weights.load(teacher, CPU).forwards == 12 * 8 * 3
    assert begin(home, teacher).compute.before == 12 * 8 * 3
    both = begin(home, teacher, *DISTILL, f"teacher.run={teacher.name}")
    assert both.compute.before == 12 * 8 * 3
