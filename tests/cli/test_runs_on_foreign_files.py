"""Runs on EDM's sets and on arrays: from a mapped file as from memory, taken up bit for bit, and held to their data."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench import finite
from cmbench.data import arrays
from cmbench.engine import checkpoint
from cmbench.pictures import workers
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import select

UNET = "network={kind='unet',width=8,multipliers=[1],depth=1,class_conditional=true}"
AUGMENTED = "network={kind='ddpmpp',width=8,multipliers=[1,1],depth=1,attention=[],augment_labels=2}"


def edm(home, ending, seed=0):
    """24 pictures or latents of two classes in EDM's form."""
    random = np.random.default_rng(seed)
    names = [f"00000/img{i:08d}.{'npy' if ending == 'npy' else 'png'}" for i in range(24)]
    with zipfile.ZipFile(home / "set.zip", "w") as archive:
        for name in names:
            file = io.BytesIO()
            if ending == "npy":
                np.save(file, random.normal(size=(3, 8, 8)).astype(np.float16))
            else:
                x = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(x if ending == "png" else x[..., 0]).save(file, "PNG")
            archive.writestr(name, file.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]}))
    return "data={kind='edm',root='set.zip',held_out=0.3}"


def npz(home, dtype, seed=0):
    x = np.random.default_rng(seed).integers(0, 256, (24, 3, 8, 8)).astype(dtype)
    np.savez(home / "set.npz", x=x, y=np.arange(24) % 2)
    scaled = "" if dtype == np.uint8 else ",deviation=0.5"
    return f"data={{kind='arrays',root='set.npz',samples='x',labels='y',held_out=0.3{scaled}}}"


KINDS = {
    "pictures": lambda home, seed=0: edm(home, "png", seed),
    "grey": lambda home, seed=0: edm(home, "grey", seed),
    "latents": lambda home, seed=0: edm(home, "npy", seed),
    "bytes": lambda home, seed=0: npz(home, np.uint8, seed),
    "floats": lambda home, seed=0: npz(home, np.float16, seed),
}


def start(cmbench, *overrides) -> RunDir:
    given = [part for override in ("train.steps=4", *overrides) for part in ("--set", override)]
    done = cmbench("run", "tiny.toml", "--foreground", *given)
    assert done.code == 0, done.err
    return select("@latest", Path("runs"))


def assert_equal(run, other, step):
    then, now = (checkpoint.load(each, step)["model"] for each in (run, other))
    assert then.keys() == now.keys()
    for name, tensor in then.items():
        assert torch.equal(tensor, now[name]), name


def mapped(monkeypatch):
    monkeypatch.setattr(finite, "_KEEP_ON_DEVICE", 0)
    monkeypatch.setattr(arrays, "_SMALL", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_mapped_data_train_as_data_in_memory_and_are_taken_up_bit_for_bit(cmbench, home, monkeypatch, kind):
    data = KINDS[kind](home)
    inside = start(cmbench, data, UNET, "train.steps=6")
    mapped(monkeypatch)
    decodings, decode = [], workers.decoded
    monkeypatch.setattr(workers, "decoded", lambda *a, **k: decodings.append(1) or decode(*a, **k))
    run = start(cmbench, data, UNET, "name=mapped", "checkpoint.every=3", "train.steps=6")
    assert_equal(run, inside, 6)
    straight = shutil.copytree(run.path, home / "straight")
    done = cmbench("resume", run.name, "--foreground", "--checkpoint", "3", "--set", "train.steps=6")
    assert done.code == 0, done.err
    assert_equal(run, RunDir(straight), 6)
    assert cmbench("eval", run.name, "--n", "6", "--repeats", "2", "--steps", "1").code == 0
    assert decodings == []


@pytest.mark.parametrize("kind", ["pictures", "floats"])
def test_parts_of_a_batch_of_mapped_data_are_changed_as_the_whole(cmbench, home, monkeypatch, kind):
    mapped(monkeypatch)
    changes = ["data.augment=0.9", "data.augment_by=['flip_x','scale']", "data.horizontal_flip=true"]
    data, *rest = KINDS[kind](home), AUGMENTED, *changes, "train.batch_size=6"
    whole = start(cmbench, data, *rest)
    parts = start(cmbench, data, *rest, "name=parts", "train.micro_batch_size=2")
    then, now = (checkpoint.load(each, 4)["model"] for each in (whole, parts))
    for name, tensor in then.items():
        assert torch.allclose(tensor, now[name], atol=1e-4), name


@pytest.mark.parametrize("kind", KINDS)
def test_other_data_are_refused_and_taken_with_consent(cmbench, home, kind):
    run = start(cmbench, KINDS[kind](home), UNET)
    KINDS[kind](home, seed=1)
    measured = ("eval", run.name, "--n", "6", "--repeats", "2", "--steps", "1")
    taken_up = ("resume", run.name, "--foreground", "--set", "train.steps=6")
    for command in (measured, taken_up):
        done = cmbench(*command)
        assert (done.code, done.err.count("\n")) == (5, 1), done.err
        done = cmbench(*command, "--other-data")
        assert done.code == 0, done.err
