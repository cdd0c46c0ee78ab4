"""Folders of every layout: flat ones, ready splits, labels in a CSV, one channel, sizes that are not square."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cmbench import config, regular
from cmbench.data.images import Config, Data
from cmbench.errors import UsageError
from cmbench.pictures import listing
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")


def write(path: Path, number: int, size: tuple[int, int] = (6, 4), colour: bool = True) -> None:
    """Write a picture (width, height) whose red, or grey, is `number`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if colour else "L", size, (number, 255 - number, 7) if colour else number).save(path)


def load(root: Path, **settings: object) -> Data:
    return Data(Config(name="folder", root=str(root), **{"size": 4, **settings}), CPU)


def numbers(pictures: torch.Tensor) -> list[int]:
    return pictures[:, 0, 0, 0].tolist()


def refused(root: Path, **settings: object) -> str:
    with pytest.raises(UsageError) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Flat folders


def test_a_flat_folder_has_no_classes(tmp_path):
    for i in range(10):
        write(tmp_path / f"{i}.png", i)
    (tmp_path / "notes.txt").write_text("")
    data = load(tmp_path)
    assert (data.classes, data.names, data.count_and_held_out) == (1, (), (9, 1))
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(10))
    assert data.train_labels.tolist() == [0] * 9
    assert data.summary == "10 pictures without classes, 1 skipped: 1 .txt"
    assert Data.shape_and_classes(Config(name="folder", root=str(tmp_path), size=4)) == ((3, 4, 4), 1)


def test_folders_of_folders_are_flat_where_that_is_asked_for(tmp_path):
    for i in range(6):
        write(tmp_path / str(i % 2) / str(i % 3) / f"{i}.png", i)
    assert load(tmp_path).names == ("0", "1")
    data = load(tmp_path, layout="flat")
    assert (data.classes, data.names) == (1, ())
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(6))


@pytest.mark.parametrize("content", ["nothing", "text", "hidden", "sub-folders of sub-folders", "empty sub-folder"])
def test_a_folder_without_a_picture_is_refused(tmp_path, content):
    if content == "text":
        (tmp_path / "a.txt").write_text("")
    elif content == "hidden":
        write(tmp_path / ".a.png", 0)
        write(tmp_path / ".cache" / "a.png", 0)
    elif content != "nothing":
        (tmp_path / "a" / ("b" if content.startswith("sub") else "")).mkdir(parents=True)
    assert "data.root: no pictures at" in refused(tmp_path)
    assert str(tmp_path) in refused(tmp_path)


def test_what_may_not_be_read_is_named(tmp_path, monkeypatch):
    """Root may read everything: the system's refusal is put in its place."""
    for i in range(4):
        write(tmp_path / f"{i}.png", i)
    opened = regular.opened

    def guarded(path, links=False):
        if Path(path).name == "2.png" and guarded.digested:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, links)

    guarded.digested = False
    digest = listing.digest

    def then_guarded(root, files):
        found = digest(root, files)
        guarded.digested = True
        return found

    monkeypatch.setattr(regular, "opened", guarded)
    monkeypatch.setattr(listing, "digest", then_guarded)
    assert "1 of 4 pictures cannot be read: 2.png: Permission denied" in refused(tmp_path)


@pytest.mark.parametrize("where", ["digest", "folder"])
def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch, where):
    for i in range(4):
        write(tmp_path / "a" / f"{i}.png", i)

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "a"))

    monkeypatch.setattr(*((regular, "opened") if where == "digest" else (os, "scandir")), denied)
    told = refused(tmp_path)
    assert told.startswith("data.root: ")
    assert "Permission denied" in told


def test_links_to_pictures_are_pictures(tmp_path):
    for i in range(4):
        write(tmp_path / "elsewhere" / f"{i}.png", i)
    (tmp_path / "root").mkdir()
    for i in range(4):
        (tmp_path / "root" / f"{i}.png").symlink_to(tmp_path / "elsewhere" / f"{i}.png")
    assert load(tmp_path / "root").count_and_held_out == (3, 1)


# Ready splits


@pytest.mark.parametrize("held", ["val", "valid", "validation", "test"])
def test_a_ready_split_is_held_out(tmp_path, held):
    for i in range(12):
        write(tmp_path / ("train" if i < 8 else held) / "ab"[i % 2] / f"{i}.png", i)
    data = load(tmp_path)
    assert data.names == ("a", "b")
    assert sorted(numbers(data.train)) == list(range(8))
    assert sorted(numbers(data.test)) == [8, 9, 10, 11]
    for pictures, labels in ((data.train, data.train_labels), (data.test, data.test_labels)):
        assert [n % 2 for n in numbers(pictures)] == labels.tolist()
    assert data.counts == (6, 6)
    assert data.summary == f"12 pictures of 2 classes (a: 6, b: 6), 4 of them held out, in {held}/"


def test_splits_may_be_flat_and_their_held_out_pictures_are_mixed(tmp_path):
    for i in range(40):
        write(tmp_path / ("train" if i < 20 else "val") / f"{i:02}.png", i)
    data = load(tmp_path)
    assert (data.classes, data.names) == (1, ())
    assert sorted(numbers(data.test)) == list(range(20, 40))
    assert numbers(data.test) != list(range(20, 40))


def test_of_three_splits_validation_is_held_out_and_the_test_left_out(tmp_path):
    for i in range(9):
        write(tmp_path / ("train", "val", "test")[i // 3] / f"{i}.png", i)
    data = load(tmp_path)
    assert (sorted(numbers(data.train)), sorted(numbers(data.test))) == ([0, 1, 2], [3, 4, 5])
    assert data.summary.endswith("3 of them held out, in val/, 3 skipped: 3 in test/")


def test_a_class_may_lack_in_the_held_out_split(tmp_path):
    for i, place in enumerate(["train/a", "train/b", "train/c", "val/c", "val/a"]):
        write(tmp_path / place / "x.png", i)
    data = load(tmp_path)
    assert data.classes == 3
    assert dict(zip(numbers(data.test), data.test_labels.tolist(), strict=True)) == {3: 2, 4: 0}


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["train/a", "val/b"], "val/ has the class 'b', which train/ has not"),
        (["train/a", "val"], "val/ has no classes, and train/ has; allowed: both or none"),
        (["train", "val/a"], "train/ has no classes, and val/ has"),
    ],
)
def test_splits_that_do_not_fit_are_refused(tmp_path, places, message):
    for place in places:
        write(tmp_path / place / "x.png", 0)
    assert message in refused(tmp_path)


def test_an_empty_split_is_refused(tmp_path):
    write(tmp_path / "train" / "x.png", 0)
    (tmp_path / "val").mkdir()
    assert f"no pictures in {tmp_path}/val; allowed: some in train/ and in val/" in refused(tmp_path)


def test_splits_that_are_asked_for_must_be_there(tmp_path):
    write(tmp_path / "a" / "x.png", 0)
    assert "data.layout: found 'splits', but no train/ beside one of val" in refused(tmp_path, layout="splits")


@pytest.mark.parametrize("names", [("train", "car"), ("train",), ("val", "test"), ("train", "val", "car")])
def test_other_folders_are_classes(tmp_path, names):
    for i, name in enumerate(names):
        write(tmp_path / name / "x.png", i)
        write(tmp_path / name / "y.png", i)
    assert set(load(tmp_path).names) == set(names)


def test_runs_of_before_have_classes_of_the_names_of_splits(tmp_path):
    for i in range(4):
        write(tmp_path / ("train" if i < 2 else "val") / f"{i}.png", i)
    for reader in ("cmbench", "torchvision"):
        assert load(tmp_path, layout="classes", reader=reader).names == ("train", "val")
    assert load(tmp_path, reader="torchvision").names == ("train", "val")


# Labels in a CSV


def labelled(root: Path, text: str, n: int = 4) -> Path:
    for i in range(n):
        write(root / f"{i}.png", i)
    (root / "labels.csv").write_text(text)
    return root


ROWS = "1.png,b\n0.png,a\n3.png,a\n2.png,c10\n"


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "file,label\n" + ROWS,
        "\ufefffile name, the label\r\n" + ROWS.replace("\n", "\r\n"),
        ROWS.replace("a\n", '"a"\n') + "\n\n",
        "".join(sorted(ROWS.splitlines(keepends=True))),
    ],
    ids=["plain", "header", "windows", "quoted", "other order"],
)
def test_a_csv_gives_names(tmp_path, text):
    data = load(labelled(tmp_path, text), labels="labels.csv")
    assert data.names == ("a", "b", "c10")
    found = dict(zip(numbers(data.train) + numbers(data.test), [*data.train_labels, *data.test_labels], strict=True))
    assert {n: int(label) for n, label in found.items()} == {0: 0, 1: 1, 2: 2, 3: 0}
    assert data.summary == "4 pictures of 3 classes (a: 2, b: 1, c10: 1)"


def test_a_csv_gives_numbers(tmp_path):
    data = load(labelled(tmp_path, "0.png,2\n1.png,0\n2.png,1\n3.png,2\n"), labels="labels.csv")
    assert (data.classes, data.names) == (3, ())
    assert data.summary == "4 pictures of 3 classes by labels.csv"
    labels = dict(zip(numbers(data.train), data.train_labels.tolist(), strict=True))
    assert labels.items() <= {0: 2, 1: 0, 2: 1, 3: 2}.items()


def test_names_of_a_csv_are_paths_below_the_root_of_any_depth_and_split(tmp_path):
    for i, place in enumerate(["train/x/0.png", "train/1.png", "val/2.png"]):
        write(tmp_path / place, i)
    (tmp_path / "about").mkdir()
    (tmp_path / "about" / "l.csv").write_text("train/x/0.png,a\nval/2.png,a\ntrain/1.png,b\n")
    with pytest.raises(UsageError, match=r"data\.layout: found 'splits'"):
        load(tmp_path / "about", labels="l.csv", layout="splits")
    data = load(tmp_path, labels="about/l.csv", layout="splits")
    assert numbers(data.test) == [2]
    assert data.test_labels.tolist() == [0]
    data = load(tmp_path, labels="about/l.csv")
    assert data.count_and_held_out == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS.replace("3.png,a\n", ""), "labels.csv: no label for '3.png'"),
        ("", "no label for '0.png', '1.png', '2.png' and 1 more"),
        (ROWS + "1.png,b\n", "labels.csv, line 5: '1.png' has a label already, in line 1"),
        (ROWS + "4.png,b\n", "line 5: found '4.png', which is no picture here; did you mean"),
        (ROWS + "one,b\n", "line 5: found 'one', which is no picture here"),
        (ROWS.replace(",b", ",b,c"), "line 1: found 3 columns, allowed: file name, label"),
        (ROWS.replace("0.png,a", "0.png"), "line 2: found 1 columns"),
        (ROWS.replace("0.png,a", "0.png,"), "line 2: '0.png' has no label"),
        ("0.png,1\n1.png,2\n2.png,1\n3.png,2\n", "no picture has label 0, and the highest is 2; allowed: every number"),
        ("0.png,0\n1.png,5\n2.png,1\n3.png,2\n", "no picture has label 3, and the highest is 5"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_in_one_line(tmp_path, text, message):
    told = refused(labelled(tmp_path, text), labels="labels.csv")
    assert told.startswith("data.labels: labels.csv")
    assert message in told


def test_a_csv_that_cannot_be_read_is_refused(tmp_path):
    labelled(tmp_path, ROWS)
    assert "data.labels: none.csv: cannot be read: No such file" in refused(tmp_path, labels="none.csv")
    (tmp_path / "latin.csv").write_bytes("0.png,\xe9\n".encode("latin-1"))
    assert "latin.csv: not in UTF-8" in refused(tmp_path, labels="latin.csv")
    (tmp_path / "zero.csv").write_bytes(b"0.png,a\0\n")
    refused(tmp_path, labels="zero.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    assert "not a regular file" in refused(tmp_path, labels="pipe.csv")


@pytest.mark.parametrize("place", ["/etc/passwd", "../labels.csv", "a/../../labels.csv"])
def test_a_csv_lies_below_the_root(tmp_path, place):
    """A recipe of others names no file elsewhere."""
    labelled(tmp_path / "root", ROWS)
    (tmp_path / "labels.csv").write_text(ROWS)
    assert "allowed: a file below data.root" in refused(tmp_path / "root", labels=place)


def test_labels_are_part_of_the_content_that_tells_data_apart(tmp_path):
    table = {"kind": "images", "name": "folder", "root": str(labelled(tmp_path, ROWS)), "labels": "labels.csv"}
    before, content = listing.look(table), load(tmp_path, labels="labels.csv").content
    assert before is not None
    assert (before.content, before.pictures, before.names) == (content, 4, ["a", "b", "c10"])
    (tmp_path / "labels.csv").write_text(ROWS.replace("1.png,b", "1.png,a").replace("0.png,a", "0.png,b"))
    assert load(tmp_path, labels="labels.csv").content != content
    (tmp_path / "labels.csv").write_text("1.png,b\n")
    assert listing.look(table) is None


# Channels and sizes


def test_one_channel(tmp_path):
    for i in range(5):
        write(tmp_path / f"{i}.png", 40 * i, colour=i > 2)
    data = load(tmp_path, channels=1)
    assert data.shape == (1, 4, 4)
    values = [0, 40, 80, *(round(0.299 * n + 0.587 * (255 - n) + 0.114 * 7) for n in (120, 160))]
    assert sorted(numbers(data.train) + numbers(data.test)) == sorted(values)
    assert Data.shape_and_classes(Config(name="folder", root=str(tmp_path), size=4, channels=1)) == ((1, 4, 4), 1)


@pytest.mark.parametrize(("size", "shape"), [(5, (3, 5, 5)), ((3, 8), (3, 3, 8)), ([8, 3], (3, 8, 3))])
def test_sizes_need_not_be_square(tmp_path, size, shape):
    for i in range(3):
        write(tmp_path / f"{i}.png", i, (30, 20))
    data = load(tmp_path, size=size, horizontal_flip=True)
    assert data.shape == shape
    assert data.batch(2, StepRandom(CPU, 0, 0))[0].shape == (2, *shape)


@pytest.mark.parametrize("size", [0, -1, 65537, "32", 4.0, True, [4], [4, 5, 6], [4, 0], [4, "5"], [], None])
def test_sizes_that_are_none_are_one_line(size):
    with pytest.raises(UsageError) as caught:
        config.check(Config, {"name": "folder", "size": size}, "r.toml", "data")
    assert str(caught.value).startswith("r.toml: data.size: found ")
    assert str(caught.value).endswith(", allowed: pixels of a side, or [height, width], from 1 to 65536 each")


def test_sizes_are_written_out_as_they_are_read():
    for size in (32, [24, 40]):
        given = config.check(Config, {"name": "folder", "size": size}, "")
        assert given.model_dump(mode="json")["size"] == size
        assert config.check(Config, given.model_dump(mode="json"), "") == given


# Few pictures


def test_a_class_of_one_picture_and_a_set_smaller_than_a_batch(tmp_path):
    for i, name in enumerate("aabc"):
        write(tmp_path / name / f"{i}.png", i)
    data = load(tmp_path, held_out=0.01)
    assert data.count_and_held_out == (3, 1)
    assert data.classes == 3
    x, labels = data.batch(10, StepRandom(CPU, 0, 0))
    seen = Counter(((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist())
    assert sorted(seen.values()) == [3, 3, 4]
    assert len(labels) == 10


def test_one_class(tmp_path):
    for i in range(3):
        write(tmp_path / "only" / f"{i}.png", i)
    data = load(tmp_path)
    assert (data.classes, data.names, data.counts) == (1, ("only",), (3,))


def test_one_picture_leaves_none_to_train_on(tmp_path):
    write(tmp_path / "a.png", 0)
    assert "data.held_out: 1 of 1 pictures" in refused(tmp_path)


def test_a_picture_painted_over_in_a_large_set_is_decoded_anew(tmp_path, monkeypatch):
    """Of large sets the digest reads some files alone; their times tell of the others."""
    monkeypatch.setattr(listing, "_HASHED", 100)
    for i in range(9):
        write(tmp_path / f"{i}.png", i)
    before = load(tmp_path)
    hidden = next(
        i for i in range(9) if i not in listing.looked_into([p.stat().st_size for p in sorted(tmp_path.iterdir())])
    )
    content = (tmp_path / f"{hidden}.png").read_bytes()
    write(tmp_path / f"{hidden}.png", 99)
    assert len((tmp_path / f"{hidden}.png").read_bytes()) == len(content)
    after = load(tmp_path)
    assert after.content == before.content
    assert 99 in numbers(after.train) + numbers(after.test)


def test_data_of_both_ways_are_equal_where_old_runs_resume(tmp_path):
    """The split, the order and the labels of the versions before, from their own lines."""
    for i in range(23):
        write(tmp_path / "abc"[i % 3] / f"{i}.png", i)
    files = [path for name in "abc" for path in sorted((tmp_path / name).iterdir())]
    labels = torch.tensor(["abc".index(path.parent.name) for path in files])
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    test_size = max(1, round(0.1 * 23))
    data = load(tmp_path, layout="classes")
    red = torch.tensor([np.asarray(Image.open(path))[0, 0, 0] for path in files])
    assert numbers(data.test) == red[order][:test_size].tolist()
    assert numbers(data.train) == red[order][test_size:].tolist()
    assert data.train_labels.tolist() == labels[order][test_size:].tolist()
    assert data.test_labels.tolist() == labels[order][:test_size].tolist()
