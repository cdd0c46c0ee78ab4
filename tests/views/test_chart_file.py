"""A chart as a file, and bands over seeds."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from cmbench.errors import UsageError
from cmbench.views.axes import Scale
from cmbench.views.chart_file import Drawing, to_csv, write
from cmbench.views.lines import Line, over_seeds

X = np.arange(1.0, 6.0)


def drawing(y, label="loss", **options):
    settings = {"scale": Scale(), "x_scale": Scale(), "x_ends": (2.0, 4.0), **options}
    return Drawing("=loss $x$", "step", [Line.of(label, X, y)], **settings)


def test_csv_has_the_rows_in_sight_in_full_and_no_formula():
    rows = list(csv.reader(io.StringIO(to_csv(drawing([9, 0.1, np.nan, 1 / 3, 9])).decode())))
    assert rows[0] == ["chart", "line", "step", "mean", "low", "high", "rows", "all_finite"]
    assert [row[2] for row in rows[1:]] == ["2.0", "3.0", "4.0"]
    assert [row[3] for row in rows[1:]] == ["0.1", "", repr(1 / 3)]
    assert [row[7] for row in rows[1:]] == ["true", "false", "true"]
    assert rows[1][:2] == ["'=loss $x$", "loss"]


@pytest.mark.parametrize("kind", ["linear", "log", "symlog"])
def test_pictures_are_written_on_every_axis(tmp_path, kind):
    pytest.importorskip("matplotlib")
    shown = drawing([1, 2, np.nan, 0.5, 3], scale=Scale(kind), strength=0.02)
    write(shown, tmp_path / "a.png")
    write(shown, tmp_path / "a.SVG")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (768, 480)
    text = (tmp_path / "a.SVG").read_text()
    assert "=loss $x$" in text
    write(shown, tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_text() == text


@pytest.mark.parametrize(
    ("name", "says"), [("a.gif", "found '.gif', allowed: a name that ends in .png"), ("there.csv", "already exists")]
)
def test_what_cannot_be_written_is_refused_in_a_line(tmp_path, name, says):
    (tmp_path / "there.csv").write_text("mine")
    with pytest.raises(UsageError, match=says):
        write(drawing(X), tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["there.csv"]


def test_a_folder_that_is_not_there_is_refused_in_a_line(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        write(drawing(X), tmp_path / "nowhere" / "a.csv")


def test_a_band_is_mean_and_ends_where_all_seeds_are_known():
    first, second = Line.of("a", X, 2 * X, 3, "dashed"), Line.of("b", np.array([2.0, 4.0]), np.array([0.0, 8.0]))
    band = over_seeds([first, second], "AB")
    assert band.x.tolist() == [2, 3, 4]
    assert band.low.tolist() == [0, 4, 8]
    assert band.high.tolist() == [4, 6, 8]
    assert band.mean.tolist() == [2, 5, 8]
    assert (band.label, band.colour, band.dash) == ("AB", 3, "dashed")


def test_there_is_no_band_where_a_seed_has_nothing():
    nothing = Line.of("b", np.empty(0), np.empty(0))
    assert over_seeds([Line.of("a", X, X), nothing], "AB") is None
    assert over_seeds([Line.of("a", X, X), Line.of("b", X + 10, X)], "AB") is None
