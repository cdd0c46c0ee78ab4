"""What a perfect sampler shows, and that no table calls a figure better: compare, show, ablate."""

import json

import pytest
from compared_runs import compared_run

from cmbench.measures import Floor
from cmbench.rundir import floors

SEED = {"seed = 3": "seed = 4"}
LEGEND = "≈ within the floor: not to be told from a perfect sampler, nor such figures from each other"


def meta(value=0.042, spread=0.012):
    return floors.written({"sw": Floor(value, spread, 20), "recall": Floor(0.9, 0.02, 20)})


@pytest.fixture
def runs(home):
    """One whose best lies below the floor, one above it, one within the band and further from the floor's mean."""
    for name, values in (("below", [0.2, 0.033]), ("above", [0.2, 0.0541]), ("within", [0.2, 0.0539])):
        recalls = [0.5, 0.99 if name == "below" else 0.7]
        compared_run(home / "runs", name, {"sw_1step": values, "recall_1step": recalls}, meta=meta(), sw=values[-1])
    return home / "runs"


def test_a_comparison_marks_what_is_within_the_floor_and_shows_it(cmbench, runs):
    text = cmbench("compare", "below", "above", "within", "--plain").out
    table = text[text.index("\nsw_1step") :].splitlines()[1:]
    assert table[0] == f"sw_1step  ({LEGEND})"
    below, above, within, floor = (line.split() for line in table[2:6])
    assert below[1:6] == ["0.033", "≈", "0.033", "≈", "2"]
    assert above[1:4] == ["0.0541", "0.0541", "2"]
    assert within[1:6] == ["0.0539", "≈", "0.0539", "≈", "2"]
    assert floor == ["floor", "0.042", "±", "0.012"]
    recalls = text[text.index("\nrecall_1step") :].splitlines()[3:5]
    assert ["≈" in line for line in recalls] == [True, False]


def test_a_comparison_as_data_says_so_too(cmbench, runs):
    found = json.loads(cmbench("compare", "below", "above", "within", "--json").out)["metrics"]["sw_1step"]
    assert found["floors"]["a"] == {"value": 0.042, "spread": 0.012, "draws": 20}
    assert {letter: own["best_is_within_floor"] for letter, own in found["runs"].items()} == {
        "a": True,
        "b": False,
        "c": True,
    }
    lines = cmbench("compare", "below", "above", "--csv=-").out.splitlines()
    assert "metric,sw_1step,floor,a,below,0.042" in lines
    assert "metric,sw_1step,floor's deviation,a,below,0.012" in lines


def test_no_level_that_is_to_be_reached_lies_beyond_the_floor(cmbench, runs):
    """The best that both have is .0539; who came below the edge of .054 first is what can be told."""
    (goal,) = [
        goal
        for goal in json.loads(cmbench("compare", "below", "within", "--json").out)["goals"]
        if goal["metric"] == "sw_1step"
    ]
    assert goal["level"] == pytest.approx(0.054)
    assert goal["is_floor"] is True
    assert "until sw_1step <= 0.054, the edge of its floor" in cmbench("compare", "below", "within", "--plain").out
    other = cmbench("compare", "below", "above", "--plain").out
    assert "until sw_1step <= 0.0541\n" in other


def test_seeds_within_the_floor_have_no_difference(cmbench, home):
    for name, shift, other in (("a1", 0.0, {}), ("a2", 0.002, SEED)):
        compared_run(home / "runs", name, {"sw_1step": [0.2, 0.033 + shift]}, recipe=other, meta=meta())
    wide = {"width = 16": "width = 32"}
    for name, shift, other in (("b1", 0.0, wide), ("b2", 0.002, {**wide, **SEED})):
        compared_run(home / "runs", name, {"sw_1step": [0.2, 0.041 + shift]}, recipe=other, meta=meta())
    (line,) = [
        line
        for line in cmbench("compare", "a1", "a2", "b1", "b2", "--plain").out.splitlines()
        if line.startswith("sw_1step ") and "±" in line
    ]
    assert line.split()[1:] == [
        "0.034",
        "±",
        "0.0014",
        "≈",
        "0.042",
        "±",
        "0.0014",
        "≈",
        *["within", "the", "floor", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("meta", "shown"),
    [
        (meta(), "0.042 ± 0.012"),
        ({"floor": {"sw": 0.042}}, "0.042 (one draw)"),
        ({"floor": {"sw": "x"}, "floor_spread": 5, "floor_draws": []}, "-"),
        ({}, "-"),
    ],
)
def test_show_has_the_floor_of_new_and_old_runs(cmbench, home, meta, shown):
    compared_run(home / "runs", "run", {"sw_1step": [0.2, 0.033]}, meta=meta, last={"sw_1step": 0.033})
    text = cmbench("show", "run").out
    (line,) = [line for line in text.splitlines() if line.startswith("sw_1step")]
    assert line.rstrip().endswith(shown)
    assert (LEGEND in text) == (shown != "-")
    assert ("0.033 ≈" in line) == (shown != "-")


def test_the_page_draws_the_band(cmbench, runs, tmp_path):
    pytest.importorskip("matplotlib")
    with_floor = tmp_path / "a.html"
    assert cmbench("compare", "below", "above", "--html", with_floor).code == 0
    assert LEGEND in with_floor.read_text()
    assert "0.042 ± 0.012" in with_floor.read_text()


def test_a_list_of_runs_marks_the_best_that_its_floor_holds(cmbench, home):
    for name, extra in (("held", {"is_within_floor": True}), ("not", {})):
        compared_run(
            home / "runs", name, {"sw_1step": [0.033]}, best={"sw_1step": {"value": 0.033, "step": 1, **extra}}
        )
    text = cmbench("ls").out
    assert {line.split()[0]: "0.033 ≈" in line for line in text.splitlines()[1:3]} == {"held": True, "not": False}
    assert text.splitlines()[-1] == LEGEND


def test_a_run_says_so_of_its_own_best(trained):
    now = json.loads(trained.status.read_text())
    found = floors.of_meta(json.loads(trained.meta.read_text()))
    assert found["sw"].draws == 20
    for key, best in now["best"].items():
        assert best.get("is_within_floor", False) == floors.is_within(found, key, best["value"])
