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


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"null", b"\xff\x00"])
def test_of_a_broken_request_the_name_is_left(run, content):
    (run.control / "1700000000000000000-00ab.json").write_bytes(content)
    sent = control.request(run, "stop")
    assert control.take(run) == [{"id": "1700000000000000000-00ab"}, {"id": sent, "action": "stop"}]
    assert list(run.control.iterdir()) == []


def test_a_request_goes_by_the_name_of_its_file(run):
    (run.control / "1700000000000000000-00ab.json").write_bytes(b'{"id": {"deep": []}, "action": "stop"}')
    assert control.take(run) == [{"id": "1700000000000000000-00ab", "action": "stop"}]


def test_a_folder_is_no_request(run):
    (run.control / "1.json").mkdir()
    assert control.take(run) == []


def test_details_come_along(run):
    sent = control.request(run, "set", settings={"optimizer.lr": 1e-4, "ema.lengths": (0.9, 0.5)})
    settings = {"optimizer.lr": 1e-4, "ema.lengths": [0.9, 0.5]}
    assert control.take(run) == [{"id": sent, "action": "set", "settings": settings}]


def test_without_a_folder_there_is_none(tmp_path):
    assert control.take(RunDir(tmp_path / "nowhere")) == []
