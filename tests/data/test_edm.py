"""EDM's form, as its dataset_tool.py writes it: a folder or a zip, with dataset.json, pictures or arrays."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from cmbench import finite
from cmbench.data.edm import Config, Data
from cmbench.errors import UsageError
from cmbench.finite import Gathered, as_float, split
from cmbench.pictures import listing, workers
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")
N = 12


def picture(i, mode="RGB", size=(6, 6)):
    """A picture whose first pixel is its number."""
    x = np.full((*size, 3), 10 * i, np.uint8)
    x[0, 0] = i
    buffer = io.BytesIO()
    Image.fromarray(x).convert(mode).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def latent(i, shape=(4, 3, 3), dtype=np.float32):
    buffer = io.BytesIO()
    np.save(buffer, np.full(shape, i / 10, dtype))
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


@pytest.mark.parametrize("where", ["x", "x.zip"])
@pytest.mark.parametrize(("kind", "channels"), [("colours", 1), ("colours", 3), ("grey", 1), ("grey", 3)])
def test_channels_are_as_wanted_and_take_their_bytes_alone(tmp_path, decodings, kind, channels, where):
    root = set_of(tmp_path / where, kind)
    data = read(root, channels=channels)
    found = np.stack([different(i)[1][KINDS[kind]] for i in range(N)]).astype(float)
    luma = np.einsum("nchw,c->nhw", np.broadcast_to(found, (N, 3, 6, 6)), [0.299, 0.587, 0.114])  # ITU-R 601
    expected = luma[:, None] if channels == 1 else np.broadcast_to(found, (N, 3, 6, 6))
    train, test = split(np.arange(N) % 3, 0.1)
    rounding = 0.51 if (kind, channels) == ("colours", 1) else 0
    np.testing.assert_allclose(data.train[:], expected[train], atol=rounding)
    np.testing.assert_allclose(data.test[:], expected[test], atol=rounding)
    assert data.shape == (channels, 6, 6)
    (made,) = (tmp_path / "cache" / "pictures").glob("*.safetensors")
    assert load_file(made)["pictures"].shape == (N, channels, 6, 6)


def test_without_the_key_grey_pictures_are_those_of_one_channel(tmp_path, decodings):
    root = set_of(tmp_path / "x.zip", "grey")
    found, wanted = read(root), read(root, channels=1)
    assert len(decodings) == 2
    assert (found.shape, found.content, found.summary) == (wanted.shape, wanted.content, wanted.summary)
    assert torch.equal(found.train[:], wanted.train[:])
    assert torch.equal(found.test[:], wanted.test[:])


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_of_arrays_are_not_chosen(tmp_path, channels):
    files = {name(i, "npy"): latent(i) for i in range(N)}
    why = rf"^data.channels: found {channels}, allowed for arrays such as 00000/img00000000.npy: 0$"
    with pytest.raises(UsageError, match=why):
        read(packed(tmp_path / "x.zip", files, None), channels=channels)


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
        r"1 of 12 .* .*img00000003.png: found \[3, 6, 7\] uint8, allowed: \[3, 6, 6\] uint8, as 00000/img00000000.png$",
    ),
    "torn": (with_file(4, picture(4)[:100]), LABELS, r": 1 of 12 pictures cannot be read: 00000/img00000004.png: "),
    "no picture": (with_file(4, b"none"), LABELS, r": 00000/img00000004.png: no picture, or a damaged one"),
    "torn first": (with_file(0, picture(0)[:100]), LABELS, r": 00000/img00000000.png cannot be read: "),
    "an array among pictures": (
        {**pictures(), "00000/x.npy": latent(0, (3, 6, 6))}, None,
        r"00000/x.npy: found \[3, 6, 6\] float32, allowed: \[3, 6, 6\] uint8, as 00000/img",
    ),
    "beyond float32": ({name(0, "npy"): latent(1e40, dtype=np.float64)}, None, r"not finite, or beyond float32"),
    "empty": ({name(0, "npy"): latent(0, (3, 0, 4))}, None, r"an array of shape \[3, 0, 4\]"),
    "nothing": ({"readme.txt": b""}, None, r"no pictures at .* \(it holds none, of 1 files\)"),
    "not finite": (
        {name(i, "npy"): latent(np.nan) for i in range(3)}, None,
        r"npy cannot be read: it holds numbers that",
    ),
    "pickle": ({name(0, "npy"): pickled()}, None, r"npy cannot be read: Object arrays cannot be loaded"),
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


@pytest.fixture
def decodings(monkeypatch, tmp_path):
    """How often a set is decoded, with a cache of the test's own."""
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(tmp_path / "cache"))
    counted, decode = [], workers.decoded
    monkeypatch.setattr(workers, "decoded", lambda *a, **k: counted.append(1) or decode(*a, **k))
    return counted


def different(i):
    """The files of a picture in colour, of a grey one, and of latents, and their values; no two are alike."""
    x = np.random.default_rng(i).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffers = [io.BytesIO() for _ in range(3)]
    Image.fromarray(x).save(buffers[0], "PNG")
    Image.fromarray(x[..., 0]).save(buffers[1], "PNG")
    latents = (x.transpose(2, 0, 1) / 7).astype(np.float16)
    np.save(buffers[2], latents)
    return [buffer.getvalue() for buffer in buffers], (
        x.transpose(2, 0, 1),
        x[None, ..., 0],
        latents.astype(np.float32),
    )


KINDS = {"colours": 0, "grey": 1, "latents": 2}


def set_of(root, kind):
    ending = "npy" if kind == "latents" else "png"
    files = {name(i, ending): different(i)[0][KINDS[kind]] for i in range(N)}
    return packed(root, files, {"labels": [[file, i % 3] for i, file in enumerate(files)]})


@pytest.mark.parametrize("where", ["x", "x.zip"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_set_is_decoded_once_and_keeps_order_and_values(tmp_path, decodings, kind, where):
    root = set_of(tmp_path / where, kind)
    expected = torch.from_numpy(np.stack([different(i)[1][KINDS[kind]] for i in range(N)]))
    train, test = (torch.from_numpy(index) for index in split(np.arange(N) % 3, 0.25))
    for _ in range(2):
        data = read(root, held_out=0.25)
        assert torch.equal(data.train[:], expected[train])
        assert torch.equal(data.test[:], expected[test])
        assert data.train_labels.tolist() == (train % 3).tolist()
        assert data.train[:].is_contiguous()
    assert len(decodings) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_larger_than_memory_stays_in_its_file_with_the_same_batches(tmp_path, monkeypatch, decodings, kind):
    root = set_of(tmp_path / "x.zip", kind)
    inside = read(root)
    monkeypatch.setattr(finite, "_KEEP_ON_DEVICE", 0)
    mapped = read(root)
    assert isinstance(inside.train, torch.Tensor)
    assert isinstance(mapped.train, Gathered)
    for step in range(4):
        (x, labels), (own, others) = (each.batch(5, StepRandom(CPU, 0, step)) for each in (inside, mapped))
        assert torch.equal(x, own)
        assert torch.equal(labels, others)
    assert torch.equal(inside.held_out(2), mapped.held_out(2))


def test_a_picture_that_was_painted_over_in_a_large_folder_is_decoded_again(tmp_path, monkeypatch, decodings):
    monkeypatch.setattr(listing, "_HASHED", 200)  # bytes: most files are not looked into
    root = packed(tmp_path / "x", pictures(), LABELS)
    before = read(root)
    path = root / name(7)
    since = path.stat()
    path.write_bytes(picture(6))
    os.utime(path, ns=(since.st_atime_ns, since.st_mtime_ns + 10**9))
    assert path.stat().st_size == since.st_size
    assert numbers(read(root)) != numbers(before)
    assert len(decodings) == 2


def test_a_set_with_a_picture_that_cannot_be_read_leaves_nothing(tmp_path, decodings):
    root = packed(tmp_path / "x.zip", with_file(4, picture(4)[:100]), LABELS)
    with pytest.raises(UsageError):
        read(root)
    assert [path.suffix for path in (tmp_path / "cache" / "pictures").iterdir()] == [".lock"]


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_of_a_zip_is_named(tmp_path, decodings, compression):
    root = packed(tmp_path / "x.zip", pictures(), LABELS, compression)
    with zipfile.ZipFile(root) as archive:
        member = archive.getinfo(name(5))
    content = bytearray(root.read_bytes())
    at = member.header_offset + 30 + len(member.filename) + member.compress_size // 2
    content[at : at + 8] = bytes(b ^ 255 for b in content[at : at + 8])
    root.write_bytes(content)
    with pytest.raises(UsageError, match=r"data.root: .*x.zip: '00001/img00000005.png' cannot be read: ") as told:
        read(root)
    assert "\n" not in str(told.value)
