"""Points, pictures and latents of a file, as training gets them; and each odd case in one line."""

import math

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from cmbench import finite
from cmbench.arrays import formats
from cmbench.arrays.stored import Stored
from cmbench.contracts import HasOracle, has
from cmbench.data import arrays
from cmbench.data.arrays import Config, Data, Mapped
from cmbench.errors import UsageError
from cmbench.finite import Finite
from cmbench.randomness import Part, StepRandom

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def read(path, **settings):
    return Data(Config(root=str(path), **settings), CPU)


def all_of(data):
    return torch.cat([finite.as_float(data.train[:]), data.held_out(10**6)])


def as_rows(x):
    return sorted(map(tuple, torch.as_tensor(x).flatten(1).tolist()))


@pytest.fixture(params=[1 << 28, 0], ids=["in memory", "in the file"])
def anywhere(request, monkeypatch):
    """Small sets are read into memory, large ones stay in their file."""
    monkeypatch.setattr(arrays, "_SMALL", request.param)
    return request.param


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "f4 F"])
def test_points_are_float32_whatever_they_were(tmp_path, anywhere, dtype):
    x = RNG.normal(size=(40, 3)).astype(dtype[:3].strip())
    np.save(tmp_path / "x.npy", np.asfortranarray(x) if dtype.endswith("F") else x)
    data = read(tmp_path / "x.npy")
    assert (data.shape, data.classes, data.count_and_held_out) == ((3,), 1, (36, 4))
    assert isinstance(data.train, Mapped) == (anywhere == 0)
    assert all_of(data).dtype == torch.float32
    assert as_rows(all_of(data)) == as_rows(x.astype(np.float32))


@pytest.mark.parametrize("kind", ["chw", "hwc", "grey"])
def test_pictures_of_bytes_are_from_minus_one_to_one_with_channels_first(tmp_path, anywhere, kind):
    x = RNG.integers(0, 256, (20, 3, 6, 6)).astype(np.uint8)
    stored = {"chw": x, "hwc": x.transpose(0, 2, 3, 1), "grey": x[:, 0]}[kind]
    np.save(tmp_path / "x.npy", stored)
    data = read(tmp_path / "x.npy")
    expected = x[:, :1] if kind == "grey" else x
    assert data.shape == expected.shape[1:]
    assert data.train[:].dtype == torch.uint8
    assert as_rows(all_of(data)) == as_rows(torch.from_numpy(expected.copy()).float() / 127.5 - 1)


def test_a_set_in_its_file_is_the_set_in_memory_batch_by_batch(tmp_path, monkeypatch):
    x, y = RNG.normal(size=(50, 4, 6, 6)).astype(np.float16), RNG.integers(0, 3, 50)
    np.savez(tmp_path / "x.npz", x=x, y=y)
    settings = {"samples": "x", "labels": "y", "deviation": 0.5, "horizontal_flip": True}
    here = read(tmp_path / "x.npz", **settings)
    monkeypatch.setattr(arrays, "_SMALL", 0)
    there = read(tmp_path / "x.npz", **settings)
    assert isinstance(there.train, Mapped)
    for step in (0, 1, 7):
        (a, i), (b, j) = (data.batch(16, StepRandom(CPU, 5, step)) for data in (here, there))
        assert torch.equal(a, b)
        assert torch.equal(i, j)
    part = StepRandom(CPU, 5, 7, part=Part(3, 9, 16))
    assert torch.equal(there.batch(16, part)[0], b[3:9])
    assert torch.equal(here.held_out(3), there.held_out(3))
    assert torch.equal(here.train_sample(9), there.train_sample(9))
    draws = [data.draw(5, torch.Generator().manual_seed(0))[0] for data in (here, there)]
    assert torch.equal(*draws)
    assert here.content == there.content
    assert here.summary == there.summary


def test_labels_stay_with_their_samples(tmp_path, anywhere):
    y = RNG.integers(0, 4, 60)
    x = np.stack([y, np.arange(60)], axis=1).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y.astype(np.int16)[:, None])
    data = read(tmp_path / "x.npy", labels="y.npy", held_out=0.3)
    assert data.count_and_held_out == (42, 18)
    for points, labels in ((data.train[:], data.train_labels), (data.held_out(99), data.held_out_labels(99))):
        assert torch.equal(points[:, 0].long(), labels)
    x, labels = data.batch(20, StepRandom(CPU, 0, 3))
    assert torch.equal(x[:, 0].long(), labels)


def of_csv(path):
    path.write_text("x,kind,y\n" + "".join(f"{i},{'b10' if i % 3 else 'b2'},{2 * i}\n" for i in range(12)))
    return {"labels": "kind"}


def of_strings(path):
    names = np.where(np.arange(12) % 3 == 0, "b2", "b10")
    np.savez(path, samples=np.stack([np.arange(12.0), 2 * np.arange(12.0)], 1), labels=names)
    return {"labels": "labels"}


@pytest.mark.parametrize(("name", "make"), [("x.csv", of_csv), ("x.npz", of_strings)])
def test_labels_may_be_names_in_natural_order(tmp_path, name, make):
    data = read(tmp_path / name, **make(tmp_path / name))
    assert data.names == ("b2", "b10")
    assert sum(data.counts) == 11
    assert torch.equal(data.train[:][:, 0] % 3 != 0, data.train_labels == 1)
    assert torch.equal(data.train[:][:, 1], 2 * data.train[:][:, 0])
    assert "2 classes (b2: " in data.summary


def test_columns_of_a_table_can_be_chosen(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,c,y\n" + "".join(f"{i},{-i},{9 + i},{i % 2}\n" for i in range(8)))
    data = read(tmp_path / "x.csv", samples="c, a", labels="y")
    assert torch.equal(data.train[:][:, 0], data.train[:][:, 1] + 9)
    assert torch.equal(data.train[:][:, 1] % 2, data.train_labels.float())


HELD_OUT = {
    "an array of the file": ({"x": 0, "t": 1}, {}, {"samples": "x", "held_out_samples": "t"}),
    "with labels": (
        {"x": 0, "y": 0, "t": 1, "u": 1},
        {},
        {"samples": "x", "labels": "y", "held_out_samples": "t", "held_out_labels": "u"},
    ),
    "a file beside": ({"x": 0}, {"t": 1}, {"held_out_samples": "test.npz"}),
    "a file of the same names": (
        {"x": 0, "y": 0},
        {"x": 1, "y": 1},
        {"samples": "x", "labels": "y", "held_out_samples": "test.npz"},
    ),
}


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_held_out_part_may_lie_apart(tmp_path, anywhere, name):
    main, beside, settings = HELD_OUT[name]
    labels = [np.arange(10) % 3, np.arange(6) % 3]
    samples = [np.stack([own, own + 10 * i], 1).astype(np.float32) for i, own in enumerate(labels)]

    def written(names):
        return {key: (labels if key in "yu" else samples)[part] for key, part in names.items()}

    np.savez(tmp_path / "x.npz", **written(main))
    np.savez(tmp_path / "test.npz", **written(beside))
    data = read(tmp_path / "x.npz", **settings)
    assert data.count_and_held_out == (10, 6)
    np.testing.assert_array_equal(data.train[:], samples[0])
    np.testing.assert_array_equal(data.held_out(9), samples[1])
    if "y" in main:
        assert data.held_out_labels(9).tolist() == labels[1].tolist()
        assert data.classes == 3


def test_scale_and_deviation_change_floats_and_are_told(tmp_path):
    x = (RNG.normal(size=(200, 4, 4, 4)) * 5 + np.array([1, -2, 3, 0])[:, None, None]).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    plain, scaled, fitted = (
        read(tmp_path / "x.npy", layout="chw", **s) for s in ({}, {"scale": 0.2}, {"deviation": 0.5})
    )
    torch.testing.assert_close(scaled.train[:], 0.2 * plain.train[:])
    assert (scaled.shift, scaled.scale) == ((), 0.2)
    got = all_of(fitted).double()
    assert got.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert got.std(unbiased=False).item() == pytest.approx(0.5, rel=1e-6)
    back = fitted.train[:] / fitted.scale + torch.tensor(fitted.shift).view(4, 1, 1)
    torch.testing.assert_close(back, plain.train[:], rtol=1e-5, atol=1e-5)
    assert "centred and scaled by 0.1" in fitted.summary


@pytest.mark.parametrize("settings", [{}, {"scale": 0.3}, {"deviation": 0.5}], ids=str)
@pytest.mark.parametrize("dtype", ["u1", "f2", "f4", "f8", ">f8"])
@pytest.mark.parametrize("kind", ["chw", "hwc"])
def test_many_rows_are_made_in_parts_with_the_values_of_one_pass(tmp_path, monkeypatch, dtype, settings, kind):
    if dtype == "u1" and settings:
        pytest.skip("bytes are not scaled")
    x = (RNG.normal(size=(37, 4, 3, 5)) * 40 + 90).clip(0, 255).astype(dtype)
    np.save(tmp_path / "x.npy", x if kind == "chw" else x.transpose(0, 2, 3, 1))
    monkeypatch.setattr(arrays, "_SMALL", 0)
    whole = read(tmp_path / "x.npy", layout=kind, held_out=0.2, **settings)
    expected = x[finite.split(np.zeros(37, np.int64), 0.2)[0]]
    if dtype != "u1":
        expected = torch.from_numpy(expected.astype(dtype.lstrip(">")))
        if whole.shift:
            expected = expected.double() - torch.tensor(whole.shift, dtype=torch.float64).view(4, 1, 1)
        expected = (expected * whole.scale).float()
    np.testing.assert_array_equal(whole.train[:], expected)
    one_pass, index = whole.train[:], torch.tensor([5, 5, 0, 29, 1, 2])
    made, rows_of = [], Stored.rows
    monkeypatch.setattr(Stored, "rows", lambda self, index: made.append(len(index)) or rows_of(self, index))
    monkeypatch.setattr(arrays, "_PART", 3 * one_pass[:1].nbytes)
    for wanted in (slice(None), slice(3, 20), slice(1, None, 4), slice(9, 9), index):
        found = whole.train[wanted]
        assert torch.equal(found, one_pass[wanted])
        assert found.dtype == one_pass.dtype
        assert found.is_contiguous()
    moved = whole.train.to(torch.device("meta"))  # a device other than the CPU
    assert (moved.shape, moved.dtype, moved.device.type) == (one_pass.shape, one_pass.dtype, "meta")
    assert max(made) == 3


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("sizes", [[50], [1, 60], [1, 1, 1], [2, 2, 30, 1]])
def test_a_share_is_held_out_and_every_class_keeps_a_sample(share, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    M = len(labels)
    if len(sizes) == M:
        with pytest.raises(UsageError, match=r"data.held_out: 3 samples of 3 classes leave none to hold out"):
            finite.split(labels, share)
        return
    train, test = finite.split(labels, share)
    assert sorted([*train, *test]) == list(range(M))
    assert set(labels[train]) == set(labels)
    wanted = max(1, round(share * M))
    assert len(test) == min(wanted, M - len(sizes))
    assert [a.tolist() for a in finite.split(labels, share)] == [train.tolist(), test.tolist()]


def test_a_set_smaller_than_a_batch_and_of_one_class_is_drawn_again_and_again(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(6.0).reshape(3, 2), y=np.zeros(3, np.uint8))
    data = read(tmp_path / "x.npz", samples="x", labels="y")
    assert (data.classes, data.count_and_held_out) == (1, (2, 1))
    x, labels = data.batch(7, StepRandom(CPU, 0, 0))
    assert x.shape == (7, 2)
    assert labels.tolist() == [0] * 7
    assert set(map(tuple, x.tolist())) == set(map(tuple, data.train[:].tolist()))


P = np.arange(12, dtype=np.float32).reshape(6, 2)
BAD = {
    "no dimension": ({"x": np.float32(3)}, {}, r"data.root: x.npz: 'x' has shape \[\], allowed: points \(M, D\)"),
    "one dimension": ({"x": P[:, 0]}, {}, r"has shape \[6\], allowed: points"),
    "five dimensions": ({"x": P.reshape(6, 2, 1, 1, 1)}, {}, r"has shape \[6, 2, 1, 1, 1\]"),
    "no sample": ({"x": P[:0]}, {}, r"'x' is empty: it has shape \[0, 2\]"),
    "no number": ({"x": np.zeros((4, 0), np.float32)}, {}, r"'x' is empty: it has shape \[4, 0\]"),
    "one sample": ({"x": P[:1]}, {}, r"data.held_out: 1 sample of 1 class leave"),
    "whole numbers": ({"x": P.astype(int)}, {}, r"is of type int64, allowed: uint8 .* or floats"),
    "truth": ({"x": P > 3}, {}, "is of type bool"),
    "complex": ({"x": P + 1j}, {}, "is of type complex64"),
    "text": ({"x": P.astype(str)}, {}, "is of type str"),
    "nan": ({"x": np.where(P == 7, np.nan, P)}, {}, r"sample 3 is nan at \[1\]; allowed: finite"),
    "several": (
        {"x": P, "y": P, "z": P},
        {},
        r"data.samples: missing, and .*x.npz holds 3 arrays; allowed: 'x', 'y', 'z'",
    ),
    "another": ({"pos": P, "vel": P}, {"samples": "poss"}, r"data.samples: found 'poss', .*did you mean 'pos'"),
    "none": ({}, {}, r"data.root: .*x.npz holds no array"),
    "layout": ({"x": np.zeros((4, 8, 8, 8), np.float32)}, {}, r"data.layout: missing, and shape .* allowed: chw, hwc"),
    "no layout": ({"x": P}, {"layout": "chw"}, r"data.layout: found 'chw', but .* has shape \[6, 2\]; allowed: auto"),
    "flip": ({"x": P}, {"horizontal_flip": True}, r"data.horizontal_flip: found true, allowed for points: false"),
    "scaled bytes": ({"x": P.astype(np.uint8)}, {"scale": 2.0}, r"data.scale: found 2, but .* is uint8"),
    "fitted bytes": ({"x": P.astype(np.uint8)}, {"deviation": 0.5}, r"data.deviation: found 0.5, but .* is uint8"),
    "both": ({"x": P}, {"deviation": 0.5, "scale": 2.0}, r"data.scale: found 2, allowed with data.deviation: 1.0"),
    "all alike": ({"x": 0 * P}, {"deviation": 0.5}, r"all values of .* are the same"),
    "fewer labels": (
        {"x": P, "y": np.arange(5)}, {"labels": "y"},
        r"data.labels: x.npz: 'y' has 5 labels for 6 samples",
    ),
    "a gap": (
        {"x": P, "y": np.array([0, 1, 3, 3, 5, 5])}, {"labels": "y"},
        r"labels are 0 to 5, and none is 2, 4; allowed",
    ),
    "from one": ({"x": P, "y": np.arange(6) % 2 + 1}, {"labels": "y"}, r"labels are 1 to 2, and none is 0"),
    "below": ({"x": P, "y": np.arange(6) - 1}, {"labels": "y"}, r"label -1 is below 0"),
    "halves": ({"x": P, "y": np.arange(6) / 2}, {"labels": "y"}, r"holds numbers that are not whole"),
    "one-hot": (
        {"x": P, "y": np.eye(6)}, {"labels": "y"},
        r"'y' has shape \[6, 6\], allowed: \(6,\), a label a sample",
    ),
    "no such labels": (
        {"x": P, "lab": P[:, 0]}, {"labels": "labs"},
        r"data.labels: found 'labs', .*did you mean 'lab'",
    ),
    "labels elsewhere": (
        {"x": P}, {"labels": "../y.npy"},
        r"data.labels: found '../y.npy', allowed: a file beside x.npz",
    ),
    "labels of the system": ({"x": P}, {"labels": "/etc/y.npy"}, r"allowed: a file beside x.npz"),
    "labels missing": ({"x": P}, {"labels": "y.npy"}, r"data.labels: no samples at .*y.npy \(No such file"),
    "others held out": (
        {"x": P, "t": P[:, :1]}, {"held_out_samples": "t", "samples": "x"},
        r"held_out_samples: .*\[1\], allowed",
    ),
    "held out unlabelled": (
        {"x": P, "y": np.arange(6), "t": P},
        {"held_out_samples": "t", "samples": "x", "labels": "y"},
        r"data.held_out_labels: missing",
    ),
    "labels of nothing": (
        {"x": P}, {"held_out_labels": "x"},
        r"held_out_labels: found one, but no data.held_out_samples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line_that_names_it(tmp_path, name):
    content, settings, why = BAD[name]
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(UsageError, match=why) as told:
        read(tmp_path / "x.npz", **settings)
    assert str(told.value).startswith("data.")
    assert "\n" not in str(told.value)


def test_a_column_of_text_must_be_the_labels(tmp_path):
    (tmp_path / "x.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n5,6,x\n")
    with pytest.raises(UsageError, match=r"x.csv: 'kind' is a column of text; name it as data.labels"):
        read(tmp_path / "x.csv")


@pytest.mark.parametrize("huge", [False, True])
def test_content_changes_with_samples_and_labels_and_with_nothing_else(tmp_path, monkeypatch, huge):
    from cmbench.arrays import digest

    if huge:  # then pieces are read, of which the last one holds the last number
        monkeypatch.setattr(digest, "_WHOLE", 64)
        monkeypatch.setattr(digest, "_PIECE", 8)
    x, y = RNG.normal(size=(30, 2)), np.arange(30) % 3

    def content(x, y, path="x.npz", **settings):
        np.savez(tmp_path / path, x=x, y=y)
        return read(tmp_path / path, samples="x", labels="y", **settings).content

    first = content(x, y)
    assert first == content(x, y, "other.npz", held_out=0.5)
    other = x.copy()
    other[-1, -1] += 1
    assert content(other, y) != first
    swapped = y.copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    assert content(x, swapped) != first
    assert content(x.astype(np.float32), y) != first


def test_what_a_digest_reads_of_a_large_file_is_bounded(tmp_path, monkeypatch):
    from cmbench.arrays import digest
    from cmbench.arrays.stored import Stored

    read = []

    class Hash:
        def update(self, block):
            read.append(len(block))

        def hexdigest(self):
            return ""

    monkeypatch.setattr(digest.hashlib, "blake2b", lambda **_: Hash())
    with (tmp_path / "x").open("wb") as file:
        file.truncate(1 << 40)
    digest.content([Stored(np.memmap(tmp_path / "x", np.uint8, "r", shape=(1 << 28, 1 << 12)), "x")], [])
    assert sum(read) == pytest.approx(1 << 28, rel=1e-3)


def test_a_set_too_large_to_be_read_whole_has_no_closed_form(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_SMALL", 0)
    np.save(tmp_path / "x.npy", RNG.normal(size=(30, 2)))
    small = read(tmp_path / "x.npy")
    assert has(small, HasOracle)
    x, sigma = torch.zeros(1, 2), torch.tensor([0.3])
    weights = torch.softmax(-small.train[:].double().square().sum(1) / 2 / 0.09, 0)
    torch.testing.assert_close(
        small.oracle().denoise(x, sigma)[0].double(), weights @ small.train[:].double(), rtol=1e-4, atol=1e-6
    )
    monkeypatch.setattr(finite, "_CLOSED_FORM", 10)
    assert not has(read(tmp_path / "x.npy"), HasOracle)
    assert has(Finite(torch.zeros(30, 2), torch.zeros(30), torch.zeros(1, 2), torch.zeros(1), CPU), HasOracle)


def test_only_the_rows_of_a_batch_are_read(tmp_path, monkeypatch):
    """A terabyte that takes no room on the disk: reading more than a few rows would take minutes."""
    shape = (1 << 26, 3, 74, 74)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + math.prod(shape))
    np.save(tmp_path / "t.npy", np.ones((4, *shape[1:]), np.uint8))
    monkeypatch.setattr(finite, "_permutation", lambda M, seed, epoch: torch.arange(100) * 500_000 + epoch)
    data = read(tmp_path / "x.npy", held_out_samples="t.npy")
    assert isinstance(data.train, Mapped)
    x, _ = data.batch(16, StepRandom(CPU, 0, 0))
    assert x.shape == (16, 3, 74, 74)
    assert (x == -1).all()


@pytest.mark.parametrize("free", [10**9, 10])
def test_rows_of_a_set_that_fills_the_memory_are_read_one_by_one(tmp_path, monkeypatch, free):
    advised = []
    monkeypatch.setattr(arrays.Stored, "expect_single_rows", lambda stored: advised.append(stored.where))
    monkeypatch.setattr(arrays.psutil, "virtual_memory", lambda: type("", (), {"available": free}))
    np.save(tmp_path / "x.npy", RNG.normal(size=(30, 2)))
    read(tmp_path / "x.npy")
    assert advised == (["x.npy"] if free == 10 else [])


def test_the_system_is_told_of_the_mapping_of_a_file_and_of_no_other_array(tmp_path):
    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(30, 2)))
    found = formats.opened(tmp_path / "x.npz", "data.root")["x"]
    before = found.rows(slice(0, 30))
    found.expect_single_rows()
    np.testing.assert_array_equal(found.rows(np.arange(30)), before)
    arrays.Stored(before, "x").expect_single_rows()


def test_safetensors_hold_samples_and_labels(tmp_path):
    x, y = RNG.normal(size=(20, 4, 6, 6)).astype(np.float16), (np.arange(20) % 2).astype(np.int64)
    save_file({"latents": x, "labels": y}, tmp_path / "x.safetensors")
    data = read(tmp_path / "x.safetensors", labels="labels")
    assert (data.shape, data.classes) == ((4, 6, 6), 2)
    assert as_rows(all_of(data)) == as_rows(x.astype(np.float32))
