"""Files of weights: every format gives the same tensors, and whatever else a file may be is one line."""

import hashlib
import json
import os
import warnings

import pytest
import saved
import torch
from other_kinds import KINDS
from PIL import Image
from safetensors.torch import save_file, save_model
from torch import nn

from cmbench.errors import UsageError
from cmbench.statedicts import files


def read(path):
    with files.opened(path) as file:
        return file, {entry.name: entry.read().clone() for entry in file.entries}


def refusal(path) -> str:
    with pytest.raises(UsageError) as told:
        read(path)
    said = str(told.value)
    assert "\n" not in said
    assert said.startswith(str(path))
    assert len(said) < 480
    return said


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("name", ["x.safetensors", "x.pt", "x.pth", "x.bin", "x.ckpt", "without_an_ending"])
def test_every_format_gives_the_same_tensors(tmp_path, name, old):
    path = saved.save(tmp_path / name, saved.weights(), old)
    file, found = read(path)
    assert found.keys() == saved.weights().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.weights().items())
    assert {e.name: e.shape for e in file.entries} == saved.SHAPES
    assert {e.dtype for e in file.entries} == {"float32"}
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (file.path, file.size) == (path, path.stat().st_size)
    assert file.format == ("safetensors" if name == "x.safetensors" else "torch")


def test_the_format_is_told_by_the_content(tmp_path):
    save_file(saved.weights(), tmp_path / "x.bin")
    assert read(tmp_path / "x.bin")[0].format == "safetensors"


def test_nested_tables_are_joined_by_dots(tmp_path):
    value = {"step": 5, "note": "x", "ema": {"emas": [saved.weights(), saved.weights(1)]}, "net": saved.weights(2)}
    file, found = read(saved.save(tmp_path / "x.pt", value))
    assert {e.group for e in file.entries} == {"ema.emas.0", "ema.emas.1", "net"}
    assert torch.equal(found["ema.emas.1.inner.0.weight"], saved.weights(1)["inner.0.weight"])


def test_parameters_and_tensors_that_share_memory_are_tensors(tmp_path):
    weight = nn.Parameter(torch.randn(2, 3))
    _, found = read(saved.save(tmp_path / "x.pt", {"a": weight, "b": weight, "c": weight.detach().t()}))
    assert torch.equal(found["a"], found["b"])
    assert torch.equal(found["c"], weight.detach().t())


def test_a_tensor_that_safetensors_has_left_out_as_shared_is_found(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

    tied = Tied()
    save_model(tied, tmp_path / "x.safetensors")
    _, found = read(tmp_path / "x.safetensors")
    assert found.keys() == {"a.weight", "b.weight"}
    assert all(torch.equal(tensor, tied.a.weight) for tensor in found.values())


@pytest.mark.parametrize("within", ["", "unet"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_folder_of_diffusers_is_its_file(tmp_path, within, kind):
    (folder := tmp_path / "model" / within).mkdir(parents=True)
    path = saved.save(folder / f"diffusion_pytorch_model.{kind}", saved.weights())
    file, found = read(tmp_path / "model")
    assert found.keys() == saved.weights().keys()
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.path == tmp_path / "model"


def test_a_folder_of_several_files_is_read_as_one(tmp_path):
    tensors, where = saved.weights(), {}
    for i, name in enumerate(tensors):
        where[name] = f"diffusion_pytorch_model-{i % 2}.safetensors"
    for part in set(where.values()):
        save_file({n: t for n, t in tensors.items() if where[n] == part}, tmp_path / part)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    file, found = read(tmp_path)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    parts = sorted({*where.values()})
    each = "".join(hashlib.sha256((tmp_path / part).read_bytes()).hexdigest() for part in parts)
    assert file.sha256 == hashlib.sha256(each.encode()).hexdigest()
    index.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))
    with pytest.raises(UsageError, match=r"index\.json: found no list of files beside it"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "old.pt"])
def test_no_code_of_a_file_is_run(tmp_path, name):
    acted = tmp_path / "acted"
    saved.save(tmp_path / name, {"w": torch.ones(2), "evil": saved.Acts(acted)}, old=name.startswith("old"))
    said = refusal(tmp_path / name)
    assert "a pickle of objects, which would run code" in said
    assert "allowed: a state dict; docs/weights.md says how to convert it where its code is" in said
    assert not acted.exists()


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "old.pt"])
def test_a_pickled_module_is_refused_by_its_class(tmp_path, name):
    said = refusal(saved.save(tmp_path / name, {"ema": saved.Own()}, old=name.startswith("old")))
    assert "a pickle of objects, which would run code" in said
    assert name == "x.pkl" or "(it needs saved.Own)" in said


def test_a_torchscript_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions say that it is old
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "x.pt")
    assert "a TorchScript program, allowed: a state dict" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_a_truncated_file_is_told(tmp_path, name, share):
    path = saved.save(tmp_path / name, {k: t.repeat(50, *[1] * (t.ndim - 1)) for k, t in saved.weights().items()})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"hello, world", b"{}" * 20, bytes(100)])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x"])
def test_a_file_of_anything_is_told(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["x.png", "x.pt", "x.safetensors"])
def test_a_picture_is_no_weights(tmp_path, name):
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / name)
    said = refusal(tmp_path / name)
    assert "found no file of weights, allowed: .safetensors, .pt" in said or "no safetensors" in said


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "long line"])
def test_what_is_no_file_is_not_waited_for(tmp_path, kind):
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    KINDS[kind](tmp_path / "x.pt")
    refusal(tmp_path / "x.pt")


def test_what_is_not_there(tmp_path):
    assert refusal(tmp_path / "x.pt").endswith("cannot be read: No such file or directory")
    (tmp_path / "folder").mkdir()
    assert "a folder without diffusion_pytorch_model.safetensors" in refusal(tmp_path / "folder")


@pytest.mark.parametrize("value", [5, "x", {}, [], {"step": 5}, {"a": {"b": [1, 2]}}, torch.ones(3)])
def test_a_file_without_a_state_dict(tmp_path, value):
    refusal(saved.save(tmp_path / "x.pt", value))


def test_endless_tables_end(tmp_path):
    value: dict = {"w": torch.ones(2)}
    for _ in range(40):
        value = {"a": value}
    assert "found no tensors" in refusal(saved.save(tmp_path / "x.pt", value))


def test_a_file_that_changes_meanwhile_is_told(tmp_path):
    path = saved.save(tmp_path / "x.safetensors", saved.weights())
    with pytest.raises(UsageError, match="changed while it was read"), files.opened(path):
        saved.save(path, saved.weights(1))
