"""Text that others wrote, made harmless: what acts on a terminal, or is not seen there, becomes a visible sign.

Names, notes, recipe values and journals may hold anything. The dashboard and the command line show them by `plain`;
JSON and TOML, which are data, hold the same characters as escapes of their own.
"""

import re
import unicodedata
from collections.abc import Iterable

_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421, 0x09: 0x20}  # ␀ to ␟, ␡; a tab: a space
# Letters and marks that show nothing: fillers of Hangul and Khmer, the joiner of graphemes, selectors of variants.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0}
_BLANK |= {*range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)}
_WORD, _LONGEST = 160, 480  # characters of a word, and of a message, that are too many where the message is too long


def _acts(code: int) -> bool:
    """Return whether a character is a control, a mark of direction, a line's end, half a pair, or invisible."""
    return unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") or code in _BLANK


class _Signs(dict[int, int | str]):
    """What stands for each character, found when it is first met."""

    def __missing__(self, code: int) -> int | str:
        self[code] = sign = "\ufffd" if _acts(code) else code
        return sign


class _Escapes(dict[int, int | str]):
    """The same with the escapes of JSON, or with those of TOML, which has no pairs; line feeds stay."""

    def __init__(self, pairs: bool) -> None:
        super().__init__({0x0A: 0x0A})
        self._pairs = pairs

    def __missing__(self, code: int) -> int | str:
        self[code] = sign = self._escape(code) if _acts(code) else code
        return sign

    def _escape(self, code: int) -> str:
        if 0xD800 <= code < 0xE000:  # half a pair: no text for strict readers
            return "\ufffd"
        if code < 0x10000:
            return f"\\u{code:04x}"
        low, high = code - 0x10000 & 0x3FF, code - 0x10000 >> 10
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}" if self._pairs else f"\\U{code:08x}"


_SIGNS = _Signs(_PICTURES)
_JSON, _TOML = _Escapes(pairs=True), _Escapes(pairs=False)


def plain(text: object) -> str:
    """Return a text on one line in which every control character is a visible sign and none acts on the terminal.

    C0 controls become their Unicode pictures (escape is ␛). C1 controls, marks that change the writing direction, line
    separators, unpaired surrogates and what is invisible become �; a tab becomes a space.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():  # nearly all there is, a thousand times a table
        return shown
    return shown.translate(_SIGNS)


def plain_lines(text: str) -> str:
    """Return such a text of several lines: line feeds stay."""
    return "\n".join(map(plain, text.split("\n")))


def json_escaped(text: str) -> str:
    """Return encoded JSON, equal as data, without a character that acts on a terminal."""
    return text if text.isascii() and "\x7f" not in text else text.translate(_JSON)


def toml_escaped(text: str) -> str:
    """Return encoded TOML, equal as data, without a character that acts on a terminal."""
    return text if text.isascii() and "\x7f" not in text else text.translate(_TOML)


def brief(text: object) -> str:
    """Return a message on one line, of a few hundred characters at most: long words are cut, then the middle."""
    lines = (line.strip() for line in str(text).split("\n"))
    words = plain(" ".join(filter(None, lines))).split(" ")
    if sum(map(len, words)) + len(words) > _LONGEST:
        words = [cut(word, _WORD) for word in words]
    return cut(" ".join(words), _LONGEST)


def shown(value: object, longest: int = 60) -> str:
    """Return a value as Python writes it, on one line, its middle left out where it is long."""
    try:
        return cut(repr(value), longest)
    except ValueError:  # Python writes no integer of 4,300 digits
        return f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    except RecursionError:
        return "what is nested without end"


def shown_key(parts: Iterable[object]) -> str:
    """Return `table.key` as a message names it: a part that is no bare key as Python writes it, the whole cut."""
    return cut(".".join(part if re.fullmatch(r"[\w.-]{1,60}", part) else shown(part) for part in map(str, parts)), 120)


def cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters: of one that is longer both ends, two thirds of its beginning."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"
