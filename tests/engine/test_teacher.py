"""Teachers: what is distilled is what was trained, and what does not fit is refused."""

from types import SimpleNamespace

import pytest
import torch
from tiny import DISTILL

from cmbench import consent
from cmbench.engine import build, checkpoint, loop, runner, trainer, weights
from cmbench.errors import CmbenchError, NotFoundError, UsageError
from cmbench.rundir import checkpoints
from cmbench.rundir.files import read_json, to_json

CPU = torch.device("cpu")


def distil(home, teacher, *overrides: str) -> trainer.Trainer:
    return trainer.from_file(home / "tiny.toml", [*DISTILL, f"teacher.run={teacher.name}", *overrides])


@pytest.mark.parametrize(("ema", "group"), [("", "ema_0.5"), ("'0.5'", "ema_0.5"), ("none", "model")])
def test_the_teacher_is_the_average_that_was_asked_for(home, teacher, ema, group):
    built = distil(home, teacher, f"teacher.ema={ema}")
    wanted = checkpoint.load_group(teacher, 12, group)
    model = built.teacher.trained.model
    found = model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    assert built.teacher.denoiser.model is model
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_the_student_follows_the_teachers_denoiser(home, teacher):
    built = distil(home, teacher)
    calls = []
    own = built.objective.denoise
    built.objective.denoise = lambda x, sigma, labels: calls.append(sigma) or own(x, sigma, labels)
    before = {name: tensor.clone() for name, tensor in built.teacher.trained.model.state_dict().items()}
    list(loop.train(built))
    assert len(calls) == 24  # Heun: two evaluations a step
    after = built.teacher.trained.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_student_starts_as_its_teacher_only_where_asked(home, teacher):
    weights_of = lambda built: built.state.model.state_dict()  # noqa: E731
    wanted = checkpoint.load_group(teacher, 12, "ema_0.5")
    started = distil(home, teacher, "teacher.initialise_student=true", "objective.mu=0.5")
    assert all(torch.equal(weights_of(started)[name], tensor) for name, tensor in wanted.items())
    for copy in (started.objective.target, started.state.averages[0].model, started.state.averages[1].model):
        assert all(torch.equal(copy.state_dict()[name], tensor) for name, tensor in wanted.items())
    fresh = distil(home, teacher)
    assert not torch.equal(weights_of(fresh)["F_theta.output.weight"], wanted["F_theta.output.weight"])


def test_a_selector_becomes_a_name(home, teacher):
    built = trainer.from_file(home / "tiny.toml", [*DISTILL, "teacher.run=@latest:dm"])
    assert built.recipe.teacher.run == teacher.name
    by_path = trainer.from_file(home / "tiny.toml", [*DISTILL, f"teacher.run=runs/{teacher.name}"])
    assert by_path.recipe.teacher.run == str(teacher.path.resolve())


def test_a_run_tells_whom_it_followed(home, teacher, cmbench):
    sets = [part for o in [*DISTILL, f"teacher.run={teacher.name}"] for part in ("--set", o)]
    assert cmbench("run", "tiny.toml", *sets).code == 0
    shown = cmbench("show", "@latest:cd")
    assert f"{teacher.name}, step 12, ema 0.5" in shown.out
    assert cmbench("sample", "@latest:cd").code == 0


def test_a_kept_teacher_is_the_one_that_was_saved(tmp_path, home, teacher):
    trained = weights.load(teacher, CPU)
    trained.save(tmp_path / "kept")
    again = weights.load_kept(tmp_path / "kept", CPU)
    assert (again.sampler, again.step, again.ema, again.classes) == ("ode", 12, "0.5", 8)
    x, t = torch.randn(5, 2), torch.rand(5) + 0.1
    assert torch.equal(again.model.denoise(x, t), trained.model.denoise(x, t))
    (tmp_path / "kept" / "teacher.json").unlink()
    with pytest.raises(NotFoundError, match="copy of another run's weights is missing"):
        weights.load_kept(tmp_path / "kept", CPU)


@pytest.mark.parametrize(("name", "step"), [("ema_0.9", None), ("ema_0.5", None), ("model", None), ("ema_0.9", 10)])
def test_weights_by_average_and_checkpoint(trained, name, step):
    ema = "none" if name == "model" else name.removeprefix("ema_")
    loaded = weights.load(trained, CPU, ema, step)
    assert (loaded.step, loaded.ema) == (step or 12, ema)
    wanted = checkpoint.load_group(trained, step or 12, name)
    assert all(torch.equal(loaded.model.state_dict()[key], tensor) for key, tensor in wanted.items())
    assert not loaded.model.training


def test_weights_that_are_not_there(trained):
    with pytest.raises(NotFoundError, match="no checkpoint at step 11, allowed: 10, 12"):
        weights.load(trained, CPU, step=11)
    with pytest.raises(UsageError, match=r"found '0.7', allowed: 0.9, 0.5, none"):
        weights.load(trained, CPU, ema="0.7")
    trained.meta.unlink()
    with pytest.raises(NotFoundError, match="missing or broken"):
        weights.load(trained, CPU)


def test_an_oracle_is_the_data_sets_own(home):
    built = trainer.from_file(home / "tiny.toml", ["objective={kind='cd'}", "teacher.kind=oracle"])
    x, sigma = torch.randn(6, 2), torch.full((6,), 0.3)
    assert torch.equal(built.teacher.denoiser.denoise(x, sigma), built.data.oracle().denoise(x, sigma))
    assert built.teacher.trained is None


def test_meta_names_the_teacher(home, teacher, put_back):
    from cmbench.engine import runner

    made = runner.create(
        consent.named(home / "tiny.toml", [*DISTILL, f"teacher.run={teacher.name}"]), None, ["cmbench", "x"]
    )
    made.close()
    meta = read_json(made.run.meta)
    assert meta["teacher"] == {"recipe": "dm", "step": 12, "ema": "0.5"}
    assert meta["argv"] == ["cmbench", "x"]
    assert (meta["seed"], meta["shape"], meta["classes"]) == (3, [2], 8)
    assert len(meta["profile_edges"]) == 5
    assert meta["profile_edges"][0] == pytest.approx(0.002)
    assert meta["profile_edges"][-1] == pytest.approx(80)
    assert meta["parameters"] == sum(p.numel() for p in made.trainer.state.model.parameters())


@pytest.mark.parametrize("override", ["network.embedding_scale=16.0", "path.sigma_data=0.4"])
def test_equal_weights_that_make_another_function_do_not_initialise(home, teacher, override):
    overrides = [*DISTILL, f"teacher.run={teacher.name}", "teacher.initialise_student=true", override]
    with pytest.raises(UsageError, match=r"teacher\.initialise_student"):
        trainer.from_file(home / "tiny.toml", overrides)


def test_a_conditional_teacher_wants_a_conditional_student(home):
    overrides = ["name=dm", "objective.kind=denoise", "network.class_conditional=true"]
    made = runner.create(consent.named(home / "tiny.toml", overrides), None, [])
    list(made.records())
    with pytest.raises(UsageError, match=r"teacher\.run: .*network\.class_conditional = true"):
        trainer.from_file(home / "tiny.toml", [*DISTILL, f"teacher.run={made.run.name}"])


def test_an_average_that_the_teacher_has_not_is_named_by_its_key(home, teacher):
    with pytest.raises(UsageError, match=r"tiny\.toml: teacher\.ema: found '0\.7'"):
        trainer.from_file(home / "tiny.toml", [*DISTILL, f"teacher.run={teacher.name}", "teacher.ema=0.7"])


def test_averages_of_close_lengths_have_names_of_their_own(home):
    built = trainer.from_file(home / "tiny.toml", ["ema.lengths=[0.9999999,0.9999998]"])
    assert len({average.name for average in built.state.averages}) == 2


def rewritten(run, tensors):
    """Put other tensors into the average of a run's newest checkpoint, with their checksum."""
    state = read_json(run.checkpoint(12) / "state.json")
    del state["checksum"]
    state["sha256"]["ema_0.5"] = checkpoint.write_tensors(run.checkpoint(12) / "ema_0.5.safetensors", tensors)
    (run.checkpoint(12) / "state.json").write_bytes(to_json(checkpoints.sealed(state)))


def test_weights_of_another_network_are_refused_in_one_line(teacher):
    """As after a layer was renamed between two versions."""
    rewritten(teacher, {f"old.{name}": t for name, t in checkpoint.load_group(teacher, 12, "ema_0.5").items()})
    with pytest.raises(UsageError, match=r"dm, checkpoint 12: its weights have other names or shapes"):
        weights.load(teacher, torch.device("cpu"))


def test_a_recipe_of_another_size_is_refused_before_any_memory_is_taken(teacher, monkeypatch):
    teacher.recipe.write_text(teacher.recipe.read_text().replace("\nwidth = ", "\nwidth = 65536 # "))
    model = build.model

    def without_memory(recipe, shape, classes, device):
        assert device.type == "meta"
        return model(recipe, shape, classes, device)

    monkeypatch.setattr(build, "model", without_memory)
    monkeypatch.setattr(checkpoint, "read_tensors", lambda *file: pytest.fail("read"))
    with pytest.raises(UsageError, match=r"dm, checkpoint 12: its weights have other names or shapes"):
        weights.load(teacher, CPU)
    path = teacher.checkpoint(12) / "ema_0.5.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(checkpoint.DamagedError, match="differs from its checksum"):
        weights.load(teacher, CPU)


def test_weights_for_which_there_is_no_memory_are_refused_and_not_called_damaged(teacher, monkeypatch):
    monkeypatch.setattr(checkpoint.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    says = r"model\.safetensors: [\d,]+ bytes, but only 1,000 of memory are free"
    with pytest.raises(CmbenchError, match=says) as caught:
        checkpoint.newest(teacher)
    assert not isinstance(caught.value, checkpoint.DamagedError)
