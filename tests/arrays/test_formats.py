"""Arrays of each kind of file: the same numbers as the libraries that wrote them, mapped where they can be."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cmbench.arrays import formats
from cmbench.errors import UsageError
from cmbench.pictures import packed

X = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)


def read(path):
    return formats.opened(path, "data.root")


def rows(stored):
    return stored.rows(np.arange(len(stored)))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_any_byte_order_and_order_of_axes_is_read_as_numpy_reads_it(tmp_path, dtype, order, kind):
    x = np.asarray(100 * abs(X), dtype=dtype, order=order)
    path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
    {"npy": np.save, "npz": np.savez, "compressed": np.savez_compressed}[kind](path, x)
    (found,) = read(path).values()
    assert found.is_mapped == (kind != "compressed")
    got = rows(found)
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, x)
    np.testing.assert_array_equal(found.rows(slice(2, 5)), x[2:5])
    np.testing.assert_array_equal(found.rows(np.array([6, 0, 6])), x[[6, 0, 6]])


def test_safetensors_are_mapped_with_every_type_of_numbers(tmp_path):
    x = torch.from_numpy(X)
    tensors = {"half": x.half(), "single": x, "double": x.double(), "brain": x.bfloat16(), "bytes": x.to(torch.uint8)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"from": "here"})
    found = read(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].is_mapped
        np.testing.assert_array_equal(rows(found[name]), (tensor.float() if name == "brain" else tensor).numpy())
    assert found["brain"].type_name == "bfloat16"
    assert found["brain"].is_float


def test_a_mapped_array_is_never_written_to(tmp_path):
    np.save(tmp_path / "x.npy", X)
    found = read(tmp_path / "x.npy")[""]
    found.rows(slice(0, 2))[:] = 9
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), X)


def objects(path):
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def objects_in_npz(path):
    np.savez(path, x=X, y=np.array([[1], [1, 2]], dtype=object))


def records(path):
    np.save(path, np.zeros(3, dtype=[("a", "f4"), ("b", "i4")]))


def truncated(path):
    np.save(path, X)
    path.write_bytes(path.read_bytes()[:-1])


def longer_than_any_file(path):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**61, 8)})


def torn_zip(path):
    np.savez(path, x=X)
    path.write_bytes(path.read_bytes()[:-30])


def torn_safetensors(path):
    save_file({"x": torch.ones(3)}, path)
    path.write_bytes(path.read_bytes()[:-1])


def boastful(path):
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def npz_of_others(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"nothing")


BAD = {
    "objects.npy": (objects, "an array of objects, which are pickled and may run code"),
    "objects.npz": (objects_in_npz, "an array of objects"),
    "records.npy": (records, "an array of records"),
    "truncated.npy": (truncated, "truncated: it has 295 of 296 bytes"),
    "endless.npy": (longer_than_any_file, "truncated: it has 128 of 73,786,976,294,838,206,592 bytes"),
    "none.npy": (lambda path: path.write_bytes(b""), "cannot be read as .npy"),
    "pickle.npy": (lambda path: path.write_bytes(pickle.dumps(X)), "cannot be read as .npy"),
    "torn.npz": (torn_zip, "cannot be read as .npz"),
    "others.npz": (npz_of_others, "cannot be read as .npz"),
    "torn.safetensors": (torn_safetensors, "cannot be read as .safetensors"),
    "boastful.safetensors": (boastful, "cannot be read as .safetensors"),
    "x.pt": (lambda path: torch.save(X, path), r"a pickle may run code: save its arrays as .npy elsewhere"),
    "x.txt": (lambda path: path.write_text("1 2"), r"allowed: a file of .npy, .npz, .safetensors, .csv"),
    "folder.npy": (lambda path: path.mkdir(), r"no samples at .* \(Is a directory\)"),
    "missing.npy": (lambda path: None, r"no samples at .* \(No such file or directory\)"),
    "ragged.csv": (lambda path: path.write_text("1,2\n3,4\n5\n"), "cannot be read as .csv"),
    "words.csv": (lambda path: path.write_text("1,2\n3,x\n"), "cannot be read as .csv: could not convert string 'x'"),
    "empty.csv": (lambda path: path.write_text(""), "cannot be read as .csv: it is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_array_of_plain_numbers_is_one_line_that_names_it(tmp_path, name):
    make, why = BAD[name]
    make(tmp_path / name)
    with pytest.raises(UsageError, match=why) as told:
        read(tmp_path / name)
    assert str(told.value).startswith("data.root: ")
    assert str(tmp_path / name) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_pickle_is_never_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([Harm()], dtype=object), allow_pickle=True)
    (tmp_path / "x.npy").write_bytes(buffer.getvalue())
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue())
    for name in ("x.npy", "x.npz"):
        with pytest.raises(UsageError, match="objects"):
            read(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_a_compressed_array_larger_than_the_memory_is_refused_with_the_way_out(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=X)
    monkeypatch.setattr(formats.psutil, "virtual_memory", lambda: type("", (), {"available": 100}))
    with pytest.raises(
        UsageError, match=r"compressed, and needs 296 bytes of memory, of which 100 are free; save it by"
    ):
        read(tmp_path / "x.npz")


def test_a_table_has_its_columns_with_and_without_names(tmp_path):
    (tmp_path / "named.csv").write_text('\ufeffx,"y, z",kind\n1,2.5,cat\n-3e2,4,"dog, big"\n', encoding="utf-8")
    found = read(tmp_path / "named.csv")
    assert list(found) == ["x", "y, z", "kind"]
    assert rows(found["x"]).tolist() == [1, -300]
    assert rows(found["y, z"]).tolist() == [2.5, 4]
    assert rows(found["kind"]).tolist() == ["cat", "dog, big"]
    (tmp_path / "bare.csv").write_text("1,2\n3,4\n")
    assert {name: rows(column).tolist() for name, column in read(tmp_path / "bare.csv").items()} == {
        "1": [1, 3],
        "2": [2, 4],
    }


def _zip_of_pictures(path):
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(4):
            file = io.BytesIO()
            Image.fromarray(np.full((2, 2, 3), i, np.uint8)).save(file, "PNG")
            archive.writestr(f"é{i}.png", file.getvalue())


SOUND = {
    ".npy": lambda path: np.save(path, np.zeros((8, 2))),
    ".npz": lambda path: np.savez(path, x=np.zeros((8, 2)), y=np.zeros(8, int)),
    ".safetensors": lambda path: save_file({"x": torch.zeros(8, 2)}, path),
    ".csv": lambda path: path.write_text("a,b\n1,2\n3,4\n"),
    ".zip": _zip_of_pictures,
}


@pytest.mark.parametrize("kind", SOUND)
def test_a_file_with_a_wrong_byte_is_read_or_one_line_says_why(tmp_path, kind):
    """Each byte of head and end in turn; libraries raise all kinds of errors there."""
    path = tmp_path / f"x{kind}"
    SOUND[kind](path)
    content = path.read_bytes()
    places = sorted({*range(min(160, len(content))), *range(max(0, len(content) - 330), len(content))})
    for at in places:
        for byte in (0, 45, 40, 255):
            path.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
            try:
                if kind == ".zip":
                    with packed.opened(path) as found:
                        list(found.sources())
                else:
                    formats.opened(path, "data.root")
            except UsageError as error:
                assert "\n" not in str(error)  # noqa: PT017 - other bytes may do no harm
