"""A live run whose folder, or what is in it, is renamed, moved, replaced or removed."""

import shutil

import pytest
from fake_runs import read_rows
from steered import after, assert_same_end, create, finish, killed, timeless

from cmbench.engine import checkpoint, recorder, runner
from cmbench.errors import NotFoundError
from cmbench.rundir import home as homes
from cmbench.rundir import status
from cmbench.rundir.files import read_json
from cmbench.rundir.home import GoneError
from cmbench.rundir.layout import RunDir, steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")


def warnings(run):
    return [row["text"] for row in read_rows(run.events) if row["kind"] == "warning"]


def rename(path):
    return path.rename(path.with_name("renamed"))


def move(path):
    (path.parent.parent / "elsewhere").mkdir()
    return path.rename(path.parent.parent / "elsewhere" / path.name)


def move_all(path):
    return path.parent.rename(path.parent.with_name("runs_of_2026")) / path.name


@pytest.mark.parametrize("how", [rename, move, move_all])
@pytest.mark.parametrize("step", [1, 4, 5, 11])
def test_a_run_follows_its_folder_and_says_so(home, trained, how, step):
    made, new = create(home), []
    old = made.run.path
    after(made, step, lambda: new.append(how(old)))
    run = finish(made)
    assert run.path.samefile(new[0])
    assert not old.exists()
    assert warnings(run) == [f"the run's folder was {old}, and is {new[0]} now"]
    assert status.read(run)["state"] == "finished"
    whole = next((trained.path.parent.parent).glob(f"*/{trained.name}"))
    assert_same_end(run, RunDir(whole))
    assert not [path for path in home.glob("*/*") if path.name == old.name and not path.samefile(new[0])]


def test_a_folder_beside_its_old_place_is_found_without_the_systems_word(home, monkeypatch):
    def unknown(self):
        raise OSError(2, "No such file or directory")

    made = create(home)
    after(made, 5, lambda: monkeypatch.setattr(homes.Path, "readlink", unknown) or rename(made.folder.path))
    assert finish(made).name == "renamed"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_folder_is_removed_ends_with_a_word_and_makes_nothing_anew(home, replaced):
    made = create(home)
    path = made.run.path

    def remove():
        shutil.rmtree(path)
        if replaced:
            path.mkdir()

    after(made, 5, remove)
    with pytest.raises(GoneError, match=f"{path}: the run's folder is gone"):
        list(made.records())
    assert (made.exit_code, GoneError.exit_code, made.trainer.state.step) == (1, 1, 5)
    assert path.exists() == replaced
    assert list(home.joinpath("runs").rglob("*")) == [home / "runs" / "latest", *([path] if replaced else [])]


def test_a_run_whose_recipe_is_removed_ends_too(home):
    """As while its folder is being removed: what is written then would stay, where no command shows it."""
    made = create(home)
    after(made, 5, lambda: [path.unlink() for path in made.folder.path.iterdir() if path.is_file()])
    with pytest.raises(GoneError, match=r"the run is gone: its recipe\.toml was removed"):
        list(made.records())
    assert {path.name for path in made.folder.path.iterdir()} == {"checkpoints", "snapshots", "control"}
    assert list(made.folder.checkpoints.iterdir()) == []


def test_a_folder_that_is_renamed_while_a_checkpoint_is_written_gets_it(home, trained, monkeypatch):
    write, made = checkpoint.write_tensors, create(home)

    def write_slowly(path, tensors):
        sha256 = write(path, tensors)
        if path.parent.name == ".00000010.tmp" and path.name == "model.safetensors" and made.folder.path.exists():
            rename(made.folder.path)
        return sha256

    monkeypatch.setattr(checkpoint, "write_tensors", write_slowly)
    run = finish(made)
    assert run.name == "renamed"
    assert steps_of_checkpoints(run) == [10, 12]
    assert not list(run.checkpoints.glob(".*"))
    assert_same_end(run, trained)


def test_a_folder_of_the_same_name_is_not_written_into(home, trained):
    made = create(home)
    path = made.run.path
    after(made, 4, lambda: [rename(path), path.mkdir(), (path / "metrics.jsonl").write_text("mine")])
    run = finish(made)
    assert run.path == path.with_name("renamed")
    assert {other.name: other.read_text() for other in path.iterdir()} == {"metrics.jsonl": "mine"}
    assert_same_end(run, trained)


@pytest.mark.parametrize("name", ["snapshots", "checkpoints", "control"])
def test_a_folder_in_the_run_that_is_removed_is_made_anew(home, trained, monkeypatch, name):
    monkeypatch.setattr(recorder, "_STATUS_EVERY", 0.0)
    made = create(home)
    after(made, 5, lambda: shutil.rmtree(made.run.path / name))
    run = finish(made)
    assert_same_end(run, trained)
    assert (run.path / name).is_dir()
    assert steps_of_checkpoints(run) == [10, 12]


@pytest.mark.parametrize("name", ["snapshots", "control"])
def test_a_run_without_its_folders_can_be_resumed(home, trained, name):
    run = killed(create(home), 7)
    shutil.rmtree(run.path / name)
    assert_same_end(finish(runner.resume(run)), trained)


def test_checkpoints_that_are_gone_are_told_and_nothing_is_begun_anew(home):
    run = killed(create(home), 7)
    shutil.rmtree(run.checkpoints)
    before = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(NotFoundError, match="its checkpoints are gone"):
        runner.resume(run)
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == before


def test_a_log_that_is_removed_from_a_live_run_is_told(home, trained):
    made = create(home)
    after(made, 5, made.run.metrics.unlink)
    run = finish(made)
    assert warnings(run) == ["metrics.jsonl was removed or replaced; it continues in a file of that name"]
    wanted = [row for row in timeless(trained.metrics) if row["step"] > 5]
    assert timeless(run.metrics) == wanted
    assert_checkpoint_is_that_of(run, trained)


@pytest.mark.parametrize("name", ["metrics", "profiles", "events"])
def test_a_log_that_is_gone_when_a_run_is_resumed_is_told(home, trained, name):
    run = killed(create(home), 7)
    getattr(run, name).unlink()
    run = finish(runner.resume(run))
    assert warnings(run) == [f"{name}.jsonl had been removed: its rows up to here are gone"]
    assert "resumed" in [row["kind"] for row in read_rows(run.events)]
    assert_checkpoint_is_that_of(run, trained)


def test_a_status_that_is_removed_is_written_again(home):
    made = create(home)
    after(made, 5, made.run.status.unlink)
    run = finish(made)
    assert (read_json(run.status) or {})["state"] == "finished"


def assert_checkpoint_is_that_of(run, other):
    mine, theirs = (read_json(each.checkpoint(12) / "state.json") for each in (run, other))
    of_clocks = {"train_s", "checksum"}
    assert {**mine, **dict.fromkeys(of_clocks)} == {**theirs, **dict.fromkeys(of_clocks)}
