"""Notes and tags stay as they were written, whatever they hold and whatever became of their file."""

import pytest

from cmbench.errors import UsageError
from cmbench.rundir.annotations import Annotations, annotate, clean_tags, read
from cmbench.rundir.layout import RunDir

HOSTILE = "\x1b[31mred [bold]b[/] \u202e größe"


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path)


def test_a_run_begins_without(run):
    assert read(run) == Annotations("", ())


def test_note_and_tags_are_replaced_each_by_itself(run):
    assert annotate(run, note=f" {HOSTILE}\n") == Annotations(HOSTILE, ())
    assert annotate(run, tags=["lr", "a b"]) == Annotations(HOSTILE, ("lr", "a-b"))
    assert annotate(run, note="") == Annotations("", ("lr", "a-b"))
    assert read(run) == Annotations("", ("lr", "a-b"))
    assert [path.name for path in run.path.iterdir()] == ["annotations.json"]


def test_tags_are_single_words_each_once(run):
    assert clean_tags([" b ", "a", "", "b", " ", "x\ty"]) == ("b", "a", "x-y")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", Annotations()),
        (b'{"note": ', Annotations()),
        (b"[1]", Annotations()),
        (b'{"note": 3, "tags": {"a": 1}}', Annotations()),
        (b'{"note": "n", "tags": "ab"}', Annotations("n", ())),
        (b'{"note": null, "tags": ["a", 3, null, "a"]}', Annotations("", ("a",))),
    ],
)
def test_damage_is_nothing(run, content, expected):
    run.annotations.write_bytes(content)
    assert read(run) == expected


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"annotations\.json: cannot be written"):
        annotate(RunDir(tmp_path / "gone"), note="x")
