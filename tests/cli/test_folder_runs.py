"""Runs on folders of pictures that are not square: decoded once for run, resume and eval; equal from a mapped file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench import finite
from cmbench.engine import checkpoint
from cmbench.pictures import workers
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import select


@pytest.fixture
def decodings(monkeypatch, tmp_path_factory):
    """How often pictures are decoded, with a cache of the test's own."""
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("own")))
    counted, decode = [], workers.decoded
    monkeypatch.setattr(workers, "decoded", lambda *a, **k: counted.append(1) or decode(*a, **k))
    return counted


@pytest.fixture
def pictures(home):
    for i in range(24):
        path = home / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (9, 14, 3), dtype=np.uint8)).save(path)
    return home / "pictures"


SHORT = ["data={kind='images',name='folder',root='pictures',size=[8,12],held_out=0.3}", "train.steps=4"]
UNET = "network={kind='unet',width=8,multipliers=[1,1],depth=1,attention=[4],class_conditional=true}"
DIT = "network={kind='dit',width=8,depth=1,heads=2,patch=4}"
GREY = "data={kind='images',name='folder',root='pictures',size=[8,12],held_out=0.3,channels=1}"


def start(cmbench, *overrides) -> RunDir:
    given = [part for override in [*SHORT, *overrides] for part in ("--set", override)]
    done = cmbench("run", "tiny.toml", "--foreground", *given)
    assert done.code == 0, done.err
    return select("@latest", Path("runs"))


def weights(run, step):
    return checkpoint.load(run, step)["model"]


@pytest.mark.parametrize("overrides", [(UNET,), (DIT,), (UNET, GREY)], ids=["unet", "dit", "grey"])
def test_a_run_is_trained_sampled_measured_and_resumed_by_one_decoding(cmbench, pictures, decodings, overrides):
    run = start(cmbench, *overrides)
    done = cmbench("resume", run.name, "--foreground", "--set", "train.steps=6")
    assert done.code == 0, done.err
    assert cmbench("eval", run.name, "--n", "8", "--repeats", "2", "--steps", "1").code == 0
    sampled = cmbench("sample", run.name, "-n", "4", "--out", "s.png")
    assert sampled.code == 0, sampled.err
    with Image.open("s.png") as sheet:
        assert sheet.size == (2 * 48 + 3 * 2, 2 * 32 + 3 * 2)  # four times as large, two in a row
    assert sorted(path.suffix for path in run.snapshots.glob("0*"))
    assert len(decodings) == 1


@pytest.mark.long
def test_a_run_from_a_mapped_file_equals_one_in_memory_bit_for_bit(cmbench, pictures, monkeypatch, decodings):
    inside = start(cmbench, UNET)
    monkeypatch.setattr(finite, "_KEEP_ON_DEVICE", 0)
    mapped = start(cmbench, UNET, "name=mapped")
    assert inside.name != mapped.name
    for name, tensor in weights(inside, 4).items():
        assert torch.equal(tensor, weights(mapped, 4)[name])
    assert cmbench("eval", mapped.name, "--n", "8", "--repeats", "2", "--steps", "1").code == 0
    assert len(decodings) == 1


def test_a_run_whose_cache_was_deleted_is_taken_up_bit_for_bit(
    cmbench, pictures, monkeypatch, tmp_path_factory, decodings
):
    run = start(cmbench, UNET, "train.steps=6", "checkpoint.every=3")
    before = weights(run, 6)
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("another")))
    done = cmbench("resume", run.name, "--foreground", "--checkpoint", "3", "--set", "train.steps=6")
    assert done.code == 0, done.err
    for name, tensor in weights(run, 6).items():
        assert torch.equal(tensor, before[name])
    assert len(decodings) == 2


def test_a_folder_that_cannot_be_prepared_makes_no_run(cmbench, home, pictures, monkeypatch):
    (home / "full").write_text("")
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(home / "full" / "cache"))
    done = cmbench("run", "tiny.toml", "--foreground", *[p for o in [*SHORT, UNET] for p in ("--set", o)])
    assert done.code == 2
    assert "CMBENCH_CACHE_DIR=FOLDER puts decoded pictures elsewhere" in done.err
    assert done.err.count("\n") == 1
    assert not (home / "runs").exists() or not list((home / "runs").iterdir())
