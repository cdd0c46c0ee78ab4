"""Moments against numpy over the whole, and the check that each number is finite."""

import contextlib
import json

import numpy as np
import pytest

from cmbench import progress
from cmbench.arrays import moments, stored
from cmbench.arrays.moments import Sums, checked
from cmbench.arrays.stored import Stored
from cmbench.errors import UsageError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(moments, "_EXPENSIVE", 0)
    return tmp_path / "cache" / "arrays"


def test_blocks_of_any_size_have_the_moments_of_the_whole():
    """Far from 0, where sums of squares would cancel."""
    x = 1e6 + np.random.default_rng(0).normal(size=(50, 3, 4, 5)) * [[[[1]], [[2]], [[5]]]]
    sums = Sums()
    for start, stop in [(0, 1), (1, 2), (2, 30), (30, 50)]:
        sums.add(x[start:stop])
    for i, found in enumerate(sums.channels()):
        own = x[:, i]
        assert found.low == own.min()
        assert found.high == own.max()
        assert found.mean == pytest.approx(own.mean(), rel=1e-12)
        assert found.deviation == pytest.approx(own.std(), rel=1e-9)
    whole = sums.whole()
    assert (whole.low, whole.high) == (x.min(), x.max())
    assert whole.deviation == pytest.approx(x.std(), rel=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_value_that_is_not_finite_is_named_with_its_place(tmp_path, monkeypatch, value):
    monkeypatch.setattr(stored, "BLOCK", 256)
    x = np.zeros((40, 2, 3))
    x[33, 1, 2] = x[35, 0, 0] = value
    where = rf"data.root: a.npz: x: sample 33 is {str(value).replace('+', '.')} at \[1, 2\]; allowed: finite"
    with pytest.raises(UsageError, match=where):
        checked(Stored(x, "a.npz: x"), "grey", tmp_path / "a.npz", "data.root")


def test_a_long_look_tells_how_far_it_is(tmp_path, monkeypatch):
    seen = []

    class Told(progress.Progress):
        def counting(self, what, of):
            seen.append((what, of))
            return contextlib.nullcontext(seen.append)

    monkeypatch.setattr(moments, "_EXPENSIVE", 100)
    monkeypatch.setattr(stored, "BLOCK", 256)
    with progress.telling(Told()):
        checked(Stored(np.ones((40, 2)), "x"), "points", tmp_path / "x", "data.root")
        checked(Stored(np.ones((6, 2)), "x"), "points", tmp_path / "x", "data.root")
    assert seen == [("checking values", 40), 16, 16, 8]


def test_bytes_are_not_read(tmp_path):
    assert checked(Stored(np.zeros((3, 2), np.uint8), "x"), "points", tmp_path / "x", "data.root") is None


def test_what_was_found_is_kept_until_the_file_changes(tmp_path, cache, monkeypatch):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6.0).reshape(3, 2))

    def look():
        return checked(Stored(np.load(path, mmap_mode="r"), "x.npy", is_mapped=True), "points", path, "data.root")

    first = look()
    (kept,) = cache.iterdir()
    about = json.loads(kept.read_text())
    about["channels"][0]["mean"] = 7.0  # which only who reads the cache can know
    kept.write_text(json.dumps(about))
    assert look()[0].mean == 7
    np.save(path, np.arange(6.0).reshape(3, 2))
    assert look() == first


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"channels": [{"low": "x"}]}', b"\xff"])
def test_a_damaged_cache_is_as_good_as_none(tmp_path, cache, damage):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6.0).reshape(3, 2))
    array = Stored(np.load(path, mmap_mode="r"), "x.npy", is_mapped=True)
    first = checked(array, "points", path, "data.root")
    (kept,) = cache.iterdir()
    kept.write_bytes(damage)
    assert checked(array, "points", path, "data.root") == first


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, cache):
    (tmp_path / "cache").write_text("a file")
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    array = Stored(np.load(tmp_path / "x.npy", mmap_mode="r"), "x.npy", is_mapped=True)
    assert checked(array, "points", tmp_path / "x.npy", "data.root")[0].mean == 1
