import json
import sys

import pytest

from cmbench import lab as claims
from cmbench.cli import _findings
from cmbench.lab import Chart, Curve, Finding, Measure


def finding(measured=1.0, **more):
    curves = [Curve("a | b", [1, 10, 100], [1e-3, 0.0, 10.0]), Curve("c", [1, 100], [2.0, 3.0], joined=False)]
    return Finding([Measure("x_t", measured, 1, 0.5)], Chart("title", "steps", "error", curves, True, True), **more)


@pytest.fixture
def measured(monkeypatch):
    """Let every claim come to a finding; return a function that sets it."""

    def come_to(found):
        monkeypatch.setattr(claims, "measure", lambda claim: found)

    come_to(finding(note="why", in_part=True))
    return come_to


def test_the_list(cmbench):
    done = cmbench("lab")
    assert done.code == 0
    assert all(claim.name in done.out for claim in claims.all_claims())
    listed = json.loads(cmbench("lab", "--json").out)["claims"]
    assert {"name", "source", "statement", "setting"} == set(listed[0])


def test_one_claim_for_real(cmbench):
    done = cmbench("lab", "time_transform")
    assert done.code == 0
    assert "time_transform (Lu & Song 2024, section 4.1): holds\n" in done.out
    assert "40.001" in done.out
    assert "1 holds; " in done.out


def test_all_in_part(cmbench, measured):
    done = cmbench("lab", "all")
    assert done.code == 0
    assert done.out.count("why") == len(claims.all_claims())
    assert f"{len(claims.all_claims())} holds in part; " in done.out


def test_a_failure_is_code_1(cmbench, measured):
    measured(finding(9.0))
    done = cmbench("lab", "ema_teacher")
    assert done.code == 1
    assert "\nfails" in done.out
    assert "ema_teacher (Song et al. 2023, section 4): fails" in done.out


def test_json(cmbench, measured):
    found = json.loads(cmbench("lab", "ema_teacher", "--json").out)
    assert found["counts"] == {"holds": 0, "holds in part": 1, "fails": 0}
    (claim,) = found["claims"]
    assert claim["verdict"] == "holds in part"
    assert claim["measures"][0] | {"holds": True} == claim["measures"][0]
    assert claim["chart"]["curves"][0]["y"] == [1e-3, 0.0, 10.0]


def test_a_page(cmbench, measured, home):
    assert cmbench("lab", "ema_teacher", "time_transform", "--markdown", "lab.md").code == 0
    page = (home / "lab.md").read_text()
    assert "| [`ema_teacher`](#ema_teacher) | Song et al. 2023, section 4 | holds in part |" in page
    assert "| x\\_t | 1 | 1 ± 0.5 |" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ema_teachr"], "did you mean 'ema_teacher'"),
        (["all", "nothing"], "claim: found 'nothing'"),
        (["--out", "x"], "--out: found one, allowed only with claims"),
        (["--markdown", "x"], "--markdown: found one"),
    ],
)
def test_mistakes_are_one_line(cmbench, measured, arguments, message):
    done = cmbench("lab", *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--markdown", "no/such/x.md"], ["--markdown", "."], ["--out", "file/pictures"]])
def test_what_cannot_be_written_is_said_before_anything_is_measured(cmbench, monkeypatch, home, arguments):
    if arguments[0] == "--out":
        pytest.importorskip("matplotlib")
    (home / "file").touch()
    monkeypatch.setattr(claims, "measure", lambda claim: pytest.fail("measured"))
    done = cmbench("lab", "ema_teacher", *arguments)
    assert done.code == 2
    assert f"{' '.join(arguments)}: cannot be written" in done.err
    assert done.err.count("\n") == 1


def test_png_without_matplotlib(cmbench, measured, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = cmbench("lab", "ema_teacher", "--out", "pictures")
    assert done.code == 2
    assert done.err == "cmbench: --out: needs the matplotlib package: pip install 'cmbench[plots]'\n"


def test_png(cmbench, measured, home):
    pytest.importorskip("matplotlib")
    from PIL import Image

    assert cmbench("lab", "ema_teacher", "--out", "pictures").code == 0
    with Image.open(home / "pictures" / "ema_teacher.png") as picture:
        assert picture.size == (704, 462)


def test_charts_survive_what_a_logarithm_does_not():
    text = _findings._chart(finding().chart)
    assert "o a | b   x c" in text
    assert "0.001" in text
