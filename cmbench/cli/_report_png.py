"""A comparison as one picture: tables, charts and snapshots from top to bottom."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from cmbench.cli import _report_charts
from cmbench.comparison.compare import Comparison, PictureRow
from cmbench.rundir.files import read
from cmbench.words.comparison import figures, overview
from cmbench.words.tables import drawn

_MARGIN, _SIZE = 16, 13  # pixels around each part, and pixels of a letter
_WIDEST = 400  # characters of a line
_SHOWN = 264  # pixels of a snapshot's longer side
_LARGEST = 1 << 22  # bytes of a file that is drawn


def encoded(found: Comparison) -> bytes:
    """Return a PNG."""
    parts = [_text(_tables(found)), Image.open(io.BytesIO(_report_charts.png(found)))]
    for row in found.pictures:
        parts += [_text(row.title), _beside(list(_snapshots(found, row)))]
    buffer = io.BytesIO()
    _below(parts).save(buffer, format="PNG")
    return buffer.getvalue()


def _tables(found: Comparison) -> str:
    """Return all tables except those that the charts replace."""
    console = Console(file=io.StringIO(), width=_WIDEST, color_system=None, record=True)
    for section in (*overview(found), *figures(found)):
        console.print(drawn(section))
        console.print()
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def _text(text: str) -> Image.Image:
    import matplotlib

    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf"), _SIZE)
    _, _, width, height = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    picture = Image.new("RGB", (int(width) + 1, int(height) + 1), "white")
    ImageDraw.Draw(picture).multiline_text((0, 0), text, "black", font)
    return picture


def _snapshots(found: Comparison, row: PictureRow) -> Iterator[Image.Image]:
    """Yield each run's picture above its letter and step; only the text if the file cannot be shown."""
    for i, shown in row.pictures.items():
        below = _text(f"{found.members[i].letter}, step {shown.step}")
        picture = _picture(shown.path)
        yield _below([below] if picture is None else [picture, below], margin=4)


def _picture(path: Path) -> Image.Image | None:
    try:
        picture = Image.open(io.BytesIO(read(path, _LARGEST)), formats=["PNG"]).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    scale = _SHOWN / max(picture.size)
    size = [max(1, round(scale * side)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def _below(parts: Sequence[Image.Image], margin: int = _MARGIN) -> Image.Image:
    """Stack pictures from top to bottom."""
    size = max(part.width for part in parts), sum(part.height + margin for part in parts)
    whole, y = Image.new("RGB", (size[0] + 2 * margin, size[1] + margin), "white"), margin
    for part in parts:
        whole.paste(part, (margin, y))
        y += part.height + margin
    return whole


def _beside(parts: Sequence[Image.Image]) -> Image.Image:
    """Put pictures side by side."""
    whole = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), "white")
    x = 0
    for part in parts:
        whole.paste(part, (x, 0))
        x += part.width
    return whole
