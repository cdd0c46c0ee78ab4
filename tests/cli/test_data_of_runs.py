"""A run holds to its data: from any folder, after a resume, a move, a change; and on another device or host."""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from conftest import process_put_back
from fake_runs import read_rows
from PIL import Image
from tiny import TINY

from cmbench import consent, reach, recipe
from cmbench.engine import runner
from cmbench.rundir import checkpoints, fingerprints, status
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints

PICTURES = (
    TINY.replace('kind = "mixtures"\nname = "ring"', 'kind = "images"\nname = "folder"\nroot = "pictures"\nsize = 8')
    .replace('kind = "mlp"\nwidth = 16\ndepth = 1', 'kind = "unet"\nwidth = 8\ndepth = 1\nmultipliers = [1]')
    .replace("[objective]", "class_conditional = true\n\n[objective]")
    .replace("every = 6", "every = 0")
    .replace("keep = 2", "keep = 9")
)
FEW = ["--steps", "1", "--n", "6", "--repeats", "2", "--measures", "sliced_wasserstein", "--json"]


def pictures(root: Path, classes: tuple[str, ...] = ("2", "10", "cat"), seed: int = 0, n: int = 4) -> None:
    random = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(random.integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(root / name / f"{i}.bmp")


@pytest.fixture(scope="module")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that has stopped at step 5 of 12, and its pictures."""
    home = tmp_path_factory.mktemp("pictures")
    pictures(home / "pictures")
    file = home / "tiny.toml"
    file.write_text(PICTURES)
    with process_put_back(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        made = runner.create(consent.named(file, ["evaluate.every=0"]), home / "runs", ["cmbench", "run", "tiny.toml"])
        for record in made.records():
            if record.row.get("kind") == "checkpoint":
                made.request_stop("test")
    return home


@pytest.fixture
def stopped(home, _stopped) -> RunDir:
    """The test's own copy, which knows no other place than this."""
    shutil.copytree(_stopped, home, dirs_exist_ok=True, symlinks=True)
    (home / "runs" / "latest").unlink()
    (run,) = (RunDir(path) for path in (home / "runs").iterdir())
    for path in (run.recipe, run.meta):
        path.write_text(path.read_text().replace(str(_stopped), str(home)))
    reach.remember(recipe.load(run.recipe).tables())
    return run


def figure(outcome) -> dict:
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)["runs"][0]["figures"][0]


def refused(outcome, code: int, *mentions: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert [part for part in mentions if part not in outcome.err] == [], outcome.err
    assert "Traceback" not in outcome.err


def journal(run: RunDir, kind: str) -> list[dict]:
    return [row for row in read_rows(run.events) if row["kind"] == kind]


def forget_answers(run: RunDir) -> None:
    shutil.rmtree(run.evaluations, ignore_errors=True)


def test_a_run_is_one_number_or_a_refusal(cmbench, home, stopped, monkeypatch):
    """Evaluated from three working directories, after its data moved, were replaced, and after a resume."""
    asked = ["eval", stopped.path, "--checkpoint", "5", *FEW]
    elsewhere = home / "elsewhere"
    pictures(elsewhere / "pictures", seed=1)  # what a relative path would mean there
    first = figure(cmbench(*asked))
    for folder in (elsewhere, home.parent):
        monkeypatch.chdir(folder)
        forget_answers(stopped)
        assert figure(cmbench(*asked)) == first
    monkeypatch.chdir(home)

    (home / "pictures").rename(home / "moved")
    assert figure(cmbench(*asked)) == {**first, "cached": True}  # nothing says that it is not so any more
    forget_answers(stopped)
    refused(cmbench(*asked), 2, "no pictures at", str(home / "pictures"), "--set data.root=FOLDER")
    assert figure(cmbench(*asked, "--set", "data.root=moved")) == first
    forget_answers(stopped)

    shutil.copytree(elsewhere / "pictures", home / "pictures")
    refused(cmbench(*asked), 5, "its data have changed", "of other content", "--other-data")
    other = figure(cmbench(*asked, "--other-data"))
    assert other["value"] != first["value"]
    assert "not trained on" in cmbench(*asked[:-1], "--other-data").out
    assert figure(cmbench(*asked, "--set", "data.root=moved")) == first  # and not what was kept of the others
    refused(cmbench(*asked), 5, "its data have changed")

    resumed = cmbench("resume", stopped.path, "--foreground", "--set", "data.root=moved")
    assert resumed.code == 0, resumed.err
    monkeypatch.chdir(elsewhere)
    again = figure(cmbench(*asked))
    assert again == {**first, "cached": True}
    forget_answers(stopped)
    assert figure(cmbench(*asked)) == first
    assert journal(stopped, "resumed")[0]["places"] == {"data.root": str(home / "moved")}
    for path in stopped.evaluations.iterdir():
        assert orjson.loads(path.read_bytes())["question"]["data"] == fingerprints.recorded(stopped)["content"]


def test_pictures_are_not_looked_at_because_a_run_says_so(cmbench, home, stopped, monkeypatch):
    """By somebody who never started a run with them; a folder that he names himself needs no consent, then or later."""
    (home / "pictures").rename(home / "moved")
    (home / "pictures").symlink_to("/")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "nobody"))
    asked = ["eval", stopped.path, "--checkpoint", "5", *FEW]
    refused(cmbench(*asked), 2, "data.root: found", str(home / "pictures"), "not trusted", "--trust")
    refused(cmbench("resume", stopped.path, "--foreground"), 2, "not trusted", "--trust")
    first = figure(cmbench(*asked, "--set", "data.root=moved"))
    assert figure(cmbench(*asked)) == {**first, "cached": True}
    assert cmbench("resume", stopped.path, "--foreground", "--set", "data.root=moved").code == 0
    forget_answers(stopped)
    assert figure(cmbench(*asked)) == first


def test_the_fingerprint_stands_in_meta_json_and_in_every_checkpoint(cmbench, home, stopped):
    found = read_json(stopped.meta)["data"]
    assert {**found, "content": ""} == {
        **{"count": 11, "held_out": 1, "shape": [3, 8, 8], "classes": 3, "content": ""},
        **{"names": ["2", "10", "cat"], "counts": [4, 4, 4]},
    }
    assert cmbench("resume", stopped.name, "--foreground").code == 0
    for step in steps_of_checkpoints(stopped):
        assert checkpoints.state(stopped, step)[0]["data"] == found
    assert str(home / "pictures") in stopped.recipe.read_text()
    assert [row["text"] for row in journal(stopped, "data")] == ["12 pictures of 3 classes (2: 4, 10: 4, cat: 4)"] * 2


def swapped(root: Path) -> None:
    (root / "2").rename(root / "x")
    (root / "cat").rename(root / "2")
    (root / "x").rename(root / "cat")


CHANGES = {
    "swapped labels": (swapped, "of other content"),
    "another picture": (lambda root: shutil.copy(root / "2" / "0.bmp", root / "cat" / "3.bmp"), "of other content"),
    "a picture less": (lambda root: (root / "cat" / "0.bmp").unlink(), "they were 12 samples, and are 11"),
    "a class renamed": (lambda root: (root / "cat").rename(root / "dog"), "3 (2, 10, cat), and are 3 (2, 10, dog)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_not_resumed_on_other_data_unless_that_is_wanted(cmbench, home, stopped, change):
    make, why = CHANGES[change]
    make(home / "pictures")
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file() and path.name != "lock"}
    refused(
        cmbench("resume", stopped.name, "--foreground"), 5, "its data have changed", why, "--other-data", "data.root"
    )
    assert all(path.read_bytes() == content for path, content in before.items())
    refused(cmbench("eval", stopped.name, *FEW), 5, why)
    assert cmbench("resume", stopped.name, "--foreground", "--other-data").code == 0
    assert any(why in row["text"] and "as was asked for" in row["text"] for row in journal(stopped, "warning"))
    assert fingerprints.recorded(stopped) != fingerprints.recorded(stopped, 5)
    assert cmbench("eval", stopped.name, *FEW).code == 0  # of the newest checkpoint, which knows these


@pytest.mark.parametrize("consent", [[], ["--other-data"]])
def test_another_number_of_classes_is_one_line(cmbench, home, stopped, consent):
    pictures(home / "pictures", ("dog",), seed=3)
    refused(cmbench("resume", stopped.name, "--foreground", *consent), 5, "4 (2, 10, cat, dog)", "allowed: 3 classes")


def test_data_that_are_gone_are_named_with_the_way_out(cmbench, home, stopped):
    (home / "pictures").rename(home / "there")
    refused(
        cmbench("resume", stopped.name, "--foreground"), 2, "no pictures at", f"resume {stopped.name} --set data.root="
    )
    assert cmbench("resume", stopped.name, "--foreground", "--set", "data.root=there").code == 0
    assert journal(stopped, "warning") == []
    assert f'root = "{home}/pictures"' in stopped.recipe.read_text()  # as it began
    assert cmbench("sample", stopped.name, "--n", "2").code == 0
    assert f"at {home / 'there'}" in cmbench("show", stopped.name).out


@pytest.mark.parametrize(
    ("change", "mentions"),
    [
        ("data.root=3", ["data.root", "found 3"]),
        ("train.device=gpu", ["train.device", "'gpu'", "cuda:N"]),
        ("data.size=9", ["data.size", "allowed:", "data.root", "train.device"]),
    ],
)
def test_a_place_that_is_none(cmbench, stopped, change, mentions):
    refused(cmbench("resume", stopped.name, "--foreground", "--set", change), 2, *mentions)


def test_eval_takes_no_other_key(cmbench, stopped):
    refused(cmbench("eval", stopped.name, *FEW, "--set", "data.size=4"), 2, "data.size", "allowed: data.root")


def older(run: RunDir) -> None:
    """Make a run what an earlier version would have left: without fingerprints, alpha, reader, and absolute paths."""
    meta = read_json(run.meta)
    del meta["data"]
    run.meta.write_bytes(to_json(meta))
    for step in steps_of_checkpoints(run):
        path = run.checkpoint(step) / "state.json"
        state = {key: value for key, value in read_json(path).items() if key not in ("data", "checksum")}
        path.write_bytes(to_json(checkpoints.sealed(state)))
    lines = run.recipe.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(("alpha =", "reader ="))]
    run.recipe.write_text("".join('root = "pictures"\n' if line.startswith("root =") else line for line in kept))


def test_an_older_run_is_taken_up_with_its_own_labels(cmbench, home, stopped, monkeypatch):
    older(stopped)
    monkeypatch.chdir(home.parent)
    assert figure(cmbench("eval", stopped.path, *FEW))["value"] > 0
    assert cmbench("resume", stopped.path, "--foreground").code == 0
    assert fingerprints.recorded(stopped)["names"] == ["10", "2", "cat"]  # as text, as its network has learnt them
    (warning,) = journal(stopped, "warning")
    assert "no fingerprint" in warning["text"]
    assert "as torchvision does" in journal(stopped, "data")[-1]["text"]


def test_an_older_run_on_data_of_another_number_of_classes(cmbench, home, stopped):
    older(stopped)
    pictures(home / "pictures", ("dog",), seed=3)
    refused(cmbench("resume", stopped.name, "--foreground"), 5, "they had 3 classes, and have 4", "allowed: 3 classes")


def test_a_run_of_a_gpu_goes_on_without_one(cmbench, stopped, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    stopped.recipe.write_text(stopped.recipe.read_text().replace('device = "cpu"', 'device = "cuda"'))
    refused(
        cmbench("resume", stopped.name, "--foreground"), 2, "'cuda'", f"resume {stopped.name} --set train.device=cpu"
    )
    assert cmbench("resume", stopped.name, "--foreground", "--set", "train.device=cpu").code == 0
    assert journal(stopped, "resumed")[0]["places"] == {"train.device": "cpu"}


def test_the_device_that_was_named_anew_is_kept(cmbench, stopped, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    stopped.recipe.write_text(stopped.recipe.read_text().replace('device = "cpu"', 'device = "cuda"'))
    step = ["--set", "train.device=cpu", "--checkpoint", "5"]
    assert cmbench("resume", stopped.name, "--foreground", *step).code == 0
    status.write(stopped, {**status.read(stopped), "state": "stopped"})
    assert cmbench("resume", stopped.name, "--foreground", "--checkpoint", "5").code == 0


def test_a_run_of_a_host_that_is_gone(cmbench, stopped):
    live = {**status.read(stopped), "state": "running", "host": "elsewhere"}
    status.write(stopped, live)
    refused(cmbench("resume", stopped.name, "--foreground"), 5, "elsewhere", f"resume {stopped.name} --host-gone")
    assert cmbench("resume", stopped.name, "--foreground", "--host-gone").code == 0
    assert any("elsewhere is assumed to be gone" in row["text"] for row in journal(stopped, "warning"))


def test_no_word_takes_a_run_from_a_trainer_of_this_host(cmbench, stopped):
    from cmbench.rundir.lock import hold

    status.write(stopped, {**status.read(stopped), "state": "running", **status.owner()})
    lock = hold(stopped)
    refused(cmbench("resume", stopped.name, "--foreground", "--host-gone"), 5, "is running")
    lock.release()
    assert status.read(stopped)["host"] == socket.gethostname()


def test_classes_by_name_and_by_number(cmbench, stopped):
    def drawn(label: str) -> tuple[int, str]:
        outcome = cmbench("sample", stopped.name, "--n", "2", "--label", label, "--json")
        assert outcome.code == 0, outcome.err
        found = json.loads(outcome.out)
        return found["label"], found["class"]

    assert drawn("cat") == drawn("=cat") == (2, "cat")
    assert drawn("10") == drawn("=10") == drawn("1") == (1, "10")
    assert drawn("0") == (0, "2")
    assert drawn("#2") == (2, "cat")
    assert drawn("=2") == (0, "2")
    refused(cmbench("sample", stopped.name, "--label", "2"), 2, "class 'cat'", "name of class 0", "'#2'", "'=2'")
    refused(
        cmbench("sample", stopped.name, "--label", "cta"), 2, "allowed: 0 to 2, or a name: 2, 10, cat", "mean 'cat'"
    )
    assert "class 2 (cat)" in cmbench("sample", stopped.name, "--n", "2", "--label", "cat").out
    assert "3: 2 (4), 10 (4), cat (4)" in cmbench("show", stopped.name).out


def test_asking_again_loads_no_torch_and_looks_at_the_files(cmbench, home, stopped):
    import subprocess
    import sys

    assert cmbench("eval", stopped.path, *FEW).code == 0
    script = (
        "import sys; from cmbench.cli import main; sys.argv[1:] = sys.argv[1:]; code = main.exit_code();"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "eval", str(stopped.path), *FEW]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == "0 False\n"
    swapped(home / "pictures")
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert told.endswith("5 False\n")
