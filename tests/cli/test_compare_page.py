"""The page and the picture of `cmbench compare`."""

import importlib.util
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from compared_runs import compared_run, losses
from PIL import Image

from cmbench.rundir import annotations

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
    assert cmbench("compare", "*", "--png", "charts.png", "--html", "page.html", "--csv").code == 0
    picture = Image.open(io.BytesIO((home / "charts.png").read_bytes()))
    assert picture.format == "PNG"
    assert np.array(picture.convert("L")).std() > 5


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
