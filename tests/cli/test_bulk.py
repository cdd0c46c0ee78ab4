"""`cmbench sample` into a folder or an .npz: each sample follows from seed and number, whatever ends the command."""

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torchrun import cmbench_on
from waiting import until

from cmbench.engine import bulk, sample, stores, weights
from cmbench.finite import as_bytes, as_float


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def levels(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.rglob("*.png"))])


def test_bytes_are_what_floats_were_made_of():
    x = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_bytes(as_float(x)), x)
    assert as_bytes(torch.tensor([-7.0, 7.0, torch.nan])).tolist() == [0, 255, 0]


def test_a_sample_follows_from_seed_and_number(cmbench, digits, home):
    """Drawn one by one, by another batch size, among more samples: the same noise, and files to a level."""
    assert cmbench("sample", "--n", 21, "--steps", 3, "--out", "some", "--batch-size", 8).code == 0
    assert cmbench("sample", "--n", 40, "--steps", 3, "--out", "more", "--batch-size", 8).code == 0
    assert cmbench("sample", "--n", 21, "--steps", 3, "--out", "other", "--batch-size", 5, "--seed", 1).code == 0
    assert cmbench("sample", "--n", 21, "--steps", 3, "--out", "again", "--batch-size", 5).code == 0
    some, more = pictures(home / "some"), pictures(home / "more")
    assert sorted(some) == [f"{k:06d}.png" for k in range(21)]
    assert {name: more[name] for name in some} == some
    assert len(set(more.values())) == 40
    assert not set(pictures(home / "other").values()) & set(more.values())
    assert np.abs(levels(home / "again").astype(int) - levels(home / "some")).max() <= 1
    trained = weights.load(digits, torch.device("cpu"))
    record = json.loads((home / "some/samples.json").read_text())["made"]
    one = sample.draw_numbered(trained.model, trained.sampler, [20], record["sigmas"], 0, torch.tensor([0]))
    assert np.abs(as_bytes(one)[0, 0].numpy().astype(int) - levels(home / "some")[20]).max() <= 1
    assert json.loads((home / "some/dataset.json").read_text())["labels"][11] == ["000011.png", 1]


def test_an_npz_holds_the_same_as_published_tools_read_it(cmbench, digits, home):
    ask = ("sample", "--n", 21, "--batch-size", 8, "--out")
    assert cmbench(*ask, "folder").code == 0
    found = json.loads(cmbench(*ask, "x.npz", "--safetensors", "x.safetensors", "--json").out)
    assert (found["drawn"], found["not_finite"], found["files"]) == (21, 0, ["x.npz", "x.safetensors"])
    with np.load(home / "x.npz") as file:
        x, labels = file["arr_0"], file["arr_1"]
    assert (x.shape, x.dtype, labels.tolist()) == ((21, 8, 8, 1), np.uint8, [k % 10 for k in range(21)])
    np.testing.assert_array_equal(x[..., 0], levels(home / "folder"))
    numbers = load_file(home / "x.safetensors")["samples"]
    assert (numbers.shape, numbers.dtype) == ((21, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(as_bytes(torch.from_numpy(numbers))[:, 0].numpy(), x[..., 0])
    assert not list(home.glob("*.partial"))
    with zipfile.ZipFile(home / "x.npz") as archive:
        assert archive.testzip() is None
    assert cmbench(*ask, "three.npz", "--label", 3).code == 0
    with np.load(home / "three.npz") as file:
        assert file["arr_1"].tolist() == [3] * 21


def test_many_lie_in_folders_of_a_thousand_as_before(cmbench, digits, home, monkeypatch):
    monkeypatch.setattr(stores, "_MANY", 1000)
    assert cmbench("sample", "--n", 1100, "--out", "x").code == 0
    assert sorted(p.name for p in (home / "x").iterdir() if p.is_dir()) == ["000000", "001000"]
    assert (home / "x/001000/001099.png").is_file()
    assert cmbench("sample", "--n", 1200, "--out", "x").out.splitlines()[-1].startswith("1,200 samples: x, 1,088 of")
    monkeypatch.setattr(stores, "_MANY", 5000)
    assert cmbench("sample", "--n", 1200, "--out", "x").code == 0
    assert len(pictures(home / "x")) == 1200


class Ending:
    """Ends the command by an error at the k-th batch."""

    def __init__(self, patch, k, error):
        self._block, self._left, self._error = bulk._block, k, error
        patch.setattr(bulk, "_block", self)

    def __call__(self, *given):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._block(*given)


@pytest.mark.parametrize("out", ["x", "x.npz"])
def test_ctrl_c_keeps_what_is_there_and_the_same_command_goes_on(cmbench, digits, home, monkeypatch, out):
    ask = ("sample", "--n", 45, "--batch-size", 8)
    assert cmbench(*ask, "--out", f"whole{out}").code == 0
    with monkeypatch.context() as patch:
        Ending(patch, 3, KeyboardInterrupt())
        ended = cmbench(*ask, "--out", out)
    assert (ended.code, ended.out) == (130, "")
    assert ended.err == "cmbench: 24 of 45 samples are there; the same command goes on\n"
    asked = []
    monkeypatch.setattr(bulk, "_block", lambda *given, block=bulk._block: asked.append(given[-1]) or block(*given))
    assert "24 of them from before" in cmbench(*ask, "--out", out).out
    assert asked == [24, 32, 40]
    if out == "x":
        assert pictures(home / "x") == pictures(home / "wholex")
    else:
        assert (home / "x.npz").read_bytes() == (home / "wholex.npz").read_bytes()
        assert not (home / "x.npz.partial").exists()


@pytest.mark.parametrize("out", ["x", "x.npz"])
def test_a_full_disk_ends_it_in_one_line_and_loses_nothing(cmbench, digits, home, monkeypatch, out):
    ask = ("sample", "--n", 45, "--batch-size", 8)
    assert cmbench(*ask, "--out", f"whole{out}").code == 0
    left = [20 if out == "x" else 2]  # files, or batches, for which there is room
    write, pwrite = stores.files.write_all, os.pwrite

    def full(function, *given):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return function(*given)

    with monkeypatch.context() as patch:
        if out == "x":
            assert cmbench(*ask, "--n", 1, "--out", out).code == 0  # its record is there
            patch.setattr("cmbench.rundir.files.write_all", lambda *given: full(write, *given))
        else:
            patch.setattr(os, "pwrite", lambda *given: full(pwrite, *given))
        ended = cmbench(*ask, "--out", out)
    assert (ended.code, ended.out) == (75, "")
    said = f"cmbench: --out {out}: cannot be written: No space left on device; 16 of 45 samples are there; the same"
    assert ended.err == f"{said} command goes on\n"
    assert not list(home.rglob("*.tmp"))
    assert cmbench(*ask, "--out", out).code == 0
    if out == "x":
        assert pictures(home / "x") == pictures(home / "wholex")
    else:
        assert (home / "x.npz").read_bytes() == (home / "wholex.npz").read_bytes()


@pytest.mark.long
def test_a_killed_command_is_taken_up(cmbench, digits, home):
    ask = ["sample", "--batch-size", "8", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for out, is_begun in (
        ("x", lambda: len(pictures(home / "x")) > 40),
        ("x.npz", lambda: (home / "x.npz.partial/samples.raw").stat().st_size > 40 * 64),
    ):
        command = [sys.executable, "-m", "cmbench", *ask, out, "--n", "100000"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: (home / out).exists() or (home / f"{out}.partial/samples.raw").exists())  # noqa: B023
        until(is_begun)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert cmbench(*ask, "x.npz", "--n", 60).code == 0
    assert cmbench(*ask, "whole.npz", "--n", 60).code == 0
    assert (home / "x.npz").read_bytes() == (home / "whole.npz").read_bytes()
    with np.load(home / "whole.npz") as file:
        whole = file["arr_0"][:, :, :, 0]
    own = home / "x/000000"
    (own / "000007.png").write_bytes((own / "000007.png").read_bytes()[:-9])  # a power cut
    (own / "000009.png").write_bytes(b"")
    assert cmbench(*ask, "x", "--n", 60).code == 0
    np.testing.assert_array_equal(np.stack([np.array(Image.open(own / f"{k:06d}.png")) for k in range(60)]), whole)


OTHERS = {
    "seed": (["--seed", "1"], "begun with seed 0, asked for 1"),
    "steps": (["--steps", "2"], "begun with sigmas [80.0], asked for [80.0, "),
    "class": (["--label", "3"], "begun with class 'all in turn', asked for 3"),
    "average": (["--ema", "none"], "begun with ema '0.9', asked for 'none'"),
}


@pytest.mark.parametrize("more", OTHERS.values(), ids=OTHERS)
def test_samples_of_other_settings_are_refused_in_one_line(cmbench, digits, home, monkeypatch, more):
    given, says = more
    assert cmbench("sample", "--n", 3, "--out", "x").code == 0
    with monkeypatch.context() as patch:
        Ending(patch, 1, KeyboardInterrupt())
        assert cmbench("sample", "--n", 9, "--batch-size", 4, "--out", "x.npz").code == 130
    before = {path: path.read_bytes() for path in home.rglob("x*/*") if path.is_file()}
    for out in ("x", "x.npz"):
        refused = cmbench("sample", "--n", 3, "--out", out, *given)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert refused.err.startswith(f"cmbench: --out {out}: ")
        assert says in refused.err
    assert {path: path.read_bytes() for path in home.rglob("x*/*") if path.is_file()} == before


def test_another_run_is_refused_and_a_renamed_one_is_not(cmbench, digits, home, trained):
    assert cmbench("sample", digits.name, "--n", 3, "--out", "x").code == 0
    digits.path.rename(digits.path.with_name("other"))
    assert cmbench("sample", "other", "--n", 4, "--out", "x").code == 0
    refused = cmbench("sample", trained.name, "--n", 4, "--out", "x")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "a folder takes pictures of one or three colours, not samples of shape [2]" in refused.err


def test_a_folder_of_other_files_is_left_alone(cmbench, digits, home):
    (home / "x").mkdir()
    (home / "x/mine.txt").write_text("mine")
    refused = cmbench("sample", "--n", 3, "--out", "x")
    assert refused.code == 2
    assert "--out x: found 'mine.txt' there, allowed: a new or empty folder" in refused.err
    assert [path.name for path in (home / "x").iterdir()] == ["mine.txt"]


@pytest.mark.long
def test_ranks_write_the_files_of_one(cmbench, digits, home):
    ask = ["sample", digits.name, "-n", 45, "--steps", 2, "--batch-size", 8, "--out"]
    ended = cmbench_on(3, *ask, "three")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert cmbench_on(2, *ask, "two.npz").returncode == 0
    assert cmbench(*ask, "one").code == 0
    assert cmbench(*ask, "one.npz").code == 0
    assert pictures(home / "three") == pictures(home / "one")
    assert (home / "two.npz").read_bytes() == (home / "one.npz").read_bytes()


def test_two_options_for_one_file_are_refused_before_anything_is_drawn(cmbench, digits, home):
    for name in ("x", "x.npz", "x.npy", "x.png"):
        refused = cmbench("sample", "--n", 3, "--out", name, "--safetensors", f"./{name}")
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)
        assert f"--out, --safetensors: found '{name}' for both, allowed: two files" in refused.err
        assert not list(home.glob("x*"))
    refused = cmbench("eval", "--markdown", "x", "--png", "x", "--steps", "1,2")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--markdown, --png: found 'x' for both" in refused.err


def test_the_numbers_are_safetensors_whatever_their_file_is_called(cmbench, digits, home):
    assert cmbench("sample", "--n", 3, "--out", "x", "--safetensors", "numbers.npz").code == 0
    assert load_file(home / "numbers.npz")["samples"].shape == (3, 1, 8, 8)


@pytest.mark.parametrize("path", [".", "", "/", "..", "a" * 300, "a\0b", f"{'a' * 300}.npz"])
def test_paths_that_are_no_files_are_refused_in_one_line(cmbench, digits, home, path):
    for given in (["--out", "x", "--safetensors", path], ["--out", path, "--safetensors", "x"]):
        (home / "mine.txt").touch()
        refused = cmbench("sample", "--n", 3, *given)
        assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1), refused.err


def test_nothing_is_begun_where_one_of_two_places_is_taken(cmbench, digits, home):
    (home / "taken").mkdir()
    for out in ("x", "x.npz"):
        assert cmbench("sample", "--n", 3, "--out", out, "--safetensors", "taken").code == 2
    assert [path.name for path in home.glob("x*")] == []


def test_files_of_others_beside_a_file_in_the_making_are_left_alone(cmbench, digits, home):
    (home / "x.npz.partial").mkdir()
    (home / "x.npz.partial/mine.txt").write_text("mine")
    refused = cmbench("sample", "--n", 3, "--out", "x.npz")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "--out x.npz: x.npz.partial: found 'mine.txt' there, allowed: a new or empty folder" in refused.err
    assert not (home / "x.npz").exists()


def test_a_pipe_among_the_pictures_is_no_picture(cmbench, digits, home):
    assert cmbench("sample", "--n", 3, "--out", "x").code == 0
    before = pictures(home / "x")
    (home / "x/000001.png").unlink()
    os.mkfifo(home / "x/000001.png")
    assert cmbench("sample", "--n", 3, "--out", "x").code == 0
    assert pictures(home / "x") == before


def test_fewer_samples_leave_the_labels_of_those_that_are_there(cmbench, digits, home):
    assert cmbench("sample", "--n", 12, "--out", "x").code == 0
    before = (home / "x/dataset.json").read_bytes()
    assert cmbench("sample", "--n", 5, "--out", "x").code == 0
    assert (home / "x/dataset.json").read_bytes() == before


def test_the_later_of_two_commands_for_one_file_ends_in_one_line(cmbench, digits, home, monkeypatch):
    def completed_by_another(*given, block=bulk._block):
        monkeypatch.setattr(bulk, "_block", block)
        assert cmbench("sample", "--n", 9, "--out", "x.npz").code == 0
        return block(*given)

    monkeypatch.setattr(bulk, "_block", completed_by_another)
    ended = cmbench("sample", "--n", 9, "--out", "x.npz")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--out x.npz: x.npz.partial is gone; another such command has completed it" in ended.err
    with np.load(home / "x.npz") as file:
        assert file["arr_0"].shape == (9, 8, 8, 1)
    assert not (home / "x.npz.partial").exists()
