"""`cmbench ema`: what it says, what finds its averages, what it refuses."""

import json

import pytest

from cmbench import consent
from cmbench.engine import runner
from cmbench.rundir.layout import RunDir

QUIET = ["evaluate.every=0", "snapshot.every=0", "profile.every=0"]


@pytest.fixture
def powerful(home, put_back) -> RunDir:
    overrides = ["ema={profile='power', lengths=[0.05, 0.1], keep_every=2}", *QUIET]
    made = runner.create(consent.named(home / "tiny.toml", overrides), None, [])
    list(made.records())
    return made.run


def test_it_tells_what_is_kept_and_what_follows_from_it(cmbench, powerful):
    told = json.loads(cmbench("ema", "--json").out)
    assert (told["kept"], told["steps"], told["reconstructed"]) == (["0.05", "0.1"], [2, 4, 6, 8, 10], [])
    low, high = told["reachable"]
    assert told["bytes"] == sum(
        path.stat().st_size for step in told["steps"] for path in powerful.kept.checkpoint(step).glob("ema_*")
    )
    out = cmbench("ema", powerful.name).out
    assert f"lengths from {low:g} to {high:g} can be reconstructed; reconstructed so far: none" in out
    assert cmbench("ema", "--lengths", f"{low},{high}").code == 0
    outside = cmbench("ema", "--lengths", f"{low / 1.2}")
    assert outside.code == 2
    assert f"allowed: {low:g} to {high:g}, to which the averages of 5 steps reach" in outside.err


def test_sample_and_eval_find_what_it_made(cmbench, powerful):
    outcome = cmbench("ema", "--lengths", "0.075,0.05")
    assert outcome.code == 0, outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines()[2:4]] == ["0.075", "0.05"]
    assert outcome.out.splitlines()[-1].endswith(f"sample {powerful.name} --checkpoint 12 --ema 0.075")
    assert cmbench("sample", "--ema", "0.075", "-n", "4").code == 0
    asked = ["--measures", "sliced_wasserstein", "--n", "16", "--repeats", "2", "--steps", "1", "--json"]
    values = []
    for _ in range(2):
        (about,) = json.loads(cmbench("eval", "--ema", "0.075", *asked).out)["runs"]
        values.append(about["figures"][0]["value"])
    assert about["ema"] == "0.075"
    assert about["figures"][0]["cached"]
    assert values[0] == values[1]
    assert "reconstructed so far: 0.075" in cmbench("ema").out


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--lengths", "0"], "--lengths: found '0', allowed: up to 100 comma-separated numbers between 0 and 0.28"),
        (["--lengths", "0.3"], "--lengths: found '0.3'"),
        (["--lengths", "0.05,x"], "--lengths: found '0.05,x'"),
        (["--lengths", "nan"], "--lengths: found 'nan'"),
        (["--lengths", "0.05,"], "--lengths: found '0.05,'"),
        (["--lengths", "0.075", "--kept", "0.2"], "--kept: found 0.2, allowed: 0.05, 0.1"),
        (["--lengths", "0.0001"], "--lengths: found 0.0001, allowed: 0.0"),
        (["--checkpoint", "3"], "no checkpoint at step 3"),
    ],
)
def test_bad_input_is_one_line(cmbench, powerful, given, says):
    outcome = cmbench("ema", *given)
    assert outcome.code in (2, 4)
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (powerful.averages / "reconstructed").exists()


def test_a_run_of_constant_decays_says_how_training_keeps_averages(cmbench, trained):
    outcome = cmbench("ema", "--lengths", "0.05")
    assert outcome.code == 2
    assert "ema.profile: found 'constant', allowed: 'power' (training keeps averages with" in outcome.err


def test_a_run_that_kept_nothing_says_so(cmbench, home, put_back):
    overrides = ["ema={profile='power', lengths=[0.05, 0.1]}", *QUIET]
    list(runner.create(consent.named(home / "tiny.toml", overrides), None, []).records())
    outcome = cmbench("ema", "--lengths", "0.05")
    assert outcome.code == 4
    assert "no averages kept before checkpoint 12 (training keeps averages with ema.profile=power" in outcome.err


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{keep_every=2}", "ema.keep_every: found 2, which does nothing where ema.profile = 'constant'"),
        ("{profile='half_life', keep_every=2}", "ema.keep_every: found 2, which does nothing"),
        ("{profile='power', lengths=[0.1], ramp_up=0.05}", "ema.ramp_up: found 0.05, which does nothing where"),
        ("{profile='power', lengths=[0.1], keep_every=2}", "ema.keep_every: found 2 with lengths = [0.1], allowed"),
        ("{profile='power', lengths=[500]}", "ema.lengths: found [500.0], allowed: different numbers in (0, 0.28)"),
        ("{profile='half_life', lengths=[0.0]}", "ema.lengths: found [0.0], allowed: different numbers in (0, 1e+16)"),
    ],
)
def test_keys_that_make_no_sense_together_are_refused(cmbench, home, table, says):
    outcome = cmbench("run", "tiny.toml", "--set", f"ema={table}")
    assert outcome.code == 2
    assert says in outcome.err
    assert len(outcome.err.splitlines()) == 1
