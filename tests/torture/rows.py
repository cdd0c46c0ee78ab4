"""Damaged rows and fields in every file of a run, through every view."""

import json
import os
import random
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

from torture import _commands, _generated, _runs
from torture._attack import Attack, replaced

LOGS = ("metrics.jsonl", "profiles.jsonl", "events.jsonl")
OBJECTS = ("status.json", "meta.json", "annotations.json", "checkpoints/00000012/state.json")
OTHER = "other-20260101-000000-0001"  # a sound run beside it
VIEWS = {
    "ls": ("ls",),
    "ls --json": ("ls", "--json"),
    "show": ("show", "RUN"),
    "show --json": ("show", "RUN", "--json"),
    "watch": ("watch", "RUN"),
    "watch --plain": ("watch", "RUN", "--plain", "--past", "1000"),
    "watch --json": ("watch", "RUN", "--json"),
    "compare": ("compare", OTHER, "RUN", "--plain"),
    "compare --json": ("compare", OTHER, "RUN", "--json"),
    "compare --csv": ("compare", OTHER, "RUN", "--csv=-"),
    "filter": ("compare", "--filter", "loss<1 state:finished tag:x", "--csv=-"),
    "sample": ("sample", "RUN", "--n", "1", "--device", "cpu"),
}


class Damage(NamedTuple):
    """What is done to a file, as follows from a number."""

    file: str
    kind: str
    number: int


def cases(count: int, seed: int) -> list[Damage]:
    everything = [Damage(file, kind, 0) for kind in ROWS for file in LOGS]
    everything += [Damage(file, kind, 0) for kind in FIELDS for file in OBJECTS]
    return [everything[i * 7 % len(everything)]._replace(number=seed * 100_000 + i) for i in range(count)]


def _value(number: int) -> Any:
    chance = random.Random(number)
    plain = [
        None,
        True,
        "",
        "x",
        [],
        {},
        [1],
        {"a": 1},
        -1,
        0,
        2**63,
        -(2**70),
        1e308,
        10**400,
        0.5,
        "\x1b[2J\x07",
        "\u202e",
        "12",
    ]
    nested: Any = 1
    for _ in range(300):  # may be read by what cannot write it again
        nested = [nested]
    plain += [
        nested,
        nested,
        [[[]]],
        {"value": None, "step": "x"},
        "x" * 10_000,
        {"": {"": ""}},
        [None] * 1000,
        "\ud800",
    ]
    return chance.choice(plain) if chance.random() < 0.7 else _generated.drawn(_generated.VALUES, 20, number)[19]


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, below in inner:
        found += _paths(below, (*path, key))
    return found


def _with(value: Any, path: tuple[Any, ...], new: Any, chance: random.Random) -> Any:
    """Put something in the place of a field, or remove it, or add one beside it."""
    way = chance.randrange(8)
    at = value
    for key in path[:-1]:
        at = at[key]
    if way == 0:
        del at[path[-1]]
    elif way == 1 and isinstance(at, dict):
        at[
            chance.choice(
                ["", "\x1b]0;x\x07", "nonfinite", "step", "first_step", "segment", "abandons", "_", "x" * 3000]
            )
        ] = new
    else:
        at[path[-1]] = new
    return value


def _field(content: bytes, chance: random.Random, number: int) -> bytes:
    value = json.loads(content)
    return _text(_with(value, chance.choice(_paths(value)), _value(number), chance)) + b"\n"


def _row(content: bytes, chance: random.Random, number: int) -> bytes:
    lines = content.splitlines()
    i = chance.randrange(len(lines))
    lines[i] = _field(lines[i], chance, number).rstrip(b"\n")
    return b"\n".join(lines) + b"\n"


def _whole(content: bytes, chance: random.Random, number: int) -> bytes:
    return _text(_value(number)) + b"\n"


def _whole_row(content: bytes, chance: random.Random, number: int) -> bytes:
    lines = content.splitlines()
    lines.insert(chance.randrange(len(lines) + 1), _text(_value(number)))
    return b"\n".join(lines) + b"\n"


def _byte(content: bytes, chance: random.Random, number: int) -> bytes:
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 5, 50))):
        found[chance.randrange(len(found))] = chance.randrange(256)
    return bytes(found)


def _cut(content: bytes, chance: random.Random, number: int) -> bytes:
    return content[: chance.randrange(len(content))]


def _mixed(content: bytes, chance: random.Random, number: int) -> bytes:
    lines = content.splitlines(keepends=True)
    chance.shuffle(lines)
    return b"".join(lines + lines[:2])


def _pasted(content: bytes, chance: random.Random, number: int) -> bytes:
    odd = [
        b"\x00" * 4096,
        b"[" * 5000,
        b'{"a":' * 5000,
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"NaN",
        b"{}{}",
        b"\r\n" * 9,
        b'{"step":1e400}\n',
    ]
    at = chance.randrange(len(content))
    return content[:at] + chance.choice(odd) + content[at:]


Change = Callable[[bytes, random.Random, int], bytes]
FIELDS: dict[str, Change] = {
    "a field": _field,
    "another field": _field,
    "whole": _whole,
    "bytes": _byte,
    "cut": _cut,
    "pasted": _pasted,
}
ROWS: dict[str, Change] = {
    "a field of a row": _row,
    "a field of another row": _row,
    "a row": _whole_row,
    "mixed": _mixed,
}
ROWS |= {"bytes": _byte, "cut": _cut, "pasted": _pasted}


def check(case: Damage) -> str:
    chance = random.Random(case.number)
    with _commands.workplace(_runs.templates() / "finished") as folder, _commands.inside(folder):
        os.environ["COLUMNS"] = "200"
        run = folder / "runs" / _runs.RUN
        (run / "annotations.json").write_text('{"schema": 1, "note": "a note", "tags": ["x"]}')
        shutil.copytree(run, folder / "runs" / OTHER)
        change = (ROWS if case.file in LOGS else FIELDS)[case.kind]
        (run / case.file).write_bytes(change((run / case.file).read_bytes(), chance, case.number))
        for path in (run, run / "status.json"):
            os.utime(path, (0, 0))  # long silent: nobody need wait for its trainer
        for name, arguments in VIEWS.items():
            if wrong := _viewed(name, arguments):
                return f"{name}: {wrong}"
    return ""


def _viewed(name: str, arguments: tuple[str, ...]) -> str:
    names = {"RUN": f"runs/{_runs.RUN}", OTHER: f"runs/{OTHER}"}
    ended = _commands.captured([names.get(part, part) for part in arguments])
    of_all = name.startswith(("ls", "filter", "compare"))
    if wrong := _commands.complaint(ended, {0} if of_all else {0, 2, 4}):
        return wrong
    return "" if not of_all or OTHER in ended.out else "the sound run beside it is not there"


def spoilt():
    """Let a table take what status.json says."""
    from cmbench.rundir import status

    return replaced(
        status, "judged", lambda run, written: {"state": "starting", "step": 0, "heartbeat": 0.0, **written}
    )


ATTACK = Attack(
    "rows",
    "A field of another type, a damaged row or a damaged file of one run is passed over: every view shows the rest.",
    tries=1_200,
    short=6,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="exit code 1",
    together=True,
    seconds=120.0,
)
