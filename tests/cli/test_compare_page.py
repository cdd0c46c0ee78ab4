"""The page and the picture of `cmbench compare`."""

import importlib.util
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from compared_runs import EDGES, compared_run, losses
from PIL import Image

from cmbench.cli import _report_charts
from cmbench.comparison.compare import compare
from cmbench.rundir import annotations
from cmbench.rundir.layout import RunDir
from cmbench.views.smoothing import USUAL, average

HOSTILE = "</style><script>alert(1)</script><img src=x onerror=alert(1)> $\\frac{$ \x1b[0m"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds: elements, references, text; and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.references, self.texts, self.open = [], [], [], []
        self.handlers: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        self.references += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")
        ]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def runs(home):
    pytest.importorskip("matplotlib")
    found = []
    for i, name in enumerate(("a-run", "b<script>alert(1)<|script>")):
        profiles = {10: {"loss": [4.0, 3.0, 2.0, 1.0 + i]}, 20: {"loss": [2.0, 2.0, 2.0, 1.0 + i]}}
        run = compared_run(home / "runs", name, {"loss": losses(500, i), HOSTILE: losses(500, 9)}, profiles=profiles)
        annotations.annotate(run, HOSTILE, ["<b>"])
        run.snapshots.mkdir()
        Image.new("RGB", (8, 8), (200, i, 0)).save(run.snapshots / "00000020_1step.png")
        (run.snapshots / "00000040_1step.png").write_bytes(b"<svg onload=alert(1)>")
        found.append(run)
    return found


def test_the_page_stands_by_itself(cmbench, runs, home):
    outcome = cmbench("compare", "*", "--html", "page.html")
    assert outcome == (0, "", "")
    text = (home / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert {"script", "link", "iframe", "object", "b"} & set(page.tags) == set()
    assert page.handlers == []
    assert page.references
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert not any(reference.startswith("data:") for reference in page.references)  # the newest is no PNG
    assert (text.count("<!DOCTYPE"), text.count("<?xml"), text.count(".dtd")) == (1, 0, 0)
    assert "url(http" not in text
    assert "@import" not in text
    assert "svg" in page.tags
    assert "\x1b" not in text
    said = "".join(page.texts)
    assert "</style><script>alert(1)</script>" in said  # as text
    assert "optimizer" not in said
    assert "the recipes are equal" in said
    cmbench("compare", "*", "--html", "again.html")
    assert (home / "again.html").read_text() == text


def test_snapshots_stand_in_a_row(cmbench, runs, home):
    for run in runs:
        (run.snapshots / "00000040_1step.png").unlink()
    cmbench("compare", "*", "--html", "page.html")
    assert sum(r.startswith("data:") for r in Page((home / "page.html").read_text()).references) == 2


def test_charts_of_the_metrics_that_are_asked_for(cmbench, runs, home):
    assert cmbench("compare", "*", "--html", "page.html", "--metric", "los*").code == 0
    text = (home / "page.html").read_text()
    assert "loss over time" in text
    assert HOSTILE[:10] not in "".join(Page(text[text.index("<svg") : text.index("</svg>")]).texts)


def test_the_picture(cmbench, runs, home):
    assert cmbench("compare", "*", "--png", "charts.png", "--html", "page.html", "--csv=-").code == 0
    picture = Image.open(io.BytesIO((home / "charts.png").read_bytes()))
    assert picture.format == "PNG"
    assert np.array(picture.convert("L")).std() > 5


def test_the_picture_holds_tables_charts_and_snapshots(cmbench, runs, home):
    """Beside the charts alone it is higher by the tables above and the two snapshots in red below."""
    for run in runs:
        (run.snapshots / "00000040_1step.png").unlink()
    assert cmbench("compare", "*", "--png", "whole.png").code == 0
    whole = np.array(Image.open(io.BytesIO((home / "whole.png").read_bytes())).convert("RGB")).astype(int)
    charts = Image.open(io.BytesIO(_report_charts.png(compare(runs))))
    assert len(whole) > charts.height + 400
    red = (whole[..., 0] == 200) & (whole[..., 2] == 0)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert len(rows) == 264
    assert len(columns) == 2 * 264
    assert rows[0] > charts.height


@pytest.mark.parametrize("paths", [(False, False), (True, True), (True, False)], ids=["one path", "levels", "none"])
def test_what_profiles_of_several_paths_lie_over(home, paths):
    """Times of one path as they are, of several the noise levels where all tell them."""
    edges = [EDGES, EDGES] if paths == (False, False) else [EDGES, [0.1, 0.2, 0.8, 1.4, 1.5]]
    rows = {step: {"loss": [1.0, 2.0, 3.0, 4.0]} for step in range(1, 6)}
    for name, own, has_levels in zip("ab", edges, paths, strict=True):
        meta = {"profile_edges": own, **({"profile_noise_levels": EDGES} if has_levels else {})}
        compared_run(home / "runs", name, {"loss": losses()}, meta=meta, profiles=rows)
    text = _report_charts.svg(compare([RunDir(home / "runs" / name) for name in "ab"]))
    axes = {(False, False): ">t<", (True, True): ">noise level<", (True, False): ">t, different for each run<"}
    assert [label for label in axes.values() if label in text] == [axes[paths]]


def test_without_matplotlib_one_line(cmbench, home, monkeypatch):
    compared_run(home / "runs", "a-run", {"loss": losses(20)})
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "matplotlib" else find(name, *args)
    )
    for option in ("--html", "--png"):
        outcome = cmbench("compare", "a-run", option, "x")
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == f"cmbench: {option}: matplotlib is not installed (pip install 'cmbench[plots]')\n"
        assert not (home / "x").exists()


def test_curves_are_averaged_as_on_screens_and_schedules_never(home):
    n = 1000
    noisy, N = 2 + np.random.default_rng(0).normal(size=n), 10.0 * 2 ** (np.arange(n) // 300)
    found = compare([compared_run(home, "a", {"loss": noisy.tolist(), "N": N.tolist()})])
    figure = _report_charts._figure(found)
    charts = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert set(charts) == {"loss  gauss 2%", "N"}
    x, y = charts["N"].lines[0].get_data()
    assert all(N[int(step) - 1] == value for step, value in zip(x, y, strict=True))  # values of rows alone
    x, y = charts["loss  gauss 2%"].lines[0].get_data()
    mean = average(np.arange(1.0, n + 1), noisy, np.ones(n), USUAL)
    assert y == pytest.approx(mean[np.asarray(x, int) - 1])
    assert (x[0], x[-1]) == (1, n)
