"""Mutated recipes: values of every type and size under the known keys, and the files themselves, cut and mixed."""

import random
import re
from pathlib import Path
from typing import NamedTuple

import tomli
import tomli_w
from hypothesis import strategies as st
from tiny import TINY

from torture import _commands, _generated
from torture._attack import Attack, replaced

BATCH = 50  # recipes of one command
ROOT = Path(__file__).parents[2] / "recipes"
KEYS = [(table, key) for table, keys in tomli.loads(TINY).items() if isinstance(keys, dict) for key in keys]
MORE = [
    "P_mean",
    "huber_c",
    "s_0",
    "s_1",
    "rho",
    "betas",
    "clip",
    "decay",
    "warmup",
    "keep",
    "metrics",
    "run",
    "ema",
    "dropout",
]
LITERALS = (
    [
        "1e400",
        "-1e400",
        "nan",
        "-inf",
        "0",
        "-1",
        "9" * 4301,
        "1e" + "9" * 400,
        "0x" + "f" * 5000,
        "0b101",
        "1979-05-27",
    ]
    + ["07:32:00", "1979-05-27T07:32:00Z", "[]", "[[]]", "{}", '""', "'''\n'''", "true", '"\\u0000"', '"\\u202e"']
    + ["[" * depth + "]" * depth for depth in (10, 400, 401, 3000)]
    + ["{a=" * depth + "1" + "}" * depth for depth in (10, 400, 3000)]
    + ['"' + "n" * 300 + '"', '"' + "/" * 5000 + '"', '"\\U0010FFFF"', '".."', '"/dev/zero"', '"/dev/tty"', '"x:y"']
)
LINES = [
    'extends = "/dev/zero"',
    'extends = "/proc/self/mem"',
    'extends = "."',
    'extends = ""',
    'extends = "tiny.toml"',
    'extends = "\\u0000"',
    f'extends = "{"x" * 5000}"',
    'extends = ["a"]',
    f'name = "{"n" * 65}"',
    "[" + ".".join("abc" * 300) + "]",
    "a." * 1500 + "b = 1",
    "[[train]]",
    "[train.steps]",
    "[data]",
    "\ufeff",
    "\x00",
    "= 1",
    "[" * 5000,
    f"{'k' * 100000} = 1",
]


class Batch(NamedTuple):
    """Recipes that follow from a number."""

    number: int


def cases(count: int, seed: int) -> list[Batch]:
    return [Batch(seed * 1_000_000 + i) for i in range(count)]


def mutants(number: int) -> list[bytes]:
    """Return the recipes of a batch: a third of them by hypothesis, value by value, the rest from texts."""
    chance = random.Random(number)
    third = BATCH // 3
    changes = st.lists(
        st.tuples(st.sampled_from([*KEYS, *((t, k) for t, _ in KEYS for k in MORE)]), _generated.VALUES),
        min_size=1,
        max_size=3,
    )
    found = [_with_values(given) for given in _generated.drawn(changes, third, number)]
    return found + [_mutated(chance) for _ in range(BATCH - third)]


def _with_values(given: list) -> bytes:
    tables = tomli.loads(TINY)
    for (table, key), value in given:
        tables[table][key] = value
    try:
        return tomli_w.dumps(tables).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError):  # what TOML cannot hold
        return repr(tables).encode("utf-8", "surrogatepass")


def _mutated(chance: random.Random) -> bytes:
    sources = [TINY, *(path.read_text() for path in chance.sample(sorted(ROOT.glob("*.toml")), 1))]
    lines = chance.choice(sources).splitlines()
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        i = chance.randrange(len(lines))
        way = chance.randrange(7)
        if way == 0 and "=" in lines[i]:
            lines[i] = f"{lines[i].split('=')[0]}= {chance.choice(LITERALS)}"
        elif way == 1:
            lines.insert(chance.choice((0, i)), chance.choice(LINES))
        elif way == 2:
            lines.insert(i, chance.choice(lines))
        elif way == 3:
            del lines[i]
        elif way == 4 and "=" in lines[i]:
            lines[i] = re.sub(r"^\w+", lambda m: m[0][:-1] + chance.choice("xyz_-. "), lines[i])
        elif way == 5:
            lines[i] = lines[i].replace('"', chance.choice(("'", "", '"""', "\\")))
        lines = lines or [""]
    text = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    for _ in range(chance.choice((0, 0, 1, 3))):
        text[chance.randrange(len(text) or 1) : chance.randrange(len(text) or 1) + 1] = bytes([chance.randrange(256)])
    return bytes(text[: chance.randrange(len(text) or 1)]) if chance.random() < 0.05 else bytes(text)


def check(case: Batch) -> str:
    with _commands.workplace() as folder, _commands.inside(folder):
        names = []
        for i, content in enumerate(mutants(case.number)):
            names.append(f"{i:02}.toml")
            (folder / names[-1]).write_bytes(content)
        wrong = _checked(names)
        if not wrong:
            return ""
        alone = ((name, _checked([name])) for name in names)
        name, wrong = next(((name, told) for name, told in alone if told), ("all together", wrong))
        return f"{name}: {wrong}; {_shown(folder / name)}"


def _checked(names: list[str]) -> str:
    """Check recipes with one command: a line for each, of bounded length, exit code 2 if one is refused."""
    ended = _commands.captured(["recipe", "check", *names])
    lines = ended.err.strip("\n").split("\n") if ended.err.strip() else []
    if wrong := _commands.complaint(ended._replace(err="\n".join(lines[:1])), {0, 2}):
        return wrong
    for line in lines:
        if wrong := _commands.complaint(_commands.Ended(2, "", f"{line}\n")):
            return wrong
    if len(lines) + ended.out.count(": ok\n") != len(names):
        return f"{len(lines)} complaints and {ended.out.count(': ok')} ok, of {len(names)} recipes"
    return "" if ended.code == (2 if lines else 0) else f"exit code {ended.code} with {len(lines)} complaints"


def _shown(path: Path) -> str:
    return ascii(path.read_bytes()[:300]) if path.is_file() else ""


def spoilt():
    """Let a check end otherwise where a value is too much for it."""
    from cmbench import recipe

    load = recipe.load

    def wrong(path, overrides=()):
        if len(path.read_bytes()) % 7 == 0:
            raise RecursionError("maximum recursion depth exceeded")
        return load(path, overrides)

    return replaced(recipe, "load", wrong)


ATTACK = Attack(
    "recipes",
    "Whatever a recipe holds, it is accepted, or refused with exit code 2 and one line of bounded length.",
    tries=30_000,
    short=50,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="exit code 1",
    size=BATCH,
    together=True,
    seconds=120.0,
)
