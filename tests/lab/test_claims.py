"""Each claim holds, and each fails when an equation it is about is broken."""

import importlib
import re
import subprocess
import sys

import pytest
from mutants import MUTANTS, mutated

from cmbench import lab as claims
from cmbench.errors import UsageError
from cmbench.lab import Claim

NAMES = [claim.name for claim in claims.all_claims()]
SMALL = {
    "adaptive_weight": {"samples": 5_000, "draws": 2_500},
    "cd_against_ct": {"nodes": 48},
    "discretisation_error": {"grids": (33, 65, 129)},
    "ema_teacher": {"chains": 2_000},
    "multistep_sampling": {"samples": 20_000},
    "unbiased_score": {"draws": 10_000},
    "zero_tangent": {"batches": 4},
}


def measure(name):
    return importlib.import_module(f"cmbench.lab.{name}").measure(**SMALL.get(name, {}))


@pytest.mark.parametrize("name", NAMES)
def test_the_claim_holds(name):
    finding = measure(name)
    assert [m for m in finding.measures if not m.holds] == []
    assert finding.verdict == ("holds in part" if finding.in_part else "holds")
    assert finding.note or not finding.in_part
    assert all(len(curve.x) == len(curve.y) > 1 for curve in finding.chart.curves)
    assert len(finding.chart.curves) <= 6


@pytest.mark.parametrize(
    ("name", "function", "old", "new"), MUTANTS, ids=[f"{m[0]}-{m[1].__qualname__}-{m[3].strip()}" for m in MUTANTS]
)
def test_a_broken_equation_is_noticed(monkeypatch, name, function, old, new):
    monkeypatch.setattr(function, "__code__", mutated(function, old, new))
    assert measure(name).verdict == "fails"


def test_every_claim_has_mutants():
    assert {mutant[0] for mutant in MUTANTS} == set(NAMES)


def test_every_claim_names_its_paper_and_the_oldest_come_first():
    place = re.compile(r"[A-Z].* (20\d\d), (section|theorem|lemma|eq\.|algorithm|definition) \d")
    years = [place.match(claim.source)[1] for claim in claims.all_claims()]
    assert years == sorted(years)
    assert all(claim.statement and claim.setting for claim in claims.all_claims())


def test_texts_are_read_without_torch():
    script = "import sys; from cmbench import lab; lab.all_claims(); print({'torch', 'scipy'} & {*sys.modules})"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


@pytest.mark.long
def test_forward_mode_warns_of_nothing():
    script = "from cmbench.lab import double_normalisation as d, fourier_scale as f; d.measure(); f.measure()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_names_are_chosen_once_in_order():
    twice = ["ema_teacher", "zero_tangent", "ema_teacher"]
    assert [c.name for c in claims.chosen(twice)] == ["zero_tangent", "ema_teacher"]
    assert [c.name for c in claims.chosen(["all"])] == NAMES
    assert isinstance(claims.chosen(["ema_teacher"])[0], Claim)
    with pytest.raises(UsageError, match="did you mean 'zero_tangent'"):
        claims.chosen(["zero_tangnet"])
