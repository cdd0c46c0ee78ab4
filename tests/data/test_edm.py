"""EDM's form, as its dataset_tool.py writes it: a folder or a zip, with dataset.json, pictures or arrays."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench.data.edm import Config, Data
from cmbench.errors import UsageError
from cmbench.finite import as_float

CPU = torch.device("cpu")
N = 12


def picture(i, mode="RGB", size=(6, 6)):
    """A picture whose first pixel is its number."""
    x = np.full((*size, 3), 10 * i, np.uint8)
    x[0, 0] = i
    buffer = io.BytesIO()
    Image.fromarray(x).convert(mode).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def latent(i, shape=(4, 3, 3)):
    buffer = io.BytesIO()
    np.save(buffer, np.full(shape, i / 10, np.float32))
    return buffer.getvalue()


def name(i, kind="png"):
    return f"{i // 5:05d}/img{i:08d}.{kind}"


def packed(root, files, table, compression=zipfile.ZIP_STORED):
    """Write a folder, or a zip if the root is called so."""
    files = files if table is None else {**files, "dataset.json": json.dumps(table)}
    if root.suffix == ".zip":
        with zipfile.ZipFile(root, "w", compression) as archive:
            for path, content in files.items():
                archive.writestr(path, content)
    else:
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def pictures(**settings):
    return {name(i): picture(i, **settings) for i in range(N)}


LABELS = {"labels": [[name(i), i % 3] for i in reversed(range(N))]}


def read(root, **settings):
    return Data(Config(root=str(root), **settings), CPU)


def numbers(data):
    """The number of each picture, of training and held out, and its label."""
    rows = [*zip(data.train, data.train_labels, strict=True), *zip(data.test, data.test_labels, strict=True)]
    return sorted((int(x[0, 0, 0]), int(label)) for x, label in rows)


@pytest.mark.parametrize("where", ["pictures", "pictures.zip"])
def test_pictures_have_the_labels_of_the_table_whatever_its_order(tmp_path, where):
    data = read(packed(tmp_path / where, pictures(), LABELS))
    assert (data.shape, data.classes, data.count_and_held_out) == ((3, 6, 6), 3, (11, 1))
    assert data.train.dtype == torch.uint8
    assert numbers(data) == [(i, i % 3) for i in range(N)]


@pytest.mark.parametrize("table", [{"labels": None}, {}, None, {"other": 1}])
@pytest.mark.parametrize("where", ["pictures", "pictures.zip"])
def test_without_labels_there_is_one_class(tmp_path, where, table):
    data = read(packed(tmp_path / where, pictures(), table))
    assert data.classes == 1
    assert numbers(data) == [(i, 0) for i in range(N)]
    assert "no labels" in data.summary


@pytest.mark.parametrize("where", ["pictures", "pictures.zip"])
def test_hidden_files_of_other_systems_are_no_pictures(tmp_path, where):
    files = {**pictures(), "__MACOSX/._img00000000.png": b"none", "00000/._img.png": b"none", ".DS_Store": b""}
    assert numbers(read(packed(tmp_path / where, files, LABELS))) == [(i, i % 3) for i in range(N)]


def test_a_compressed_zip_is_read_as_well(tmp_path):
    one = read(packed(tmp_path / "a.zip", pictures(), LABELS))
    other = read(packed(tmp_path / "b.zip", pictures(), LABELS, zipfile.ZIP_DEFLATED))
    assert torch.equal(one.train, other.train)
    assert one.content == other.content


def test_grey_pictures_have_one_channel_unless_some_have_colours(tmp_path):
    assert read(packed(tmp_path / "a", pictures(mode="L"), LABELS)).shape == (1, 6, 6)
    mixed = {**pictures(mode="L"), name(3): picture(3)}
    assert read(packed(tmp_path / "b", mixed, LABELS)).shape == (3, 6, 6)


@pytest.mark.parametrize("shape", [(4, 3, 3), (1, 4, 3, 3)])
def test_arrays_are_latents_as_they_are(tmp_path, shape):
    files = {name(i, "npy"): latent(i, shape) for i in range(N)}
    table = {"labels": [[name(i, "npy"), i % 2] for i in range(N)]}
    data = read(packed(tmp_path / "x.zip", files, table))
    assert (data.shape, data.classes) == ((4, 3, 3), 2)
    values = sorted(torch.cat([as_float(data.train), as_float(data.test)])[:, 0, 0, 0].tolist())
    assert values == pytest.approx([i / 10 for i in range(N)])


def with_file(i, content):
    return {**pictures(), name(i): content}


def pickled():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


BAD = {
    "another size": (
        with_file(3, picture(3, size=(6, 7))), LABELS,
        r"img00000003.png' is \[3, 6, 7\] .*, allowed: \[3, 6, 6\]",
    ),
    "torn": (with_file(4, picture(4)[:100]), LABELS, r"img00000004.png' cannot be read"),
    "no picture": (with_file(4, b"none"), LABELS, r"img00000004.png' cannot be read: no picture"),
    "nothing": ({"readme.txt": b""}, None, r"no pictures at .* \(it holds none, of 1 files\)"),
    "not finite": (
        {name(i, "npy"): latent(np.nan) for i in range(3)}, None,
        r"npy' cannot be read: it holds numbers that",
    ),
    "pickle": ({name(0, "npy"): pickled()}, None, r"npy' cannot be read: Object arrays cannot be loaded"),
    "points": ({name(0, "npy"): latent(0, (4,))}, None, r"an array of shape \[4\], allowed: \(C, H, W\)"),
    "vectors": (
        pictures(), {"labels": [[name(i), [0.5]] for i in range(N)]},
        r"is a vector; allowed: whole numbers from 0",
    ),
    "a gap": (pictures(), {"labels": [[name(i), 2 * (i % 2)] for i in range(N)]}, r"labels are 0 to 2, and none is 1"),
    "one without": (
        pictures(), {"labels": LABELS["labels"][1:]},
        r"has no label for 1 of 12 files, such as '00002/img00000011",
    ),
    "a list": (pictures(), {"labels": [1, 2]}, r'found \[1, 2\], allowed: {"labels": '),
    "text": (pictures(), {"labels": [[name(i), "cat"] for i in range(N)]}, r"is 'cat'; allowed: whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize("where", ["x", "x.zip"])
@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_line_that_names_it(tmp_path, case, where):
    files, table, why = BAD[case]
    with pytest.raises(UsageError, match=why) as told:
        read(packed(tmp_path / where, files, table))
    assert str(told.value).startswith("data.root: ")
    assert "\n" not in str(told.value)


def test_a_table_that_is_no_json_is_named(tmp_path):
    root = packed(tmp_path / "x", pictures(), None)
    (root / "dataset.json").write_text("{labels")
    with pytest.raises(UsageError, match=r"dataset.json is not JSON"):
        read(root)


@pytest.mark.parametrize("make", ["missing", "no zip", "torn zip"])
def test_a_place_without_data_is_named(tmp_path, make):
    path = tmp_path / "x.zip"
    if make == "no zip":
        path.write_text("nothing")
    elif make == "torn zip":
        packed(path, pictures(), LABELS)
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UsageError, match=r"data.root: (no pictures at|.* is no zip, or damaged)"):
        read(path)


def test_content_changes_with_pictures_and_labels_and_not_with_the_place(tmp_path):
    first = read(packed(tmp_path / "a.zip", pictures(), LABELS)).content
    assert read(packed(tmp_path / "b.zip", pictures(), LABELS)).content == first
    other = {"labels": [[name(i), (i + 1) % 3] for i in range(N)]}
    assert read(packed(tmp_path / "c.zip", pictures(), other)).content != first
    brighter = with_file(3, picture(4))
    assert read(packed(tmp_path / "d.zip", brighter, LABELS)).content != first
    folder = read(packed(tmp_path / "e", pictures(), LABELS)).content
    assert read(packed(tmp_path / "f", pictures(), LABELS)).content == folder
    assert read(packed(tmp_path / "g", brighter, LABELS)).content != folder


def test_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    from cmbench.data import edm

    monkeypatch.setattr(edm.psutil, "virtual_memory", lambda: type("", (), {"available": 100}))
    with pytest.raises(UsageError, match="12 pictures need 1,296 bytes of memory, 100 are free"):
        read(packed(tmp_path / "x", pictures(), LABELS))
