"""The keys of actions, and conflicts where two actions would share a key."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, combinations

from textual._keyboard_protocol import FUNCTIONAL_KEYS
from textual.binding import Binding, InvalidBinding
from textual.dom import DOMNode
from textual.keys import KEY_TO_UNICODE_NAME, REPLACED_KEYS, Keys, key_to_character
from textual.screen import ModalScreen

from cmbench.errors import UsageError, did_you_mean

Actions = dict[str, frozenset[str]]  # the default keys of each action

_MODIFIERS = ("alt", "ctrl", "hyper", "meta", "shift", "super")  # in the order in which Textual names them
_NAMES = {each.value.rpartition("+")[2] for each in Keys if each.value.isidentifier() or "+" in each.value}
_NAMES |= {*FUNCTIONAL_KEYS.values(), *KEY_TO_UNICODE_NAME, *REPLACED_KEYS} - {*REPLACED_KEYS.values()}
_ALLOWED = "a character (Q, not shift+q) or a name such as enter, f5 or question_mark, also after ctrl+, alt+, shift+"


def listening() -> Iterator[Actions]:
    """Yield the actions that listen at the same time, for each widget of each screen while it has the focus.

    A key goes to the widget first, then to its screen, then to the application. A question passes no key on.
    """
    from cmbench.tui.app import CmbenchApp
    from cmbench.tui.screens import all_screens

    for screen, widgets in all_screens().items():
        below: list[type[DOMNode]] = [screen] if issubclass(screen, ModalScreen) else [screen, CmbenchApp]
        for widget in [[], *([each] for each in widgets)]:
            yield _of([*widget, *below])


def actions() -> set[str]:
    """Return the names of all actions whose keys can be set."""
    from cmbench.tui.app import CmbenchApp

    return set().union(*listening(), _of([CmbenchApp]))


def check(given: Mapping[str, str], together: Iterable[Actions], where: str) -> None:
    """Refuse unknown keys, and keys that two actions would share, since one of the two could not be reached.

    Two actions that share a key by default may keep it: there the inner one is meant to come first.

    Args:
        given: the user's keys by action name, separated by commas.
        together: actions that listen at the same time, as `listening` yields them.
        where: the file, for messages.

    Raises:
        UsageError: a key is unknown or shared; the message names the key and its actions.
    """
    for name, text in given.items():
        for key in filter(None, map(str.strip, text.split(","))):
            if not _is_key(key):
                raise UsageError(f"{where}: keys: {name}: found '{key}', allowed: {_ALLOWED}{_meant(key)}")
    own = {name: _keys(text) for name, text in given.items()}
    for defaults in together:
        now = {name: own.get(name) or keys for name, keys in defaults.items()}
        for first, second in combinations(sorted(now, key=lambda name: (not own.get(name), name)), 2):
            for key in sorted((now[first] & now[second]) - (defaults[first] & defaults[second])):
                holders = " and for ".join(f"{n}{'' if own.get(n) else ' (its default)'}" for n in (first, second))
                raise UsageError(
                    f"{where}: keys: found '{key}' for {holders}, allowed: a key for each, since both are on one screen"
                )


def _of(holders: Iterable[type[DOMNode]]) -> Actions:
    """Return the actions of classes and of their base classes in this package."""
    bases = [base for holder in holders for base in holder.__mro__ if base.__module__.startswith("cmbench.")]
    found: dict[str, frozenset[str]] = {}
    for binding in chain.from_iterable(vars(base).get("BINDINGS", ()) for base in bases):
        if isinstance(binding, Binding) and binding.id:
            found[binding.id] = found.get(binding.id, frozenset()) | _keys(binding.key)
    return found


def _is_key(key: str) -> bool:
    """Whether Textual knows a key by this name. A letter with shift alone is another character, such as Q."""
    if len(key) == 1:
        return True
    *modifiers, name = key.split("+")
    if modifiers != [each for each in _MODIFIERS if each in modifiers]:
        return False
    if len(name) == 1:
        return modifiers != ["shift"]
    character = key_to_character(REPLACED_KEYS.get(name, name))
    return name in _NAMES or (character is not None and character.isprintable() and _keys(character) == {name})


def _meant(key: str) -> str:
    """Return a suggestion of the key that an unknown name may mean, as `did_you_mean` words it."""
    *modifiers, name = key.lower().split("+")
    before = "".join(f"{each}+" for each in _MODIFIERS if each in modifiers)
    others = [f"{before}{each}" for each in (*sorted(_NAMES), name[:1])] + [f"{each}+{name}" for each in _MODIFIERS]
    return did_you_mean(key.lower(), filter(_is_key, others)) if len(name) > 1 or not before else ""


def _keys(text: str) -> frozenset[str]:
    """Return keys by Textual's names for them, such as "question_mark" for "?"."""
    try:
        return frozenset(binding.key for binding in Binding.make_bindings([Binding(text, "")]))
    except InvalidBinding:  # no key at all, or nothing between two commas
        parts = [part for part in text.split(",") if part.strip()]
        return _keys(",".join(parts)) if parts else frozenset()
