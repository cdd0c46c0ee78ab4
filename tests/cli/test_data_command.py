"""`cmbench data describe`: figures against numpy, of files, folders and recipes."""

import contextlib
import json

import numpy as np
import pytest
from PIL import Image
from tiny import TINY

from cmbench import progress
from cmbench.cli import _progress, _screen
from cmbench.engine import description


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(description, "_BLOCK", 200)


def described(cmbench, *arguments):
    found = cmbench("data", "describe", *arguments, "--json")
    assert found.code == 0, found.err
    return json.loads(found.out)


def test_the_figures_of_a_file_are_those_of_numpy(cmbench, home):
    random = np.random.default_rng(0)
    x = (random.normal(size=(50, 4, 6, 6)) * [[[[1]], [[2]], [[3]], [[4]]]] + 1).astype(np.float32)
    np.savez(home / "x.npz", x=x, t=x[:5], y=np.arange(50) % 3, u=np.arange(5) % 3)
    names = ["samples=x", "labels=y", "held_out_samples=t", "held_out_labels=u"]
    found = described(cmbench, "x.npz", *(part for name in names for part in ("--set", f"data.{name}")))
    assert (found["samples"], found["held_out"], found["shape"], found["classes"]) == (50, 5, [4, 6, 6], 3)
    assert found["counts"] == [17, 17, 16]
    assert found["whole"]["mean"] == pytest.approx(x.mean(), rel=1e-5)
    assert found["whole"]["deviation"] == pytest.approx(x.std(), rel=1e-5)
    assert (found["whole"]["low"], found["whole"]["high"]) == (x.min(), x.max())
    assert [own["deviation"] for own in found["channels"]] == pytest.approx(x.std(axis=(0, 2, 3)).tolist(), rel=1e-5)
    assert found["sigma_data"] == float(f"{x.std():.2g}")
    assert found["of_recipe"] is None


def test_text_names_classes_and_channels(cmbench, home):
    (home / "x.csv").write_text("a,b,kind\n" + "".join(f"{i},{2 * i},{'dog' if i % 3 else 'cat'}\n" for i in range(20)))
    found = cmbench("data", "describe", "x.csv", "--set", "data.labels=kind")
    assert found.code == 0
    assert "points [2] of float64" in found.out
    assert "path.sigma_data" in found.out
    rows = [line.split() for line in found.out.splitlines()]
    assert ["1", "dog", "12"] in rows or ["1", "dog", "11"] in rows or ["1", "dog", "13"] in rows
    assert found.err == ""


def test_a_recipe_is_told_where_its_sigma_data_is_far_off(cmbench, home):
    np.save(home / "x.npy", np.random.default_rng(0).normal(size=(100, 2)) * 3)
    (home / "mine.toml").write_text(TINY.replace('kind = "mixtures"\nname = "ring"', 'kind = "arrays"\nroot = "x.npy"'))
    found = cmbench("data", "describe", "mine.toml")
    assert (found.code, found.err.count("\n")) == (0, 1)
    assert "path.sigma_data: found 0.5, far from the standard deviation, " in found.err
    assert "(the recipe has 0.5)" in found.out
    near = cmbench("data", "describe", "mine.toml", "--set", "path.sigma_data=3.0")
    assert near.err == ""


def test_lines_fit_a_terminal_of_80_columns(cmbench, home, monkeypatch):
    np.savez(home / "x.npz", x=np.random.default_rng(0).normal(size=(40, 2)), y=[f"class {i % 4}" for i in range(40)])
    given = ("data", "describe", "x.npz", "--set", "data.samples=x", "--set", "data.labels=y")
    whole = cmbench(*given).out
    assert max(map(len, whole.splitlines())) > 80
    monkeypatch.setattr(_screen, "is_terminal", lambda err=False: not err)
    monkeypatch.setenv("COLUMNS", "80")
    folded = cmbench(*given).out
    assert max(map(len, folded.splitlines())) <= 80
    assert folded.split() == whole.split()


def test_how_far_long_work_is_is_told(cmbench, home, monkeypatch):
    """Decoding, and looking at all samples."""
    seen = []

    class Told(progress.Progress):
        def counting(self, what, of):
            seen.append((what, of))
            return contextlib.nullcontext(lambda n: None)

    monkeypatch.setattr(_progress, "shown", lambda first="": progress.telling(Told()))
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(home / "cache"))
    (home / "p").mkdir()
    for i in range(10):
        Image.new("RGB", (8, 8), (20 * i, 0, 255)).save(home / "p" / f"{i}.png")
    assert cmbench("data", "describe", "p", "--set", "data.size=8").code == 0
    assert seen == [("decoding pictures", 10), ("looking at samples", 9)]


def test_data_without_end_are_drawn(cmbench, home, monkeypatch):
    monkeypatch.setattr(description, "_DRAWN", 4000)
    found = described(cmbench, "tiny.toml")
    assert (found["samples"], found["looked_at"], found["sigma_data"]) == (None, 4000, 0.5)


def test_folders_of_pictures_and_of_edm_are_known(cmbench, home):
    for name in ("cat", "dog"):
        (home / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (40 * i, 0, 255)).save(home / "pictures" / name / f"{i}.png")
    found = described(cmbench, "pictures", "--set", "data.size=8")
    assert (found["kind"], found["names"], found["shape"]) == ("images", ["cat", "dog"], [3, 8, 8])
    (home / "pictures" / "dataset.json").write_text('{"labels": null}')
    found = described(cmbench, "pictures")
    assert (found["kind"], found["classes"], found["samples"]) == ("edm", 1, 5)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["none.npy"], 2, "no samples at none.npy"),
        (["none"], 2, "no such recipe"),
        (["x.txt"], 2, "found a file of kind .txt, allowed: a recipe, a folder"),
        (["x.npy", "--set", "path.sigma_data=1"], 2, "--set: found path, allowed for a file or folder: keys of data"),
        (["x.npy", "--set", "data.scal=1"], 2, "data.scal: unknown key; did you mean 'scale'?"),
        (["empty"], 2, "data.root: no pictures at"),
    ],
)
def test_what_cannot_be_described_is_one_line(cmbench, home, arguments, code, why):
    np.save(home / "x.npy", np.zeros((3, 2)))
    (home / "x.txt").write_text("")
    (home / "empty").mkdir()
    found = cmbench("data", "describe", *arguments)
    assert (found.code, found.out, found.err.count("\n")) == (code, "", 1), found
    assert why in found.err
