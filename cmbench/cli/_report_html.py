"""A comparison as one page that loads nothing: tables, charts as SVG, and embedded snapshots."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmbench.cli._report_charts import svg
from cmbench.comparison.compare import Comparison, PictureRow
from cmbench.rundir.files import read
from cmbench.words.comparison import figures, overview

_TEMPLATE = Path(__file__).with_name("_report.html")
_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST = 1 << 22  # bytes of a picture that goes into the page


@dataclass(frozen=True)
class _Shown:
    """A picture of a run, as a data URI; empty if the file cannot be shown."""

    letter: str
    step: int
    uri: str


def encoded(found: Comparison) -> bytes:
    """Return the page. All text from the runs is escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = template.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{len(found.members)} runs compared",
        overview=list(overview(found)),
        figures=list(figures(found)),
        charts=Markup(svg(found)),  # matplotlib escapes what it writes
        pictures=[(row.title, list(_shown(found, row))) for row in found.pictures],
    )
    return page.encode("utf-8", "replace")


def _shown(found: Comparison, row: PictureRow) -> Iterator[_Shown]:
    for i, picture in row.pictures.items():
        yield _Shown(found.members[i].letter, picture.step, _uri(picture.path))


def _uri(path: Path) -> str:
    try:
        content = read(path, _LARGEST)
    except OSError:
        return ""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}" if content.startswith(_PNG) else ""
