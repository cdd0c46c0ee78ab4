"""The keys of what has the focus, in the last line of a screen."""

from textual.app import ComposeResult
from textual.widgets import Footer

_EVERYWHERE = ("help", "quit")


class KeyBar(Footer):
    """Textual's footer with the keys in another order: what a narrow screen cuts off are those of the focused widget.

    Args:
        first: actions whose keys come first, behind help and quit; the others keep their order.
        show_command_palette: whether its key stands at the right.
    """

    def __init__(self, *first: str, show_command_palette: bool = True) -> None:
        super().__init__(show_command_palette=show_command_palette)
        self._first = (*_EVERYWHERE, *first)

    def compose(self) -> ComposeResult:
        """Put the keys in order."""
        places = {action: place for place, action in enumerate(self._first)}
        yield from sorted(super().compose(), key=lambda key: places.get(getattr(key, "action", ""), len(places)))
