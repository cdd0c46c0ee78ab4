"""Words that say which runs are meant."""

import pytest
from fake_runs import fake_run

from cmbench.errors import UsageError
from cmbench.rundir.filter import parse
from cmbench.rundir.overview import Overview


@pytest.fixture(scope="module")
def glances(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    fake_run(folder, "ct_ring-a", state="running", loss=0.1, sw=0.05, step=1000, tags=["lr", "Base"])
    fake_run(folder, "ct_edm-b", state="stopped", loss=0.2, sw=None, step=999, note="Warm-up too [short]")
    fake_run(folder, "dm-c", loss=None, sw=0.01, step=5, tags=["lr2"], note="12:30 a<b")
    return Overview(folder).read()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", "abc"),
        ("  ", "abc"),
        ("ct", "ab"),
        ("CT_RING", "a"),
        ("[short]", "b"),
        ("lr", "ac"),
        ("tag:lr", "a"),
        ("tag:base", "a"),
        ("state:running", "a"),
        ("state:s", "b"),
        ("state:finished", "c"),
        ("loss<0.2", "a"),
        ("loss<=0.2", "ab"),
        ("loss>.1", "b"),
        ("loss<inf", "ab"),
        ("loss<nan", ""),
        ("sw<0.05", "c"),
        ("quality<0.05", "c"),
        ("sw=0.05", "a"),
        ("sw>=0", "ac"),
        ("step>=1000", "a"),
        ("step=999", "b"),
        ("ct step<1e3", "b"),
        ("ct lr state:stopped", ""),
    ],
)
def test_every_word_holds_of_what_is_meant(glances, text, meant):
    holds = parse(text)
    assert sorted(glance.name[-1] for glance in glances if holds(glance)) == list(meant)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo<3", r"foo<3: found 'foo', allowed: loss, sw, quality, step"),
        ("ct loss<abc", r"loss<abc: found 'abc', allowed: a number"),
        ("loss<", r"loss<: found '', allowed: a number"),
        ("step==3", "found '=3', allowed: a number"),
        ("colour:red", "found 'colour:red', allowed: state:WORD, tag:WORD"),
        ("tag:", "found 'tag:', allowed"),
    ],
)
def test_a_word_that_says_nothing_is_refused(text, says):
    with pytest.raises(UsageError, match=says):
        parse(text)
