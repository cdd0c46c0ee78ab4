"""`make growth`: what is measured, what is kept of it, and that charts and page are those of its figures."""

import importlib.metadata
import json
import re
import sys
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import growth  # noqa: E402
import growth_charts  # noqa: E402
import growth_page  # noqa: E402

IMAGES = ROOT / "docs" / "images"
PAGE = growth.PAGE.read_text(encoding="utf-8")
MORE = 1e-9


@pytest.fixture(scope="module")
def kept() -> dict:
    return json.loads(growth.FIGURES.read_text(encoding="utf-8"))


def points(*rows: dict) -> list[dict]:
    """Return points of which what matters is given, and all else is of no account."""
    shares = {"diagnostics": 0.02, "recording": 0.01, "averages": 0.01}
    rest = {"seconds": 1.0, "flop": 1.0, "to_bare": 1.5, "of_product": 0.5, "peak": 1, "shares": shares}
    return [{**rest, **row} for row in rows]


def found(**sweeps: list[dict]) -> dict:
    """Return figures of the MLP alone."""
    swept = [{"what": what, "network": "mlp", "points": rows} for what, rows in sweeps.items()]
    ranks = [{"ranks": 2, "batch_size": 32, "efficiency": 0.75, "cores": 0.9}]
    return {"date": "2026-11-05", "torch": "2.14.1+cpu", "rounds": 3, "sweeps": swept, "ranks": ranks}


@pytest.mark.trains
def test_a_sweep_tells_each_point_in_ratios_to_the_first(home, put_back):
    sweep = growth.Sweep("batch", "mlp", home / "tiny.toml", ("profile.every=2",), (8, 16, 64))
    told = growth.swept(sweep, 2)
    assert json.loads(json.dumps(told)) == told
    assert (told["recipe"], told["set"], told["cores"] > 0) == ("tiny", ["profile.every=2"], True)
    first, second, third = told["points"]
    assert [row["value"] for row in (first, second, third)] == [8, 16, 64]
    assert (first["seconds"], first["flop"]) == (1, 1)
    assert (second["flop"], third["flop"]) == (2, 8)
    assert {"data", "student", "backward", "averages", "diagnostics", "recording"} <= {*first["shares"]}
    assert third["peak"] > first["peak"]


@pytest.mark.trains
@pytest.mark.parametrize("what", growth.OVERRIDES)
def test_every_sweep_changes_what_it_says(home, put_back, what):
    """And the recipes of all points of `make growth` are sound."""
    from cmbench import consent

    (values,) = {sweep.values for sweep in growth.SWEEPS if sweep.what == what and sweep.network == "unet"}
    for sweep in growth.SWEEPS:
        if sweep.what == what:
            for value in (sweep.values[0], sweep.values[-1]):
                overrides = (*sweep.base, *growth.OVERRIDES[what](value))
                recipe = consent.named(sweep.recipe, overrides).recipe
                tables = {
                    "batch": [recipe.train.batch_size],
                    "width": [recipe.network["width"]],
                    "size": [recipe.data.get("size")],
                    "rows": [recipe.log.every, recipe.profile.every],
                    "bins": [recipe.profile.bins],
                    "averages": [len(set(recipe.ema.lengths))],
                }
                assert {*tables[what]} == {value}
    assert list(values) == sorted(values)


@pytest.mark.trains
@pytest.mark.long
def test_two_ranks_are_told_beside_one(home, put_back):
    told = growth.on_ranks(32, 2)
    assert (told["ranks"], told["batch_size"]) == (2, 32)
    assert told["efficiency"] > 0
    assert told["cores"] > 0


def test_the_circle_is_at_the_first_batch_near_the_best_rate():
    rows = points(
        {"value": 4}, {"value": 16, "seconds": 2.0}, {"value": 64, "seconds": 7.5}, {"value": 128, "seconds": 16.0}
    )
    assert growth_page.rates(rows) == [1.0, 2.0, 64 / 4 / 7.5, 2.0]
    assert growth_page.best_from(rows) == 16


def test_the_table_tells_the_figures():
    batches = points({"value": 4, "to_bare": 2.0}, {"value": 4096, "seconds": 256.0, "to_bare": 1.25})
    widths = points(
        {"value": 8}, {"value": 16, "seconds": 2.0, "flop": 3.0}, {"value": 32, "seconds": 5.0, "flop": 12.0}
    )
    few, many = ({"shares": {"averages": share}} for share in (0.01, 0.05))
    averages = points({"value": 1, **few}, {"value": 5, "seconds": 1.2, **many})
    block = growth_page.block(found(batch=batches, width=widths, rows=points({"value": 1}), averages=averages))
    assert "on 5 November 2026 with torch 2.14.1: medians of 3 rounds" in block
    assert "| batch sizes | 4 to 4,096 | | |" in re.sub(" +", " ", block)
    assert "| best rate, to that of the smallest batch | 4.0 times |" in block
    assert "| smallest batch with 90 % of the best rate | 4,096 |" in block
    assert "| a step to a bare pass, smallest batch to largest | 2.00 to 1.25 |" in block
    assert "| twice the width: time, operations | 16 to 32: 2.5, 4.0 times |" in block
    assert "| diagnostics and recording, rows at each step | 3.0 % |" in block
    assert "| a further average, to a step with one | 1.25 % |" in block
    assert "| 2 | 32 | 1.50 times | 75 % | 90 % of the time |" in block


def test_a_page_keeps_all_but_what_is_between_the_marks(tmp_path):
    page, begin, end = tmp_path / "page.md", *growth_page.MARKS
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):
        growth_page.write(page, found())
        assert page.read_text() == f"before\n{begin}\n{growth_page.block(found())}{end}\nafter\n"


@pytest.mark.parametrize("marks", [[], [0], [1], [1, 0], [0, 1, 1], [0, 0, 1]])
def test_a_page_without_its_marks_stays_as_it_is(tmp_path, marks):
    page = tmp_path / "page.md"
    page.write_text(before := "before\n" + "".join(f"{growth_page.MARKS[i]}\nbetween\n" for i in marks) + "after\n")
    with pytest.raises(SystemExit, match=r"page\.md: found other lines than one"):
        growth_page.write(page, found())
    assert page.read_text() == before


def test_the_page_has_the_figures_of_the_file(kept):
    begin, end = growth_page.MARKS
    assert PAGE.count(begin) == PAGE.count(end) == 1
    assert PAGE.partition(f"{begin}\n")[2].partition(end)[0] == growth_page.block(kept)


def test_all_sweeps_are_in_the_file(kept):
    told = [(sweep["what"], sweep["network"], [row["value"] for row in sweep["points"]]) for sweep in kept["sweeps"]]
    assert told == [(sweep.what, sweep.network, list(sweep.values)) for sweep in growth.SWEEPS]
    assert [row["batch_size"] for row in kept["ranks"]] == list(growth.ON_RANKS)
    assert kept["schema"] == growth.SCHEMA


def test_curves_are_the_figures_of_the_file(kept):
    charts = growth_charts.figures(kept)
    places = {"batch": ("growth_size", 0), "width": ("growth_size", 1), "size": ("growth_size", 2)}
    places |= {"rows": ("growth_extras", 0), "bins": ("growth_extras", 1), "averages": ("growth_extras", 2)}
    for sweep in kept["sweeps"]:
        chart, place = places[sweep["what"]]
        lines = {line.get_gid(): line for line in charts[chart].axes[place].lines}
        first, rows = sweep["points"][0]["value"], sweep["points"]
        of = {
            "batch": lambda row, first=first: row["value"] / first / row["seconds"],
            "width": lambda row: row["seconds"],
            "size": lambda row: row["seconds"],
            "averages": lambda row: 100 * row["shares"]["averages"],
        }.get(sweep["what"], lambda row: 100 * (row["shares"]["diagnostics"] + row["shares"]["recording"]))
        line = lines[sweep["network"]]
        assert list(line.get_xdata()) == [row["value"] for row in rows]
        assert list(line.get_ydata()) == pytest.approx([of(row) for row in rows], rel=MORE)


def test_charts_of_the_page_are_there_and_light(kept):
    named = re.findall(r"\(images/(growth_\w+\.svg)\)", PAGE)
    assert sorted(named) == sorted(f"{name}.svg" for name in growth_charts.figures(kept))
    for name in named:
        text = (IMAGES / name).read_text(encoding="utf-8")
        assert len(text) < 60_000
        assert ">train.batch_size (samples)<" in text or ">profile.bins<" in text  # text, not outlines


def drawn_by(path: Path) -> str:
    return re.search(r"Matplotlib v([\d.]+)", path.read_text(encoding="utf-8"))[1]


@pytest.mark.skipif(
    importlib.metadata.version("matplotlib") != drawn_by(IMAGES / "growth_size.svg"), reason="drawn by another version"
)
def test_charts_are_drawn_from_the_file(kept, tmp_path):
    """Twice the same, and nothing of the drawing stays in the process."""
    before = dict(matplotlib.rcParams)
    for path in growth_charts.draw(kept, tmp_path):
        assert path.read_bytes() == (IMAGES / path.name).read_bytes()
    assert dict(matplotlib.rcParams) == before
