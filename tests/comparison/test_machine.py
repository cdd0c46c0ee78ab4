"""What the machines did, beside each other: figures, every form of a report, and runs that tell nothing of it."""

import csv
import io
import json
import re

import numpy as np
import pytest
from compared_runs import CREATED, compared_run, losses, write_rows

from cmbench.comparison.compare import compare
from cmbench.errors import UsageError
from cmbench.words.comparison import report

NONE = "no machine history in this run"


@pytest.fixture
def runs(home):
    """Two runs whose machine was watched, one of them on a GPU, and one of an earlier version."""
    made = [compared_run(home / "runs", f"{name}-run", {"loss": losses(40, 1)}) for name in "abc"]
    for run, values in zip(made, ([1.0, 3.0, 5.0], [4.0, 4.0, 10.0]), strict=False):
        rows = [
            {"step": 10 * i, "time": CREATED + 5 * i, "train_s": 5.0 * i, "machine_rss_gib": value}
            for i, value in enumerate(values, start=1)
        ]
        if run is made[0]:
            rows[1]["machine_gpu0_power_w"] = 300.0
            rows[2]["machine_gpu0_power_w"] = "a lot"
        write_rows(run.machine, rows)
    return made


def section(found):
    (table,) = [table for table in report(found) if table.title.startswith("machine")]
    return table


def test_mean_lowest_and_highest_of_each_run(runs):
    found = compare(runs)
    assert list(found.machine) == ["machine_gpu0_power_w", "machine_rss_gib"]
    assert [
        load and (load.mean, load.lowest, load.highest, load.rows) for load in found.machine["machine_rss_gib"]
    ] == [
        (3, 1, 5, 3),
        (6, 4, 10, 3),
        None,
    ]
    assert [load and load.rows for load in found.machine["machine_gpu0_power_w"]] == [1, None, None]
    assert section(found).rows == [
        ["machine_gpu0_power_w", "a", "300", "300", "300"],
        ["machine_rss_gib", "a", "3", "1", "5"],
        ["machine_rss_gib", "b", "6", "4", "10"],
        [NONE, "c", "-", "-", "-"],
    ]


def test_rows_that_were_trained_again_count_once(runs):
    with runs[0].machine.open("ab") as file:
        file.write(b'{"segment":2,"first_step":15}\n{"segment":2,"step":15,"time":1100.0,"machine_rss_gib":2.0}\n')
    (load, *_) = compare(runs).machine["machine_rss_gib"]
    assert (load.mean, load.rows) == (1.5, 2)


def test_it_says_nothing_of_what_was_learned(runs):
    found = compare(runs)
    assert "machine_rss_gib" not in found.metrics
    assert not any("machine_rss_gib" in apart.judged for apart in found.apart)
    assert not any("machine_rss_gib" in group.spreads for group in found.groups)


def test_a_run_of_an_earlier_version_says_that_it_has_none(runs):
    table = section(compare(runs[2:]))
    assert (table.rows, table.otherwise) == ([], NONE)
    assert section(compare(runs[2:], ["machine_*"])).otherwise == NONE


@pytest.mark.parametrize(
    ("wanted", "curves", "metrics"),
    [
        ([], ["machine_gpu0_power_w", "machine_rss_gib"], ["loss"]),
        (["machine_rss_gib"], ["machine_rss_gib"], []),
        (["machine_*"], ["machine_gpu0_power_w", "machine_rss_gib"], []),
        (["loss"], None, ["loss"]),
        (["loss", "machine_gpu*"], ["machine_gpu0_power_w"], ["loss"]),
    ],
)
def test_metrics_and_curves_of_the_machine_are_chosen_by_name(runs, wanted, curves, metrics):
    found = compare(runs, wanted)
    assert (found.machine if curves is None else list(found.machine)) == curves
    assert list(found.metrics) == metrics
    assert any(table.title.startswith("machine") for table in report(found)) is (curves is not None)


def test_a_curve_that_there_is_not_is_refused_with_the_nearest(runs):
    with pytest.raises(UsageError, match=r"machine_rss_gb.*machine_rss_gib"):
        compare(runs, ["machine_rss_gb"])


def test_every_form_of_the_report_has_it(runs, cmbench, home):
    names = [run.name for run in runs]
    plain = cmbench("compare", *names, "--plain").out
    assert re.search(r"machine_rss_gib +b +6 +4 +10", plain)
    assert NONE in plain
    data = json.loads(cmbench("compare", *names, "--json").out)["machine"]
    assert data["machine_rss_gib"]["b"] == {"mean": 6.0, "lowest": 4.0, "highest": 10.0, "rows": 3}
    assert data["machine_rss_gib"]["c"] is None
    lines = csv.DictReader(io.StringIO(cmbench("compare", *names, "--csv=-").out))
    told = {
        (line["letter"], line["figure"]): float(line["value"]) for line in lines if line["name"] == "machine_rss_gib"
    }
    assert told == {
        **{("a", figure): value for figure, value in (("mean", 3), ("lowest", 1), ("highest", 5))},
        **{("b", figure): value for figure, value in (("mean", 6), ("lowest", 4), ("highest", 10))},
    }
    assert cmbench("compare", *names, "--html", "page.html").code == 0
    page = (home / "page.html").read_text()
    assert NONE in page
    chart = page[page.index("<svg") : page.index("</svg>")]
    assert "machine_rss_gib" in chart
    assert np.all(["machine_gpu0_power_w" in part for part in (chart, page)])
