"""The keys of the focused widget and its screen, in the last line of the screen."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

_EVERYWHERE = ("help", "quit")


class KeyBar(Footer):
    """Textual's footer in another order, so that a narrow screen leaves out the keys of the focused widget.

    Args:
        first: actions whose keys come first, after help and quit; the others keep their order.
        show_command_palette: whether to show the palette's key at the right.
    """

    def __init__(self, *first: str, show_command_palette: bool = True) -> None:
        super().__init__(show_command_palette=show_command_palette)
        self._first = (*_EVERYWHERE, *first)
        self._made_of: list[tuple[Binding, bool, str]] = []

    def compose(self) -> ComposeResult:
        """Put the keys in order."""
        places = {action: place for place, action in enumerate(self._first)}
        keys = list(super().compose())
        if keys:  # otherwise Textual does not know the keys yet
            self._made_of = _bindings(self.screen)
        for key in sorted(keys, key=lambda key: places.get(getattr(key, "action", ""), len(places))):
            if isinstance(key, FooterKey):  # otherwise each is styled twice more: as compact, and as not compact
                key.set_reactive(FooterKey.compact, self.compact)
            yield key

    def on_mount(self) -> None:
        """Look at the keys after each layout."""
        self.screen.screen_layout_refresh_signal.subscribe(self, lambda screen: self._show_whole_keys())

    def _show_whole_keys(self) -> None:
        """Hide the keys that a narrow screen would cut within a word."""
        keys = list(self.query(FooterKey))
        docked = sum(key.outer_size.width for key in keys if key.styles.dock != "none")
        for key in keys:
            fits = key.styles.dock != "none" or key.virtual_region_with_margin.right <= self.size.width - docked
            if key.styles.text_opacity != fits:
                key.styles.text_opacity = float(fits)  # what is not visible has no place, and would seem to fit

    def bindings_changed(self, screen: Screen) -> None:
        """Rebuild the keys only if they differ; Textual would rebuild them at every change of focus."""
        if _bindings(screen) != self._made_of:
            super().bindings_changed(screen)


def _bindings(screen: Screen) -> list[tuple[Binding, bool, str]]:
    return [(binding, enabled, tooltip) for _, binding, enabled, tooltip in screen.active_bindings.values()]
