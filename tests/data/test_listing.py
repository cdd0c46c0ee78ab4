"""What tells the files of a data set from others."""

import shutil
from pathlib import Path

import pytest

from cmbench.pictures import listing


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "root" / name / f"{i}.png").write_bytes(bytes([i]) * 10)
    return tmp_path / "root"


def digest(root: Path) -> str:
    return listing.digest(root, listing.listing(root).files)


def test_a_digest_stays_where_files_are_copied_moved_or_touched(root, tmp_path):
    before = digest(root)
    copy = Path(shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile))
    (copy / "notes.txt").write_text("no picture")
    assert digest(copy) == before
    assert digest(root.rename(tmp_path / "moved")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a" / "0.png").write_bytes(b"\1" * 10),
        lambda root: (root / "a" / "0.png").write_bytes(b"\0" * 11),
        lambda root: (root / "a" / "0.png").rename(root / "b" / "3.png"),
        lambda root: (root / "a" / "0.png").unlink(),
        lambda root: (root / "a").rename(root / "c"),
        lambda root: shutil.copy(root / "a" / "0.png", root / "a" / "9.png"),
    ],
    ids=["byte", "size", "label", "less", "name", "more"],
)
def test_a_digest_is_another_where_a_file_or_its_label_is(root, change):
    before = digest(root)
    change(root)
    assert digest(root) != before


def test_of_large_sets_sizes_count_and_the_content_of_some(root, monkeypatch):
    monkeypatch.setattr(listing, "_HASHED", 20)  # of 60 bytes: the files 0 and 3
    assert list(listing.looked_into([10] * 6)) == [0, 3]
    before = digest(root)
    (root / "a" / "1.png").write_bytes(b"\7" * 10)
    assert digest(root) == before
    (root / "b" / "0.png").write_bytes(b"\7" * 10)
    assert digest(root) != before
    (root / "b" / "0.png").write_bytes(b"\0" * 10)
    assert digest(root) == before
    (root / "a" / "1.png").write_bytes(b"\7" * 11)
    assert digest(root) != before


@pytest.mark.parametrize("sizes", [[], [0], [10**12], [1] * 1000, [2**20] * 1000, [0] * 5 + [2**30] * 3])
def test_some_content_is_always_looked_at_and_never_much_more_than_its_share(sizes):
    looked = list(listing.looked_into(sizes))
    assert bool(looked) == bool(sizes)
    assert looked == sorted(set(looked))
    assert len(looked) <= len(sizes)


def test_what_no_files_hold_is_not_looked_at(tmp_path):
    assert listing.look({"kind": "digits"}) is None
    assert listing.look({"kind": "images", "name": "mnist", "root": str(tmp_path)}) is None
    assert listing.look({"kind": "images", "name": "folder", "root": str(tmp_path / "none")}) is None
    assert listing.look({"kind": "images", "name": "folder", "root": str(tmp_path)}) is None


def test_fetched_files_are_looked_at(tmp_path):
    table = {"kind": "images", "name": "cifar10", "root": str(tmp_path)}
    for i in (1, 2, 3, 4, 5):
        (tmp_path / "cifar-10-batches-py").mkdir(exist_ok=True)
        (tmp_path / "cifar-10-batches-py" / f"data_batch_{i}").write_bytes(b"x")
    assert listing.look(table) is None
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"x")
    before = listing.look(table)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"y")
    assert before is not None
    assert listing.look(table) != before
