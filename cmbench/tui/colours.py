"""Colours: themes, and maps from numbers to colours. The colours of lines are in `views.lines`."""

from functools import cache

from rich.style import Style
from textual.color import Color, Gradient
from textual.theme import BUILTIN_THEMES, Theme

from cmbench.views.lines import line_colours

LEVELS = 24  # shades of a map; more would only cost bytes

# The ends and middles of viridis and cividis (van der Walt & Smith 2015; Nuñez et al. 2018) and of ColorBrewer's RdBu.
_SEQUENTIAL = {
    False: ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"),
    True: ("#00224e", "#414d6b", "#7d7c78", "#bcaf6f", "#fee838"),
}
_DIVERGING = ("#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b")
_SHADES = {False: " ░▒▓█", True: " .:+#"}

COLOUR_BLIND = "colour-blind"
DARK, LIGHT, ANSI = "textual-dark", "textual-light", "ansi-dark"


def themes() -> list[Theme]:
    """Return every theme with the colours of lines: Textual's own themes, and one in blue and yellow only."""
    own = Theme(
        name=COLOUR_BLIND,
        primary="#56b4e9",
        secondary="#0072b2",
        accent="#f0e442",
        warning="#e69f00",
        error="#d55e00",
        success="#56b4e9",
        background="#101418",
        surface="#161b20",
        panel="#1f262d",
        dark=True,
    )
    return [_with_lines(theme) for theme in (*BUILTIN_THEMES.values(), own)]


def _with_lines(theme: Theme) -> Theme:
    values = {name: getattr(theme, name) for name in Theme.__dataclass_fields__}
    return Theme(**{**values, "variables": {**theme.variables, **line_colours(theme.name, theme.dark)}})


@cache
def shades(theme: str, diverging: bool) -> tuple[Style, ...]:
    """Return LEVELS styles for rising values; on diverging maps the middle stands for a ratio of one."""
    colours = _DIVERGING if diverging else _SEQUENTIAL[theme == COLOUR_BLIND]
    gradient = Gradient.from_colors(*(Color.parse(colour) for colour in colours), quality=LEVELS)
    steps = [gradient.get_color(i / (LEVELS - 1)) for i in range(LEVELS)]
    return tuple(Style(bgcolor=step.rich_color) for step in steps)


def shade_characters(ascii_only: bool) -> str:
    """Return the characters for rising values on terminals without colours."""
    return _SHADES[ascii_only]
