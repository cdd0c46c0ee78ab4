"""Data of one's own, from the file to samples: described, trained on, sampled in their units, measured, moved."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake_runs import read_rows
from PIL import Image
from tiny import set_options

from cmbench import consent
from cmbench.cli import _arrays, _picture
from cmbench.engine import snapshot
from cmbench.rundir.files import read_json
from cmbench.rundir.select import all_runs
from cmbench.tui.widgets import drawing

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
UNET = "network={kind='unet', width=8, depth=1, multipliers=[1], class_conditional=true}"
QUICK = ["evaluate.every=0", "train.steps=4", "checkpoint.every=2", "snapshot.every=4"]
MEAN = np.array([1, -2, 3, 0], np.float32)[:, None, None]


def latents(path, n=40, seed=0):
    """Latents of mean (1, -2, 3, 0) and standard deviation 5, of three classes."""
    x = np.random.default_rng(seed).normal(size=(n, 4, 8, 8)) * 5 + MEAN
    np.savez(path, x=x.astype(np.float16), y=np.arange(n) % 3)


def sets(root, **keys):
    own = "".join(f", {key}={value!r}" for key, value in {"kind": "arrays", "root": root, **keys}.items())[2:]
    return ["run", "tiny.toml", *set_options([f"data={{{own}}}", *QUICK])]


@pytest.fixture
def trained_on_latents(cmbench, home):
    latents(home / "latents.npz")
    found = cmbench(
        *sets("latents.npz", samples="x", labels="y", deviation=0.5), "--set", UNET, "--set", "snapshot.every=4"
    )
    assert found.code == 0, found.err
    (run,) = all_runs(home / "runs")
    return run


def test_latents_are_trained_on_and_sampled_in_their_units(cmbench, home, trained_on_latents):
    run = trained_on_latents
    data = read_json(run.meta)["data"]
    assert (data["count"], data["held_out"], data["shape"], data["classes"]) == (36, 4, [4, 8, 8], 3)
    assert data["scale"] == pytest.approx(0.1, rel=0.05)
    assert data["shift"] == pytest.approx([1, -2, 3, 0], abs=0.5)
    assert [row for row in read_rows(run.events) if row["kind"] == "warning"] == []
    for name in ("s.npy", "s.npz", "s.png", "again.npz"):
        assert cmbench("sample", run.name, "--n", "5", "--out", name).code == 0
    with np.load(home / "s.npz") as found:
        x, labels = found["samples"], found["labels"]
    assert (x.shape, x.dtype, labels.tolist()) == ((5, 4, 8, 8), np.float32, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(np.load(home / "s.npy"), x)
    assert (home / "s.npz").read_bytes() == (home / "again.npz").read_bytes()
    assert cmbench("sample", run.name, "--n", "5", "--safetensors", "s.safetensors").code == 0
    from safetensors.numpy import load_file

    own = load_file(home / "s.safetensors")["samples"]
    shift = np.array(data["shift"])[:, None, None]
    np.testing.assert_allclose((x - shift) * data["scale"], own, rtol=1e-4, atol=1e-4)


def test_snapshots_of_latents_show_three_channels_and_say_so(cmbench, trained_on_latents):
    caption = "channels 1 to 3 of 4, from -1.5 to 1.5"
    (path,) = trained_on_latents.snapshots.glob("*_1step.png")
    shown = drawing.load(path, None)
    assert shown.note == caption
    assert shown.tiles.shape == (2, 2, 8, 8, 3)
    assert not list(trained_on_latents.snapshots.glob("*_1step.safetensors"))
    assert list(trained_on_latents.snapshots.glob("*_film.safetensors"))
    assert caption in cmbench("sample", trained_on_latents.name, "--n", "2").out


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 16])
def test_samples_of_any_number_of_channels_become_a_picture(channels, capsys):
    import torch

    x = torch.linspace(-3, 3, channels)[None, :, None, None].expand(4, channels, 5, 6).clone()
    seen, caption = snapshot.as_seen(x)
    assert seen.shape == (4, 3 if channels > 2 else 1, 5, 6)
    assert bool(caption) == (channels not in (1, 3))
    if caption:
        torch.testing.assert_close(seen, x[:, : seen.shape[1]] / 1.5)
    with Image.open(io.BytesIO(snapshot.to_png(x))) as image:
        assert image.info.get("Comment", "") == caption
    _picture.show(x)
    assert caption in capsys.readouterr().out


def test_a_run_on_arrays_is_resumed_and_measured_where_they_have_moved_and_not_on_others(
    cmbench, home, trained_on_latents
):
    name = trained_on_latents.name
    more = ["--foreground", "--set", "train.steps=6"]
    asked = ["eval", name, "--steps", "1", "--n", "4", "--repeats", "2", "--measures", "sliced_wasserstein", "--json"]
    first = json.loads(cmbench(*asked).out)["runs"][0]["figures"]
    (home / "latents.npz").rename(home / "moved.npz")
    gone = cmbench("resume", name, *more)
    assert (gone.code, gone.err.count("\n")) == (2, 1)
    assert "--set data.root=FOLDER" in gone.err
    latents(home / "latents.npz", seed=1)
    for command in (["resume", name, *more], asked):
        other = cmbench(*command)
        assert (other.code, other.err.count("\n")) == (5, 1), other.err
        assert "its data have changed: they are as many as before, of other content" in other.err
    again = cmbench(*asked, "--set", "data.root=moved.npz")
    assert json.loads(again.out)["runs"][0]["figures"][0]["value"] == first[0]["value"]
    assert cmbench("resume", name, *more, "--set", "data.root=moved.npz").code == 0


def test_arrays_of_others_are_read_with_consent_alone(cmbench, home, trained_on_latents, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "nobody"))
    consent.forget()
    refused = cmbench("resume", trained_on_latents.name, "--foreground", "--set", "train.steps=6")
    assert refused.code == 2
    assert "not trusted" in refused.err


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_points_are_trained_on(cmbench, home, kind):
    x = np.random.default_rng(0).normal(size=(60, 2)) * 0.5
    if kind == "npy":
        np.save(home / "x.npy", x)
    else:
        np.savetxt(home / "x.csv", x, delimiter=",", header="x,y", comments="")
    assert cmbench(*sets(f"x.{kind}")).code == 0
    assert cmbench("sample", "--n", "7", "--out", "s.npy").code == 0
    assert np.load(home / "s.npy").shape == (7, 2)


def test_a_set_smaller_than_a_batch_of_one_class_is_trained_on(cmbench, home):
    np.savez(home / "x.npz", x=np.random.default_rng(0).normal(size=(3, 2)) / 2, y=np.zeros(3, np.int8))
    found = cmbench(*sets("x.npz", samples="x", labels="y"), "--set", "network.class_conditional=true")
    assert found.code == 0, found.err


BAD = {
    "missing": ({"root": "none.npy"}, "data.root: no samples at"),
    "nan": ({"root": "nan.npy"}, "sample 2 is nan at [1]"),
    "labels": ({"root": "good.npy", "labels": "y.npy"}, "y.npy has 5 labels for 6 samples"),
    "pickle": ({"root": "x.pt"}, "a pickle may run code"),
    "key": ({"root": "good.npy", "label": "y.npy"}, "data.label: unknown key; did you mean 'labels'?"),
    "no root": ({}, "data.root: missing, and it has no default"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_one_line_and_nothing_is_written(cmbench, home, case):
    x = np.arange(12.0).reshape(6, 2)
    np.save(home / "good.npy", x)
    np.save(home / "nan.npy", np.where(x == 5, np.nan, x))
    np.save(home / "y.npy", np.arange(5))
    keys, why = BAD[case]
    given = sets(keys.get("root", ""), **{key: value for key, value in keys.items() if key != "root"})
    if not keys:
        given = ["run", "tiny.toml", "--set", "data={kind='arrays'}"]
    found = cmbench(*given)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1), found
    assert why in found.err
    assert not (home / "runs").exists() or all_runs(home / "runs") == []


@pytest.mark.parametrize(("deviation", "warns"), [(0.5, False), (0.7, False), (0.9, True), (0.36, False), (0.3, True)])
def test_sigma_data_far_from_the_data_is_one_warning(cmbench, home, deviation, warns):
    x = np.random.default_rng(0).normal(size=(60, 2))
    np.save(home / "x.npy", deviation * (x - x.mean()) / x.std())
    assert cmbench(*sets("x.npy"), "--set", "train.steps=1").code == 0
    (run,) = all_runs(home / "runs")
    lines = [row["text"] for row in read_rows(run.events) if row["kind"] == "warning"]
    assert len(lines) == warns
    if warns:
        assert re.search(r"far from path.sigma_data = 0.5, .* path.sigma_data = 0\.\d+ would fit", lines[0])


def test_numbers_go_back_to_the_units_of_the_file():
    x = np.ones((2, 3, 2, 2), np.float32)
    assert _arrays.in_units_of_data(x, {}) is x
    back = _arrays.in_units_of_data(x, {"shift": [1, 2, 3], "scale": 0.5})
    assert back[1, :, 0, 0].tolist() == [3, 4, 5]
    assert _arrays.in_units_of_data(x[:, :, 0, 0], {"shift": [1, 2, 3], "scale": 0.5})[0].tolist() == [3, 4, 5]


def test_every_key_of_arrays_is_in_the_guide():
    from cmbench.data import arrays

    text = PAGE.read_text(encoding="utf-8")
    assert [key for key in arrays.Config.model_fields if f"| `{key}` |" not in text] == []
