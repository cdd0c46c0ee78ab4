"""`cmbench export` of generators: loaded where cmbench cannot be imported, equal samples, and all or nothing."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cmbench.engine import checkpoint
from cmbench.engine.exporting import export, formats, generator

FILES = {
    "torch": {"README.md", "generator.json", "generator.pt2", "samples.png"},
    "safetensors": {"README.md", "generator.json", "F_theta.safetensors", "samples.png"},
    "onnx": {"README.md", "generator.json", "generator.onnx", "samples.png"},
}
# The card's own code must run where cmbench is not: its last line gives x.
ALONE = "import sys\nsys.modules['cmbench'] = None\n{usage}\nprint(tuple(x.shape))"


def needs(kind):
    if kind == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "kind", ["torch", *(pytest.param(kind, marks=pytest.mark.long) for kind in FILES if kind != "torch")]
)
def test_a_run_is_exported_and_its_card_says_how_to_use_it(cmbench, trained, home, kind):
    needs(kind)
    done = cmbench("export", trained.path, "--as", kind, "--steps", 2, "--ema", "0.5", "--out", "a/b", "--json")
    assert done.code == 0, done
    told = json.loads(done.out)
    assert told["difference"] < 1e-5
    assert (told["as"], told["step"], told["ema"], len(told["sigmas"])) == (kind, 12, "0.5", 2)
    assert names(home / "a" / "b") == FILES[kind]
    assert sorted(told["files"]) == sorted(f"a/b/{name}" for name in FILES[kind])
    card = (home / "a" / "b" / "README.md").read_text()
    for said in (
        "tiny",
        "| cost of training |",
        "2 forward passes",
        "noise N(0, 1) of each later step",
        "ct on the edm",
    ):
        assert said in card
    if kind != "safetensors":
        usage = card.partition("```python\n")[2].partition("\n```")[0]
        ran = [sys.executable, "-c", ALONE.format(usage=usage)]
        shape = subprocess.run(ran, cwd=home / "a" / "b", capture_output=True, text=True, check=True).stdout
        assert shape == "(4, 2)\n"


@pytest.mark.long
def test_the_file_of_weights_holds_the_chosen_average(cmbench, conditional, home):
    assert cmbench("export", conditional.path, "--as", "safetensors", "--out", "x", "--checkpoint", 10).code == 0
    there = checkpoint.load_group(conditional, 10, "ema_0.9")
    found = load_file(home / "x" / "F_theta.safetensors")
    assert {f"F_theta.{name}" for name in found} == {name for name in there if name.startswith("F_theta.")}
    assert all(torch.equal(found[name], there[f"F_theta.{name}"]) for name in found)
    told = json.loads((home / "x" / "generator.json").read_text())
    assert told["classes"] == 8
    assert told["network"]["class_conditional"] is True


@pytest.mark.long
def test_a_conditional_run_takes_labels(cmbench, conditional, home):
    assert cmbench("export", conditional.path, "--as", "torch", "--out", "x").code == 0
    generate = torch.export.load(home / "x" / "generator.pt2").module()
    latents = torch.randn(1, 2).repeat(8, 1)
    assert not torch.equal(*generate(latents=latents, labels=torch.arange(8))[:2])


@pytest.mark.long
@pytest.mark.long
def test_a_teacher_is_exported_with_its_steps(cmbench, teacher):
    done = cmbench("export", teacher.path, "--as", "torch", "--steps", 3, "--out", "x", "--json")
    assert done.code == 0, done
    assert len(json.loads(done.out)["sigmas"]) == 3


@pytest.mark.long
@pytest.mark.long
def test_measures_of_these_weights_stand_on_the_card(cmbench, trained, home):
    arguments = ("--measures", "sliced_wasserstein", "--n", 64, "--repeats", 2, "--ema", "0.9", "--steps", 1)
    assert cmbench("eval", trained.path, *arguments).code == 0
    assert cmbench("export", trained.path, "--as", "torch", "--out", "x").code == 0
    assert "| sliced_wasserstein" in (home / "x" / "README.md").read_text()
    assert cmbench("export", trained.path, "--as", "torch", "--out", "y", "--ema", "none").code == 0
    assert "| sliced_wasserstein" not in (home / "y" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--as, --metrics: found neither, allowed: one"),
        (["--as", "torch", "--metrics", "csv"], "--as, --metrics: found both, allowed: one"),
        (["--as", "torhc"], "--as: found 'torhc', allowed: safetensors, torch, onnx, diffusers; did you mean 'torch'?"),
        (["--metrics", "cvs"], "--metrics: found 'cvs', allowed: csv, parquet, tensorboard; did you mean 'csv'?"),
        (["--as", "torch", "--out", "full"], "--out full: found a folder that is not empty"),
        (["--metrics", "csv", "--out", "tiny.toml"], "--out tiny.toml: found something that is no folder"),
        (["--as", "torch", "--out", "tiny.toml/x"], "--out tiny.toml/x: cannot be written: Not a directory"),
        (["--as", "torch", "--ema", "0.7", "--out", "x"], "--ema: found '0.7', allowed: 0.9, 0.5, none"),
        (["--as", "diffusers", "--out", "x"], "network.kind: found 'mlp', the pipeline computes 'diffusers'; allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(cmbench, trained, home, arguments, said):
    if "diffusers" in arguments:
        pytest.importorskip("diffusers")
    (home / "full").mkdir()
    (home / "full" / "x").write_text("")
    before = names(home)
    done = cmbench("export", trained.path, *arguments)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert names(home) == before


def test_a_missing_out_is_named(cmbench, trained):
    done = cmbench("export", trained.path, "--as", "torch")
    assert (done.code, done.err) == (2, "cmbench: --out: missing; allowed: a new or an empty folder\n")


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["--as", "onnx"], "onnxscript", "onnx"),
        (["--as", "diffusers"], "diffusers", "diffusers"),
        (["--metrics", "parquet"], "pyarrow", "export"),
        (["--metrics", "tensorboard"], "tensorboard", "export"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(cmbench, trained, home, monkeypatch, arguments, package, extra):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )
    done = cmbench("export", trained.path, *arguments, "--out", "x")
    assert done.code == 2
    assert package in done.err
    assert f"pip install 'cmbench[{extra}]'" in done.err
    assert not (home / "x").exists()


@pytest.mark.long
def test_an_empty_folder_is_taken_and_what_a_killed_command_left_is_removed(cmbench, trained, home):
    (home / "x").mkdir()
    left = home / ".x.9999999.tmp"
    left.mkdir()
    assert cmbench("export", trained.path, "--as", "torch", "--out", "x").code == 0
    assert names(home / "x") == FILES["torch"]
    assert not left.exists()


@pytest.mark.long
@pytest.mark.long
def test_an_export_that_differs_is_not_kept(cmbench, trained, home, monkeypatch):
    """As if a part of the function were lost on the way."""
    made = generator.of

    def wrong(own, sigmas):
        found = made(own, sigmas)
        next(found.F_theta.parameters()).mul_(1.5)
        return found

    monkeypatch.setattr(export.generator, "of", wrong)
    before = names(home)
    for kind in ("torch", "safetensors"):
        done = cmbench("export", trained.path, "--as", kind, "--out", "a/b/c")
        assert done.code == 1
        assert "samples of the export differ from cmbench's by" in done.err
    assert names(home) == before


def test_a_full_disk_leaves_nothing(cmbench, trained, home, monkeypatch):
    before = names(home)
    monkeypatch.setattr(formats, "write_all", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    done = cmbench("export", trained.path, "--as", "torch", "--out", "a/b")
    assert (done.code, done.err) == (2, "cmbench: --out a/b: cannot be written: No space left\n")
    assert names(home) == before


@pytest.mark.long
@pytest.mark.long
def test_a_folder_that_fills_meanwhile_is_kept(cmbench, trained, home, monkeypatch):
    written = export.card.written

    def meanwhile(*given):
        (home / "x").mkdir()
        (home / "x" / "mine").write_text("mine")
        return written(*given)

    monkeypatch.setattr(export.card, "written", meanwhile)
    done = cmbench("export", trained.path, "--as", "torch", "--out", "x")
    assert done.code == 2
    assert names(home / "x") == {"mine"}
    assert not [path for path in home.iterdir() if path.name.endswith(".tmp")]


def test_help_loads_no_torch(home):
    script = "import sys; sys.argv = ['cmbench', 'export', '--help']\nfrom cmbench.cli import main\nmain.exit_code()\n"
    script += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ}, capture_output=True, text=True)
    assert done.returncode == 0
    assert "--as" in done.stdout


def test_an_export_needs_the_blocked_process(cmbench, trained, monkeypatch):
    """The block is real: a script that imports cmbench fails."""
    read = Path.read_text

    def changed(path, **how):
        return read(path, **how).replace("def main(", "import cmbench.model\n\n\ndef main(")

    monkeypatch.setattr(Path, "read_text", changed)
    done = cmbench("export", trained.path, "--as", "torch", "--out", "x")
    assert done.code == 1
    assert "the export does not run without cmbench" in done.err
    assert done.err.count("\n") == 1
