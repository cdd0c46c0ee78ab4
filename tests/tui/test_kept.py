"""The view that is kept between sessions."""

import pytest

from cmbench.tui.kept import Charts, Kept, Runs, path


def test_what_is_kept_is_found_by_the_next_session(tmp_path):
    file = tmp_path / "state" / "cmbench" / "view.json"
    kept = Kept(file)
    kept.keep_charts(axis="wall", smoothing=0.08, alone={"loss": 0.0}, pattern="^sw", pins=("loss", "lr"))
    kept.keep_runs(sorted_by="best.sw_1step", is_reversed=True, metric="best.sw_1step", filter="seed:3")
    again = Kept(file)
    assert again.charts == Charts(axis="wall", smoothing=0.08, alone={"loss": 0.0}, pattern="^sw", pins=("loss", "lr"))
    assert again.runs == Runs(sorted_by="best.sw_1step", is_reversed=True, metric="best.sw_1step", filter="seed:3")
    assert [each.name for each in file.parent.iterdir()] == ["view.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"charts": 3, "runs": []}',
        b'{"charts": {"axis": "sideways"}, "runs": {"filter": "loss<much"}}',
        b'{"charts": {"smoothing": 7.0}, "runs": {"other": 1}}',
        b'{"charts": {"pattern": "("}}',
        b'{"charts": {"alone": {"loss": 3.0}, "pins": [1]}}',
        b"{" * 70_000,
    ],
)
def test_a_damaged_file_is_as_none(tmp_path, content):
    file = tmp_path / "view.json"
    file.write_bytes(content)
    assert (Kept(file).charts, Kept(file).runs) == (Charts(), Runs())


def test_one_damaged_part_leaves_the_other(tmp_path):
    file = tmp_path / "view.json"
    file.write_bytes(b'{"charts": {"axis": 3}, "runs": {"sorted_by": "loss"}}')
    assert Kept(file).charts == Charts()
    assert Kept(file).runs == Runs(sorted_by="loss")


def test_a_view_that_cannot_be_kept_is_no_error(tmp_path):
    (tmp_path / "cmbench").write_text("a file in the way")
    kept = Kept(tmp_path / "cmbench" / "view.json")
    kept.keep_charts(axis="time")
    assert kept.charts.axis == "time"


def test_where_it_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert path() == tmp_path / "cmbench" / "view.json"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path() == tmp_path / ".local" / "state" / "cmbench" / "view.json"
