"""Files that the user names: replaced whole where they are files, written into where they are pipes, else refused."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import until

from cmbench.cli import _outputs
from cmbench.errors import UsageError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str) -> None:
    _outputs.check(Path(name), "--out")
    _outputs.write(Path(name), b"content", "--out")


def test_a_file_is_replaced_whole_and_a_link_leads_to_it():
    Path("there").mkdir()
    Path("there/old").write_bytes(b"old")
    Path("there/old").chmod(0o640)
    Path("a").symlink_to("b")
    Path("b").symlink_to("there/old")
    with Path("there/old").open("rb") as reader:
        write("a")
        assert reader.read() == b"old"
    assert (Path("a").readlink(), Path("b").readlink()) == (Path("b"), Path("there/old"))
    assert Path("there/old").read_bytes() == b"content"
    Path("c").symlink_to("there/new")
    write("c")
    assert (Path("there/new").read_bytes(), Path("c").is_symlink()) == (b"content", True)
    _outputs.write(Path("x/y/z"), b"content", "--out", folders=True)
    assert Path("x/y/z").read_bytes() == b"content"


def test_folders_that_were_made_for_a_file_that_cannot_be_written_are_removed():
    Path("mine").mkdir()
    with pytest.raises(UsageError, match="File name too long"):
        _outputs.write(Path("mine/a/b") / ("x" * 300), b"content", "--out", folders=True)
    assert not any(Path("mine").iterdir())


@pytest.mark.parametrize(("name", "reason"), [("file/x", "Not a directory"), ("mine", "Is a directory")])
def test_what_cannot_be_written_with_its_folders_is_known_before(name, reason):
    Path("mine").mkdir()
    Path("file").write_bytes(b"")
    _outputs.check(Path("mine/a/b/c"), "--out", folders=True)
    with pytest.raises(UsageError, match=f"--out {name}: cannot be written: {reason}"):
        _outputs.check(Path(name), "--out", folders=True)
    assert not any(Path("mine").iterdir())


def test_a_pipe_is_written_into():
    os.mkfifo("pipe")
    heard = []
    reader = threading.Thread(target=lambda: heard.append(Path("pipe").read_bytes()), daemon=True)
    reader.start()

    def written() -> bool:
        try:
            write("pipe")
        except UsageError as error:  # the reader is not there yet
            return "No such device or address" not in str(error)
        return True

    until(written)
    reader.join()
    assert heard == [b"content"]
    assert stat.S_ISFIFO(Path("pipe").lstat().st_mode)


def test_a_device_stays_what_it_is():
    Path("null").symlink_to("/dev/null")
    write("null")
    assert Path("null").readlink() == Path("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_what_is_printed_to_goes_on_behind_what_was_printed():
    code = "from pathlib import Path; from cmbench.cli import _outputs; print('before', flush=True); "
    code += "_outputs.write(Path('/dev/stdout'), b'content ', '--out'); print('after')"
    with Path("out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert Path("out").read_text() == "before\ncontent after\n"


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "No such device or address"),
        (a_socket, "neither a file nor a pipe"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("no/such"), ""),
        (lambda path: path.symlink_to(os.ttyname(os.openpty()[1])), "a terminal, allowed: a file, a pipe or"),
    ],
    ids=["a folder", "a pipe that nobody reads", "a socket", "a loop", "a link into no folder", "a terminal"],
)
def test_anything_else_is_refused_and_stays(make, reason):
    make(Path("x"))
    before = Path("x").lstat()
    with pytest.raises(UsageError, match=f"--out x: cannot be written: {reason}"):
        write("x")
    assert Path("x").lstat() == before
    assert list(Path().iterdir()) == [Path("x")]
