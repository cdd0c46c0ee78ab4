"""Makes foreign text harmless: characters that act on a terminal, or are invisible there, become visible signs.

Names, notes, recipe values and journals may contain anything. The dashboard and the command line show them by `plain`.
JSON and TOML, which are data, contain the same characters as escapes.
"""

import re
import unicodedata
from collections.abc import Iterable

_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421, 0x09: 0x20}  # ␀ to ␟, ␡; a tab: a space
# Letters and marks that show nothing: fillers of Hangul and Khmer, the joiner of graphemes, selectors of variants.
_BLANK = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0}
_BLANK |= {*range(0xFE00, 0xFE10), *range(0xE0000, 0xE1000)}
_WORD, _LONGEST = 160, 480  # most characters of a message, and of its words if it is longer


def _acts(code: int) -> bool:
    """Return whether a character is a control, a direction mark, a line separator, a lone surrogate, or invisible."""
    return unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") or code in _BLANK


class _Signs(dict[int, int | str]):
    """The replacement of each character, found when the character first occurs."""

    def __missing__(self, code: int) -> int | str:
        self[code] = sign = "\ufffd" if _acts(code) else code
        return sign


class _Escapes(dict[int, int | str]):
    """The same with the escapes of JSON, or of TOML, which has no surrogate pairs; line feeds stay."""

    def __init__(self, pairs: bool) -> None:
        super().__init__({0x0A: 0x0A})
        self._pairs = pairs

    def __missing__(self, code: int) -> int | str:
        self[code] = sign = self._escape(code) if _acts(code) else code
        return sign

    def _escape(self, code: int) -> str:
        if 0xD800 <= code < 0xE000:  # a lone surrogate: strict readers refuse it
            return "\ufffd"
        if code < 0x10000:
            return f"\\u{code:04x}"
        low, high = code - 0x10000 & 0x3FF, code - 0x10000 >> 10
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}" if self._pairs else f"\\U{code:08x}"


_SIGNS = _Signs(_PICTURES)
_JSON, _TOML = _Escapes(pairs=True), _Escapes(pairs=False)


def plain(text: object) -> str:
    """Return a text on one line, with a visible sign for every control character, so that none acts on the terminal.

    C0 controls become their Unicode pictures (escape is ␛). C1 controls, marks that change the writing direction, line
    separators, unpaired surrogates and invisible characters become �; a tab becomes a space.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():  # the usual case, a thousand times per table
        return shown
    return shown.translate(_SIGNS)


def plain_lines(text: str) -> str:
    """Return a text as `plain` does, but keep its line feeds."""
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
    """Return a value as Python writes it, on one line, without its middle if it is long."""
    try:
        return cut(repr(value), longest)
    except ValueError:  # Python does not print an integer of 4,300 digits
        return f"an integer of {value.bit_length():,} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    except RecursionError:
        return "an endlessly nested value"


def shown_key(parts: Iterable[object]) -> str:
    """Return `table.key` for a message: parts that are not bare keys as Python writes them, the whole cut."""
    return cut(".".join(part if re.fullmatch(r"[\w.-]{1,60}", part) else shown(part) for part in map(str, parts)), 120)


def cut(text: str, most: int) -> str:
    """Return a text of at most `most` characters; a longer one keeps both ends, two thirds from its beginning."""
    tail = most // 3
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"
