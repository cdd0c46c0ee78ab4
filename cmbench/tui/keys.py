"""Which keys actions have, and where two actions would fight for one."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, combinations

from textual.binding import Binding, InvalidBinding
from textual.dom import DOMNode
from textual.screen import ModalScreen

from cmbench.errors import UsageError

Actions = dict[str, frozenset[str]]  # the keys of each by default


def listening() -> Iterator[Actions]:
    """Yield the actions that listen at once: for every widget of every screen, while it has the focus.

    A key goes to the widget first, then to its screen, then to the application; a question lets nothing through.
    """
    from cmbench.tui.app import CmbenchApp
    from cmbench.tui.screens import all_screens

    for screen, widgets in all_screens().items():
        below: list[type[DOMNode]] = [screen] if issubclass(screen, ModalScreen) else [screen, CmbenchApp]
        for widget in [[], *([each] for each in widgets)]:
            yield _of([*widget, *below])


def actions() -> set[str]:
    """Return the names of all actions that keys can be given to."""
    from cmbench.tui.app import CmbenchApp

    return set().union(*listening(), _of([CmbenchApp]))


def check(given: Mapping[str, str], together: Iterable[Actions], where: str) -> None:
    """Refuse a key that two actions would have at once: one of them could not be reached.

    Two that share a key by default may: the inner one is meant to come first there.

    Args:
        given: keys by the name of an action, with commas between, as the user wrote them.
        together: actions that listen at once, as `listening` yields them.
        where: what messages name, the file.

    Raises:
        UsageError: there is such a key; the line names both actions.
    """
    own = {name: _keys(text) for name, text in given.items()}
    for defaults in together:
        now = {name: own.get(name) or keys for name, keys in defaults.items()}
        for first, second in combinations(sorted(now, key=lambda name: (not own.get(name), name)), 2):
            for key in sorted((now[first] & now[second]) - (defaults[first] & defaults[second])):
                holders = " and for ".join(f"{n}{'' if own.get(n) else ' (its default)'}" for n in (first, second))
                raise UsageError(
                    f"{where}: keys: found '{key}' for {holders}, allowed: a key for each, for both are on one screen"
                )


def _of(holders: Iterable[type[DOMNode]]) -> Actions:
    """Return the actions of classes, and of their bases in this package."""
    bases = [base for holder in holders for base in holder.__mro__ if base.__module__.startswith("cmbench.")]
    found: dict[str, frozenset[str]] = {}
    for binding in chain.from_iterable(vars(base).get("BINDINGS", ()) for base in bases):
        if isinstance(binding, Binding) and binding.id:
            found[binding.id] = found.get(binding.id, frozenset()) | _keys(binding.key)
    return found


def _keys(text: str) -> frozenset[str]:
    """Return keys by the names that Textual gives them: "question_mark" for "?"."""
    try:
        return frozenset(binding.key for binding in Binding.make_bindings([Binding(text, "")]))
    except InvalidBinding:  # none, or nothing between two commas
        parts = [part for part in text.split(",") if part.strip()]
        return _keys(",".join(parts)) if parts else frozenset()
