"""Decoded pictures: made once, by one process, whole or not at all, and made again where they are damaged."""

import json
import multiprocessing
import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from waiting import until

from cmbench import progress
from cmbench.errors import CmbenchError, UsageError
from cmbench.pictures import cache, prepare, workers
from cmbench.pictures.shape import Shaping
from cmbench.rundir import files

SHAPING = Shaping(6, 8)
M = 30


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("CMBENCH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures"


@pytest.fixture
def sources(tmp_path):
    """M pictures whose first pixel is their number; every third is grey."""
    found = []
    for i in range(M):
        x = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        x[0, 0] = i
        image = Image.fromarray(x[..., 0] if i % 3 == 0 else x)
        image.save(tmp_path / f"{i}.png")
        found.append((f"{i}.png", tmp_path / f"{i}.png"))
    return found


def made(sources, content="content", shaping=SHAPING, processes=1):
    return prepare.prepared(lambda: sources, len(sources), content, shaping, "data.root: /there", processes)


def expected(sources):
    return np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for _, path in sources])


@pytest.fixture
def decodings(monkeypatch):
    """How often pictures are decoded."""
    counted, decode = [], workers.decoded
    monkeypatch.setattr(workers, "decoded", lambda *a, **k: counted.append(1) or decode(*a, **k))
    return counted


def test_pictures_are_decoded_once(place, sources, decodings):
    for _ in range(3):
        found = made(sources)
        assert np.array_equal(found.pictures, expected(sources))
        assert found.marks == {"grey": 10}
    assert len(decodings) == 1


def test_a_file_is_read_by_others_and_says_what_it_was_made_from(place, sources):
    made(sources, "files1:abc")
    (path,) = place.glob("*.safetensors")
    with safe_open(path, "numpy") as file:
        assert np.array_equal(file.get_tensor("pictures"), expected(sources))
        about = file.metadata()
    assert json.loads(about["made_of"])["content"] == "files1:abc"
    assert (about["source"], json.loads(about["marks"])) == ("data.root: /there", {"grey": 10})


@pytest.mark.parametrize(
    "other",
    [
        {"content": "other"},
        {"shaping": Shaping(8, 6)},
        {"shaping": Shaping(6, 8, 1)},
        {"shaping": Shaping(6, 8, alpha="black")},
        {"shaping": Shaping(6, 8, reader="torchvision")},
    ],
)
def test_what_shapes_pictures_or_their_content_makes_other_files(place, sources, decodings, other):
    made(sources)
    made(sources, **other)
    made(sources)
    assert len(decodings) == 2
    assert len(list(place.glob("*.safetensors"))) == 2


def damaged(path, kind):
    content = bytearray(path.read_bytes())
    match kind:
        case "short":
            content = content[:-1]
        case "long":
            content += b"\0"
        case "empty":
            content = b""
        case "a byte":
            content[-100] ^= 1
        case "header":
            content[20] ^= 255
        case "absurd header":
            content[:8] = b"\xff" * 8
        case "of other pictures":
            content = bytes(content).replace(b"content", b"CONTENT")
        case "no checksums":
            content = bytes(content).replace(b"crc32", b"crc64")
    path.write_bytes(content)


@pytest.mark.parametrize(
    "kind", ["short", "long", "empty", "a byte", "header", "absurd header", "of other pictures", "no checksums"]
)
def test_a_damaged_file_is_made_again(place, sources, decodings, kind):
    made(sources)
    (path,) = place.glob("*.safetensors")
    whole = path.read_bytes()
    damaged(path, kind)
    assert path.read_bytes() != whole
    assert np.array_equal(made(sources).pictures, expected(sources))
    assert len(decodings) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_is_not_followed(place, sources, tmp_path, kind):
    made(sources)
    (path,) = place.glob("*.safetensors")
    path.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(b"keep")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        with pytest.raises(UsageError, match=r"cannot be written: Is a directory; CMBENCH_CACHE_DIR=FOLDER"):
            made(sources)
        return
    assert np.array_equal(made(sources).pictures, expected(sources))
    assert kind == "pipe" or (tmp_path / "elsewhere").read_bytes() == b"keep"


def test_large_files_are_checked_in_part(place, sources, monkeypatch, decodings):
    """Blocks of 32 bytes, of which some are looked at: the first and the last always."""
    monkeypatch.setattr(cache, "_BLOCK", 32)
    monkeypatch.setattr(cache, "_CHECKED", 320)
    made(sources)
    (path,) = place.glob("*.safetensors")
    content, size = path.read_bytes(), M * 6 * 8 * 3
    for at, is_noticed in ((0, True), (size - 1, True), (40, False)):
        path.write_bytes(
            content[: len(content) - size + at] + b"\7\7"[: size - at] + content[len(content) - size + at + 2 :]
        )
        before = len(decodings)
        made(sources)
        assert (len(decodings) > before) == is_noticed
        path.write_bytes(content)


@pytest.mark.parametrize("when", ["reserving", "writing"])
def test_a_full_disk_is_one_line_and_leaves_nothing(place, sources, monkeypatch, when):
    def full(*args):
        raise OSError(28, "No space left on device")

    if when == "reserving":
        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    else:
        monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(UsageError, match=r"4,320 bytes of decoded .* No space left on device; CMBENCH_CACHE") as caught:
        made(sources)
    assert "\n" not in str(caught.value)
    assert [path.suffix for path in place.iterdir()] == [".lock"]


def test_where_no_room_can_be_reserved_pictures_are_written_all_the_same(place, sources, monkeypatch):
    def unknown(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    assert np.array_equal(made(sources).pictures, expected(sources))


def test_a_cache_that_is_a_file_is_one_line(place, sources):
    place.parent.write_text("")
    with pytest.raises(
        UsageError, match=r"cache/pictures: 4,320 bytes of decoded pictures cannot be written: (File exists|Not a d)"
    ):
        made(sources)


def test_pictures_that_cannot_be_read_leave_nothing(place, sources):
    for i in range(7):
        sources[3 * i][1].write_bytes(b"torn")
    with pytest.raises(
        UsageError, match=r"^data.root: /there: 7 of 30 pictures cannot be read: 0.png: .*; and 3 more$"
    ):
        made(sources)
    assert list(place.glob("*.safetensors")) == list(place.glob(".*")) == []
    for _, path in sources:
        path.write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"at least 20 of 30 .*; and 16 more$"):
        made(sources)


def test_what_a_killed_writer_left_goes(place, sources):
    made(sources)
    (path,) = place.glob("*.safetensors")
    left, others = place / f".{path.name}.999999.tmp", place / ".other.safetensors.999999.tmp"
    left.write_bytes(b"x")
    others.write_bytes(b"x")
    path.unlink()
    made(sources)
    assert not left.exists()
    assert others.exists()


def test_a_lost_cache_does_no_harm_to_pictures_at_hand(place, sources):
    found = made(sources)
    shutil.rmtree(place)
    assert np.array_equal(found.pictures, expected(sources))
    assert np.array_equal(made(sources).pictures, expected(sources))


def test_two_that_want_the_same_decode_once(place, sources, decodings):
    begun, may_go_on, found = threading.Event(), threading.Event(), []

    class Slow(list):
        def __iter__(self):
            begun.set()
            assert may_go_on.wait(60)
            return super().__iter__()

    waits = []

    class Noted(progress.Progress):
        def counting(self, what, of):
            waits.append((what, of))
            return super().counting(what, of)

    def second():
        with progress.telling(Noted()):
            found.append(made(sources))

    threads = [threading.Thread(target=lambda: found.append(made(Slow(sources)))), threading.Thread(target=second)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    until(lambda: waits)
    may_go_on.set()
    for thread in threads:
        thread.join(60)
    assert [np.array_equal(each.pictures, expected(sources)) for each in found] == [True, True]
    assert len(decodings) == 1
    assert waits == [("waiting for a process that decodes the same pictures", M)]


def test_progress_is_told_of_every_picture(place, sources, monkeypatch):
    monkeypatch.setattr(workers, "_CHUNK", 7)
    told = []

    class Noted(progress.Progress):
        def counting(self, what, of):
            told.append((what, of))
            from contextlib import nullcontext

            return nullcontext(told.append)

    with progress.telling(Noted()):
        made(sources)
    assert told == [("decoding pictures", M), 7, 7, 7, 7, 2]


# Workers


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_workers_give_the_same_in_the_same_order(sources, monkeypatch, processes):
    monkeypatch.setattr(workers, "_CHUNK", 4)
    sources[5][1].write_bytes(b"torn")
    parts = list(workers.decoded(iter(sources), SHAPING, processes, alone=0))
    rows = np.concatenate([part.rows for part in parts])
    keep = [i for i in range(M) if i != 5]
    assert np.array_equal(rows[keep], expected([sources[i] for i in keep]))
    assert sum((part.marks for part in parts), start=type(parts[0].marks)()) == {"grey": 10}
    assert [line for part in parts for line in part.refused] == ["5.png: no picture, or a damaged one"]
    assert multiprocessing.active_children() == []


def test_content_reaches_workers_without_a_file(sources, monkeypatch):
    monkeypatch.setattr(workers, "_CHUNK", 4)
    of_bytes = ((name, path.read_bytes()) for name, path in sources)
    parts = list(workers.decoded(of_bytes, SHAPING, 2, alone=0))
    assert np.array_equal(np.concatenate([part.rows for part in parts]), expected(sources))


def test_sources_are_read_no_further_than_workers_need(sources, monkeypatch):
    monkeypatch.setattr(workers, "_CHUNK", 1)
    read = []

    def noted():
        for source in sources * 4:
            read.append(source)
            yield source

    parts = workers.decoded(noted(), SHAPING, 2, alone=0)
    next(parts)
    assert len(read) <= 2 + workers._AHEAD * 2
    parts.close()
    assert multiprocessing.active_children() == []


def test_few_pictures_start_no_worker(sources, monkeypatch):
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)
    assert len(list(workers.decoded(iter(sources), SHAPING, 2, alone=600))) == 1


def test_a_worker_that_is_killed_ends_in_one_line(sources, monkeypatch):
    monkeypatch.setattr(workers, "_CHUNK", 1)
    parts = workers.decoded(iter(sources * 10), SHAPING, 2, alone=0)
    next(parts)
    for child in multiprocessing.active_children():
        child.kill()
    with pytest.raises(CmbenchError, match="a process that decoded pictures has ended"):
        list(parts)


def test_a_script_without_a_guard_is_not_run_again(tmp_path, sources):
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom cmbench.pictures import workers\n"
        "from cmbench.pictures.shape import Shaping\nprint('begun')\nworkers._CHUNK = 4\n"
        f"sources = [(p.name, p) for p in sorted(Path({str(tmp_path)!r}).glob('*.png'))]\n"
        "print(sum(len(p.rows) for p in workers.decoded(sources, Shaping(6, 8), 2, alone=0)))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == f"begun\n{M}\n"
