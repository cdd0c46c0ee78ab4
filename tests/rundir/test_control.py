import pytest

from cmbench.rundir import control
from cmbench.rundir.layout import RunDir


@pytest.fixture
def run(tmp_path):
    (tmp_path / "control").mkdir()
    return RunDir(tmp_path)


def test_requests_are_taken_once_in_their_order(run):
    sent = [control.request(run, action) for action in ("stop", "snapshot", "stop", "evaluate")]
    assert len(set(sent)) == 4
    taken = control.take(run)
    assert [request["id"] for request in taken] == sent
    assert [request["action"] for request in taken] == ["stop", "snapshot", "stop", "evaluate"]
    assert control.take(run) == []
    assert list(run.control.iterdir()) == []


def test_a_request_that_is_still_being_written_is_not_taken(run):
    (run.control / ".1.json.77.tmp").write_bytes(b'{"action":')
    assert control.take(run) == []
    assert len(list(run.control.iterdir())) == 1


def test_a_broken_request_is_removed(run):
    (run.control / "1-ab.json").write_bytes(b"{")
    sent = control.request(run, "stop")
    assert [request["id"] for request in control.take(run)] == [sent]
    assert list(run.control.iterdir()) == []


def test_without_a_folder_there_is_none(tmp_path):
    assert control.take(RunDir(tmp_path / "nowhere")) == []
