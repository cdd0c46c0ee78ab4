"""Recipes that nobody would write: shipped ones with absurd values, keys and text in random places."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli
import tomli_w

DEEP = 500
VALUES: list[str] = [
    "9" * 4300,
    "-" + "9" * 5000,
    "0x" + "f" * 5000,
    "9223372036854775808",
    "-9223372036854775809",
    "9223372036854775807",
    "-1",
    "0",
    "1",
    "1e308",
    "-1e-320",
    "1e999",
    "inf",
    "nan",
    "true",
    '""',
    '"' + "a" * 300 + '"',
    '"' + "a" * 100_000 + '"',
    r'"\u0000"',
    r'"\u001b[31m\n\t\u202e"',
    '"@latest"',
    '"../../../../etc/passwd"',
    '"x:y"',
    '"ct"',
    "[]",
    "[1]",
    "[[]]",
    '["a", 1, [2]]',
    "[" * DEEP + "]" * DEEP,
    "[" * 40 + "]" * 40,
    "{}",
    "{a = 1}",
    "{a = " * DEEP + "1" + "}" * DEEP,
    "{kind = 5}",
    '{kind = "edm", x = {y = [{}]}}',
    "1979-05-27T07:32:00Z",
    "1979-05-27",
    "07:32:00",
]
KEYS = ["kind", "a" * 300, r'"\u0000"', r'"a\nb\u001b[2J"', '""', "seed", ".".join("a" * DEEP), "extends", "42", "é"]
KEYS[-1] = '"é"'
EXTENDS = ["/dev/zero", "/dev/stdin", "/", ".", "a" * 300, "\\u0000", "/proc/self/mem", "~", "nowhere/x.toml", ""]


def mutants(folder: Path, n: int, seed: int = 0) -> Iterator[bytes]:
    """Yield n mutants of the recipes of a folder, whose relatives they go on to extend."""
    chance = random.Random(seed)
    originals = sorted(folder.glob("*.toml"))
    for _ in range(n):
        path = chance.choice(originals)
        text = path.read_text(encoding="utf-8").replace('extends = "', f'extends = "{folder}/')
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            text = chance.choice((_value, _value, _value, _key, _table, _line, _extends))(text, chance)
        content = text.encode()
        yield _bytes(content, chance) if chance.random() < 0.2 else content


def _value(text: str, chance: random.Random) -> str:
    """Put another value in the place of one."""
    lines = text.splitlines()
    places = [i for i, line in enumerate(lines) if "=" in line]
    if not places:
        return text
    i = chance.choice(places)
    lines[i] = f"{lines[i].partition('=')[0]}= {chance.choice(VALUES)}"
    return "\n".join(lines) + "\n"


def _key(text: str, chance: random.Random) -> str:
    """Add a key somewhere."""
    lines = text.splitlines()
    lines.insert(chance.randint(0, len(lines)), f"{chance.choice(KEYS)} = {chance.choice(VALUES)}")
    return "\n".join(lines) + "\n"


def _table(text: str, chance: random.Random) -> str:
    """Give one table the keys of another."""
    try:
        tables: dict[str, Any] = tomli.loads(text)
    except (ValueError, RecursionError):
        return text
    names = list(tables)
    tables[chance.choice(names)] = tables[chance.choice(names)]
    try:
        return tomli_w.dumps(tables)
    except (ValueError, RecursionError):
        return text


def _line(text: str, chance: random.Random) -> str:
    """Leave a line out, or say it twice."""
    lines = text.splitlines()
    i = chance.randrange(len(lines)) if lines else 0
    return "\n".join(lines[:i] + lines[i : i + 1] * chance.choice((0, 2)) + lines[i + 1 :]) + "\n"


def _extends(text: str, chance: random.Random) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("extends")]
    return "\n".join([f'extends = "{chance.choice(EXTENDS)}"', *lines]) + "\n"


def _bytes(content: bytes, chance: random.Random) -> bytes:
    """Overwrite some bytes, or end early."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged[: chance.randint(1, len(damaged))] if chance.random() < 0.3 else damaged)
