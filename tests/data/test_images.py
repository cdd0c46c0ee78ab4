import struct
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench import finite
from cmbench.data import images
from cmbench.data.images import Config, Data
from cmbench.errors import UsageError
from cmbench.finite import Gathered
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")


def write_idx(path, array):
    """The format of MNIST: a magic number, the sizes, then bytes."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture(params=[("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")], ids=["mnist", "fashion_mnist"])
def idx_files(request, tmp_path):
    """Twelve training and four test pictures of 28x28; the top left pixel is ten times the label."""
    name, folder = request.param
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 12), ("t10k", 4)):
        labels = (np.arange(n) % 5).astype(np.uint8)
        pictures = np.random.default_rng(n).integers(0, 256, (n, 28, 28)).astype(np.uint8)
        pictures[:, 0, 0] = 10 * labels
        write_idx(raw / f"{part}-images-idx3-ubyte", pictures)
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels)
    return name, tmp_path


def test_mnist_files_are_read_with_their_labels_and_their_own_split(idx_files):
    name, root = idx_files
    data = Data(Config(name=name, root=str(root), download=False), CPU)
    assert data.shape == (1, 28, 28)
    assert data.classes == 5
    assert data.train.dtype == torch.uint8
    assert (len(data.train), len(data.test)) == (12, 4)
    assert (data.train[:, 0, 0, 0] == 10 * data.train_labels).all()
    assert (data.test[:, 0, 0, 0] == 10 * data.test_labels).all()
    expected = np.random.default_rng(12).integers(0, 256, (12, 28, 28))
    np.testing.assert_array_equal(data.train[3, 0, 1:], expected[3, 1:])


def test_colour_pictures_get_their_channels_first(monkeypatch):
    """CIFAR-10 comes as an array (M, 32, 32, 3) and a list of labels."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3)).astype(np.uint8)

    def cifar(root, train, download):
        part = slice(0, 4) if train else slice(4, 6)
        return SimpleNamespace(data=pictures[part], targets=[0, 1, 2, 3, 4, 5][part])

    monkeypatch.setitem(images._TORCHVISION, "cifar10", (cifar, "the file"))
    data = Data(Config(name="cifar10"), CPU)
    assert data.shape == (3, 4, 5)
    assert data.train_labels.tolist() == [0, 1, 2, 3]
    assert data.test_labels.tolist() == [4, 5]
    for colour in range(3):
        np.testing.assert_array_equal(data.train[:, colour], pictures[:4, :, :, colour])


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-python")]
)
def test_missing_files_are_a_usage_error_that_names_the_place(tmp_path, name, file):
    with pytest.raises(UsageError, match=rf"data\.root: no {name} at .*put .*{file}.* there") as caught:
        Data(Config(name=name, root=str(tmp_path), download=False), CPU)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("no route to host\nmore"), OSError()])
def test_a_download_that_fails_is_a_usage_error(monkeypatch, tmp_path, error):
    def fails(root, train, download):
        assert download
        raise error

    monkeypatch.setitem(images._TORCHVISION, "mnist", (fails, "four files"))
    reason = "OSError" if not str(error) else "no route to host"
    with pytest.raises(UsageError, match=rf"no mnist at .*{reason}.*; put four files there") as caught:
        Data(Config(root=str(tmp_path)), CPU)
    assert "more" not in str(caught.value)


COLOURS = {"apples": (255, 0, 0), "bananas": (0, 255, 0), "cherries": (0, 0, 255)}


@pytest.fixture
def folder(tmp_path):
    """Ten wide pictures a class: a centre of the class's colour between white margins, one corner for a number."""
    for name, colour in COLOURS.items():
        (tmp_path / name).mkdir()
        for i in range(10):
            picture = Image.new("RGB", (36, 12), (255, 255, 255))
            picture.paste(colour, (12, 0, 24, 12))
            picture.paste((10 * i, 10 * i, 10 * i), (12, 0, 16, 4))
            picture.save(tmp_path / name / f"{i}.png")
    return tmp_path


def from_folder(folder, **settings):
    return Data(Config(name="folder", root=str(folder), **settings), CPU)


def test_folder_is_resized_and_cropped_at_the_centre(folder):
    data = from_folder(folder, size=12)
    assert data.shape == (3, 12, 12)
    assert data.train.dtype == torch.uint8
    assert not (data.train[:, :, 6:] == 255).all(dim=1).any()
    assert from_folder(folder, size=6).shape == (3, 6, 6)


def test_sub_folders_are_the_classes_in_the_order_of_their_names(folder):
    data = from_folder(folder, size=12)
    assert data.classes == 3
    for pictures, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        assert torch.equal(pictures[:, :, 10, 10].float().argmax(dim=1), labels)


@pytest.mark.parametrize(("share", "held_out"), [(0.1, 3), (0.5, 15), (0.01, 1)])
def test_share_of_the_folder_is_held_out_and_every_picture_stands_in_one_part(folder, share, held_out):
    data = from_folder(folder, size=12, held_out=share)
    assert len(data.test) == held_out
    rows = torch.cat([data.train, data.test])
    marks = {(*colour, n) for colour, n in zip(rows[:, :, 10, 10].tolist(), rows[:, 0, 1, 1].tolist(), strict=True)}
    assert len(rows) == 30
    assert len(marks) == 30
    assert torch.equal(data.test, from_folder(folder, size=12, held_out=share).test)


def test_flip_of_the_recipe_mirrors_pictures(folder):
    """The numbered corner stands on the left until a picture is mirrored."""
    x, _ = from_folder(folder, size=12, horizontal_flip=True).batch(27, StepRandom(CPU, 0, 0))
    corner = (x[:, :, 1, 1] - x[:, :, 10, 10]).abs().amax(dim=1), (x[:, :, 1, 10] - x[:, :, 10, 10]).abs().amax(dim=1)
    left, right = (c > 0.1 for c in corner)
    assert (left ^ right).all()
    assert 4 < right.sum() < 23


@pytest.mark.parametrize("content", ["nothing", "no sub-folder", "empty sub-folder", "a file"])
def test_folder_without_pictures_is_a_usage_error_that_names_it(tmp_path, content):
    root = tmp_path / "pictures"
    if content == "a file":
        root.write_text("")
    elif content != "nothing":
        (root / "class" if content == "empty sub-folder" else root).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"data\.root: no pictures at .*one sub-folder a class") as caught:
        from_folder(root)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("lack", ["memory", "limit"])
def test_folder_that_does_not_fit_into_memory_stays_in_its_file_and_gives_the_same(monkeypatch, folder, lack):
    settings = {"size": 12, "held_out": 0.5, "horizontal_flip": True}
    whole = from_folder(folder, **settings)
    if lack == "memory":
        monkeypatch.setattr(finite.psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * 15 * 3 * 144 - 1))
    else:
        monkeypatch.setattr(finite, "_KEEP_ON_DEVICE", 15 * 3 * 144 - 1)
    mapped = from_folder(folder, **settings)
    assert isinstance(whole.train, torch.Tensor)
    assert isinstance(mapped.train, Gathered)
    for step in range(4):
        for a, b in zip(
            whole.batch(7, StepRandom(CPU, 3, step)), mapped.batch(7, StepRandom(CPU, 3, step)), strict=True
        ):
            assert torch.equal(a, b)
    a, b = (data.draw(9, torch.Generator().manual_seed(1)) for data in (whole, mapped))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert torch.equal(whole.held_out(4), mapped.held_out(4))
    assert torch.equal(whole.held_out_labels(4), mapped.held_out_labels(4))
    assert torch.equal(whole.train_sample(8), mapped.train_sample(8))
    x, sigma = whole.held_out(3), torch.tensor([0.1, 1.0, 9.0])
    assert torch.equal(whole.oracle().denoise(x, sigma), mapped.oracle().denoise(x, sigma))
    assert whole.oracle().points.numel() == mapped.oracle().points.numel()


def test_unreadable_picture_is_a_usage_error_that_names_it(folder):
    (folder / "apples" / "torn.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"data\.root: .*torn\.png"):
        from_folder(folder, size=12)


def test_folder_that_leaves_nothing_to_train_on_is_refused(folder):
    with pytest.raises(UsageError, match=r"data\.held_out: 30 of 30 pictures"):
        from_folder(folder, size=12, held_out=0.99)


@pytest.mark.parametrize(
    ("name", "root", "located"),
    [
        ("folder", "pics", "/base/pics"),
        ("folder", "../pics/", "/pics"),
        ("folder", "/pics", "/pics"),
        ("mnist", "cache", "/base/cache"),
        ("mnist", "~/.cache/cmbench", "~/.cache/cmbench"),
    ],
)
def test_a_run_keeps_a_root_that_depends_on_no_working_directory(name, root, located):
    assert Config(name=name, root=root).located(Path("/base")).root == located


def test_a_folder_below_a_home_is_that_of_this_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert Config(name="folder", root="~/pics").located(Path("/base")).root == "/home/someone/pics"
