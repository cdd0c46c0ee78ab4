"""Output to the terminal: fewer bytes for the same screen, and ASCII only where the terminal has nothing else.

Textual sends a changed region from its widget's left edge on, and resets all colours after every piece of text.
On a slow line most bytes are of this kind. Here a region is cropped on both sides, and a colour is sent only where it
changes.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from rich.color import ColorSystem
from rich.console import Console
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.color import Color
from textual.filter import LineFilter
from textual.strip import Strip

from cmbench.words.signs import ascii_alone

_SYSTEMS = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}
_DEFAULT = ("39", "49")  # the terminal's own colours


class _Codes(NamedTuple):
    """A style as terminal codes: attributes such as bold, foreground, background."""

    attributes: str
    foreground: str
    background: str


_PLAIN = _Codes("", *_DEFAULT)


def lean(update: CompositorUpdate) -> CompositorUpdate:
    """Return an update that shows the same in fewer bytes."""
    if type(update) is ChopsUpdate:
        return _LeanChops(update.chops, update.spans, update.chop_ends)
    return _LeanLayout(update.strips, update.region) if type(update) is LayoutUpdate else update


class Ascii(LineFilter):
    """Shows every widget in ASCII: Textual's own borders and arrows, and names in any script."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return a line with its characters replaced by ASCII."""
        return [Segment(ascii_alone(text), style, control) for text, style, control in segments]


class _LeanChops(ChopsUpdate):
    """An update of spans of lines."""

    def render_segments(self, console: Console) -> str:
        """Return the text and codes for the terminal."""
        pen, parts = _Pen(console), []
        for y, x1, x2 in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= x2 or end <= x1:
                    continue
                start = max(x, x1) if _can_be_cut(strip, x1 - x) else x
                parts.append(Control.move_to(start, y).segment.text)
                parts += pen.write(strip if start == x and end <= x2 else strip.crop(start - x, min(end, x2) - x))
        return "".join([*parts, pen.put_down()])


class _LeanLayout(LayoutUpdate):
    """An update of whole lines."""

    def render_segments(self, console: Console) -> str:
        """Return the text and codes for the terminal."""
        pen, parts = _Pen(console), []
        for y, line in enumerate(self.strips, self.region.y):
            parts.append(Control.move_to(self.region.x, y).segment.text)
            for strip in line:
                parts += pen.write(strip)
        return "".join([*parts, pen.put_down()])


def _can_be_cut(strip: Strip, cell: int) -> bool:
    """Whether a strip may be cut left of a cell: no character crosses the cut, and the strip has no picture."""
    if any(segment.control for segment in strip):
        return False
    return cell <= 0 or strip.text.startswith(strip.crop(0, cell).text)


class _Pen:
    """Writes text and remembers the terminal's current colours."""

    def __init__(self, console: Console) -> None:
        self._system = _SYSTEMS.get(console.color_system or "", ColorSystem.TRUECOLOR)
        self._now = _PLAIN

    def write(self, segments: Iterable[Segment]) -> list[str]:
        """Return the pieces of text with the codes between them."""
        parts = []
        for text, style, control in segments:
            if control or (style is not None and style.link):  # sixel pictures are control segments
                rendered = style.render(text, color_system=self._system) if style else text
                parts += [self.put_down(), rendered]
                continue
            if not text:
                continue
            parts += [self._change(_codes(style, self._system) if style else _PLAIN), text]
        return parts

    def put_down(self) -> str:
        """Return the code that restores the terminal's own colours."""
        changes = "" if self._now == _PLAIN else "\x1b[0m"
        self._now = _PLAIN
        return changes

    def _change(self, wanted: _Codes) -> str:
        now, self._now = self._now, wanted
        if now == wanted:
            return ""
        if now.attributes == wanted.attributes:
            codes = [new for new, old in zip(wanted[1:], now[1:], strict=True) if new != old]
        else:  # attributes can only be removed all together
            colours = [code for code, own in zip(wanted[1:], _DEFAULT, strict=True) if code != own]
            codes = ["0"] * bool(now.attributes) + [wanted.attributes] * bool(wanted.attributes)
            codes += colours if now.attributes else [c for c, old in zip(wanted[1:], now[1:], strict=True) if c != old]
        return f"\x1b[{';'.join(codes)}m"


@lru_cache(4096)
def _codes(style: Style, system: ColorSystem) -> _Codes:
    colours = [
        ";".join(colour.downgrade(system).get_ansi_codes(foreground)) if colour is not None else own
        for colour, foreground, own in ((style.color, True, "39"), (style.bgcolor, False, "49"))
    ]
    return _Codes(style.without_color.render("|", color_system=system).partition("|")[0][2:-1], *colours)
