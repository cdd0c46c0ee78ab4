"""What lies in a run's folders and is not ours: behind links, among checkpoints, in the place of logs."""

import os

import pytest
from fake_runs import read_rows
from steered import after, asked, assert_same_end, create, finish, killed

from cmbench.engine import checkpoint, runner
from cmbench.errors import NotFoundError, UsageError
from cmbench.rundir import control
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import steps_of_checkpoints

pytestmark = pytest.mark.usefixtures("put_back")

# Names that people and programs have in a folder on a scratch disk, some of them nearly as we write them.
FOREIGN = [
    *(".ssh/id", ".git/config", ".cache/x", ".0000005.tmp/x", ".00000005.tmp~/x", ".00000005/x", ".x00000005.old/x"),
    *(".00000005.bak/x", "00000005.old/x", "5/x", "²/x", "000000010/x", "9" * 200 + "/x", ".tmp/x", ".old/x"),
    *(".notes.txt.12.tmp", ".00000005_1step.gif.12.tmp", "00000009_1step.txt", "9_1step.png", "1x_2step.png"),
    *("20250101/x", "20250102/model.safetensors", "01012025/state.json", "00000011/x"),
    *("7.json", "2026-12.json", "1700000000000000000-00ab.json.bak", ".1700000000000000000.json.12.tmp", "thesis.tex"),
]


def plant(folder):
    for name in FOREIGN:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def unharmed(folder):
    return [name for name in FOREIGN if not (folder / name).exists() or (folder / name).read_text() != name] == []


@pytest.mark.parametrize(
    "name", ["checkpoints", "snapshots", "control", "checkpoints/abandoned", "snapshots/abandoned"]
)
def test_a_folder_that_is_a_link_works_and_what_lies_behind_it_stays(home, name):
    scratch = home / "scratch"
    options = ["train.steps=14", "snapshot.every=2", "evaluate.every=0"]
    run = killed(create(home, *options), 9)
    if (run.path / name).exists():
        (run.path / name).rename(scratch)
    else:
        scratch.mkdir()
    (run.path / name).symlink_to(scratch)
    plant(scratch)
    run = killed(runner.resume(run), 12)
    assert steps_of_checkpoints(run) == [5, 10]
    made = asked(runner.resume(run, step=5), {6: [("checkpoint", None)]})
    finish(made)
    assert steps_of_checkpoints(run) == [10, 14]
    assert unharmed(scratch)
    assert (run.path / name).is_symlink()
    assert_same_end(run, finish(create(home, *options)))


def test_what_someone_keeps_in_a_checkpoint_stays_when_it_is_removed(home):
    run = killed(create(home, "checkpoint.keep=1", "evaluate.every=0"), 9)
    (run.checkpoint(5) / "notes.txt").write_text("mine")
    (run.checkpoint(5) / "merged.safetensors").write_text("mine")
    run = finish(runner.resume(run))
    assert steps_of_checkpoints(run) == [12]
    kept = {path.name for path in run.checkpoints.rglob("*") if path.is_file() and path.read_bytes() == b"mine"}
    assert kept == {"notes.txt", "merged.safetensors"}


def test_a_checkpoint_that_is_a_link_is_removed_as_a_link(home):
    run = killed(create(home, "checkpoint.keep=1", "evaluate.every=0"), 9)
    before = checkpoint.load(run, 5)
    run.checkpoint(5).rename(home / "scratch")
    run.checkpoint(5).symlink_to(home / "scratch")
    run = finish(runner.resume(run))
    assert [path.name for path in run.checkpoints.iterdir()] == ["00000012"]
    (home / "scratch").rename(run.checkpoint(5))
    assert checkpoint.load(run, 5).keys() == before.keys()


def test_what_has_a_name_of_ours_and_is_not_ours_is_moved_out_of_the_way(home, trained):
    run = killed(create(home), 7)
    (run.checkpoints / ".00000010.tmp").mkdir()
    (run.checkpoints / ".00000010.tmp" / "thesis.tex").write_text("mine")
    (run.checkpoints / ".00000012.tmp").write_text("mine")
    run = finish(runner.resume(run))
    assert_same_end(run, trained)
    assert (run.checkpoints / ".00000010.tmp.1" / "thesis.tex").read_text() == "mine"
    assert (run.checkpoints / ".00000012.tmp.1").read_text() == "mine"


LOGS = ["metrics.jsonl", "profiles.jsonl", "events.jsonl", "console.log"]


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "folder"])
def test_a_log_that_is_none_is_refused_in_a_line_and_nothing_is_written(home, cmbench, name, kind):
    run = killed(create(home), 7)
    other, path = home / "thesis.tex", run.path / name
    if kind == "link":
        other.write_text("mine")
    path.unlink(missing_ok=True)
    if kind.startswith("link"):
        path.symlink_to(other)
    else:
        {"pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    run.status.write_bytes(to_json({**(read_json(run.status) or {}), "state": "stopped"}))
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    outcome = cmbench("resume", run.name, "--foreground")
    assert (outcome.code, outcome.out) == (2, "")
    kinds = {"link to nothing": "link"}
    said = f"{name} is a {kinds.get(kind, kind)}, allowed: a regular file"
    assert outcome.err == f"cmbench: {run.path}: cannot be written: {said}\n"
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before
    assert other.read_text() == "mine" if kind == "link" else not other.exists()


@pytest.mark.parametrize("name", ["lock", "status.json", "meta.json"])
def test_no_file_is_written_through_a_link(home, name):
    run = killed(create(home), 7)
    other, path = home / "thesis.tex", run.path / name
    other.write_bytes(path.read_bytes() if name == "meta.json" else b"mine")
    before = other.read_bytes()
    path.unlink(missing_ok=True)
    path.symlink_to(other)
    if name == "lock":
        with pytest.raises(UsageError, match="lock is a link, allowed: a regular file"):
            runner.resume(run)
    else:
        finish(runner.resume(run))
    assert other.read_bytes() == before


def test_a_copy_made_of_hard_links_keeps_what_it_holds(home):
    run = killed(create(home), 7)
    copy = home / "backup"
    for path in [p for p in run.path.rglob("*") if p.is_file()]:
        target = copy / path.relative_to(run.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    finish(runner.resume(run))
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_request_that_cannot_be_removed_is_not_granted_without_end(home, monkeypatch):
    made = create(home)
    control.request(made.run, "snapshot")
    unlink = type(made.run.path).unlink

    def refuse(self, missing_ok=False):
        if self.parent.name == "control":
            raise PermissionError(1, "Operation not permitted")
        return unlink(self, missing_ok)

    monkeypatch.setattr(type(made.run.path), "unlink", refuse)
    run = finish(made)
    assert not [row for row in read_rows(run.events) if row["kind"] == "request"]


class TestDamage:
    """state.json answers for itself, and for what the run needs."""

    @pytest.fixture
    def run(self, home):
        return killed(create(home, "checkpoint.keep=9"), 11)

    def change(self, run, of, **changes):
        path = run.checkpoint(of) / "state.json"
        state = {**(read_json(path) or {}), **changes}
        path.write_bytes(to_json({key: value for key, value in state.items() if value is not None}, indent=True))

    def is_passed_over(self, run, why):
        made = runner.resume(run)
        assert made.trainer.state.step == 5
        finish(made)
        (warning,) = (row["text"] for row in read_rows(run.events) if row["kind"] == "warning")
        assert why in warning
        assert "the checkpoint of step 5 is used" in warning

    @pytest.mark.parametrize("group", ["optimizer", "objective", "ema_0.9", "means", "profile"])
    def test_a_group_that_is_not_named_any_more(self, run, trained, group):
        sums = (read_json(run.checkpoint(10) / "state.json") or {})["sha256"]
        self.change(run, 10, sha256={name: own for name, own in sums.items() if name != group})
        self.is_passed_over(run, "00000010/state.json: damaged: it differs from its own checksum")
        assert_same_end(run, trained)

    @pytest.mark.parametrize("group", ["optimizer", "objective", "ema_0.9"])
    def test_a_group_that_an_earlier_version_did_not_name(self, run, trained, group):
        sums = (read_json(run.checkpoint(10) / "state.json") or {})["sha256"]
        sums = {name: own for name, own in sums.items() if name != group}
        self.change(run, 10, sha256=sums, checksum=None, schema=1)
        self.is_passed_over(run, "00000010: damaged: ")
        assert_same_end(run, trained)

    def test_the_checksum_itself(self, run):
        self.change(run, 10, checksum=None)
        self.is_passed_over(run, "differs from its own checksum")

    def test_a_checkpoint_of_another_step(self, run):
        run.checkpoint(10).rename(run.checkpoint(11))
        self.is_passed_over(run, "00000011/state.json: damaged: it is of step 10")

    def test_a_group_outside_its_folder(self, run):
        sums = (read_json(run.checkpoint(10) / "state.json") or {})["sha256"]
        self.change(run, 10, sha256={**sums, "../00000005/model": sums["model"]}, checksum=None, schema=1)
        self.is_passed_over(run, "it names what no checkpoint has")

    def test_a_checkpoint_of_another_network(self, home, run):
        other = killed(create(home, "network.width=24", "checkpoint.keep=9"), 11)
        run.checkpoint(10).rename(home / "kept")
        other.checkpoint(10).rename(run.checkpoint(10))
        self.is_passed_over(run, "'model' is of another network than the recipe's")

    def test_one_that_was_chosen_is_refused(self, run):
        self.change(run, 10, step=9)
        with pytest.raises(NotFoundError, match=r"00000010/state\.json: damaged"):
            runner.resume(run, step=10)

    def test_checkpoints_of_earlier_versions_are_whole(self, run, trained):
        for step in steps_of_checkpoints(run):
            self.change(run, step, checksum=None, schema=1)
        made = runner.resume(run)
        assert made.trainer.state.step == 10
        assert_same_end(finish(made), trained)


def test_what_a_kill_leaves_of_the_last_clean_up_is_removed_by_a_resume(home, trained, monkeypatch):
    made = create(home)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_remove", lambda folder: None)
        run = killed(after(made, 12, lambda: None), 11)
        checkpoint.prune(run, 1, [])
    (run.checkpoints / ".00000007.old").mkdir()
    (run.checkpoints / ".00000008.tmp").mkdir()
    run = finish(runner.resume(run))
    assert not [path for path in run.checkpoints.iterdir() if path.name.startswith(".")]
    assert_same_end(run, trained)
