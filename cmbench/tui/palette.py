"""The command palette's list: the name of every action that has a key at the current focus."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.dom import DOMNode
from textual.markup import escape
from textual.screen import Screen

_ITSELF = "command_palette"


def commands(app: App[Any], screen: Screen[Any]) -> Iterator[SystemCommand]:
    """Yield the named actions of the focused widget, of its screen and of the application, each with its keys."""
    for (node, action), bindings in _actions(screen).items():
        keys = " ".join(dict.fromkeys(map(app.get_key_display, bindings)))
        tooltip = next((binding.tooltip for binding in bindings if binding.tooltip), "")
        text = f"{keys}: {tooltip}" if tooltip else keys
        yield SystemCommand(bindings[0].description, escape(text), partial(app.run_action, action, node))


def _actions(screen: Screen[Any]) -> dict[tuple[DOMNode, str], list[Binding]]:
    """Return the bindings of each named action. Unnamed ones are Textual's own, such as moving in a line of text."""
    found: dict[tuple[DOMNode, str], list[Binding]] = {}
    for node, binding, is_enabled, _ in screen.active_bindings.values():
        if is_enabled and binding.id and binding.action != _ITSELF:
            found.setdefault((node, binding.action), []).append(binding)
    return found
