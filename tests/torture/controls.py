"""Garbage, floods and other people's files in the folder of requests of a run that trains."""

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _runs
from torture._attack import Attack, replaced
from torture._operations import Operation

TIME = 1_764_375_000_000_000_000


class Garbage(NamedTuple):
    """What lies in control/, and whether from the start or before the operation of a number."""

    kind: str
    number: int


def _request(control: Path, content: bytes, number: int = 0) -> Path:
    path = control / f"{TIME + number}-ab12.json"
    path.write_bytes(content)
    return path


def _json(*values: object) -> Callable[[Path], None]:
    def lay(control: Path) -> None:
        for i, value in enumerate(values):
            _request(control, json.dumps(value).encode(), i)

    return lay


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda control: _request(control, content) and None


def _flood(control: Path) -> None:
    for i in range(500):
        _request(control, b'{"action": "explode"}', i)


def _fifo(control: Path) -> None:
    os.mkfifo(control / f"{TIME}-ab12.json")


def _folder(control: Path) -> None:
    (control / f"{TIME}-ab12.json").mkdir()


def _link(target: str) -> Callable[[Path], None]:
    return lambda control: (control / f"{TIME}-ab12.json").symlink_to(target)


def _unreadable(control: Path) -> None:
    path = _request(control, b"of somebody else")
    path.chmod(0)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)


GARBAGE: dict[str, Callable[[Path], None]] = {
    "no JSON": _bytes(b"stop"),
    "nothing": _bytes(b""),
    "bytes": _bytes(bytes(range(256))),
    "nested": _bytes(b'{"a":' * 20_000),
    "nested, and whole": _bytes(b'{"action":"set","settings":{"a":' + b"[" * 300 + b"]" * 300 + b"}}"),
    "20 MB": _bytes(b'{"action":"' + b"x" * (20 << 20) + b'"}'),
    "a list": _json([1, 2]),
    "odd actions": _json({"action": None}, {"action": ["stop"]}, {"action": {"stop": 1}}, {"action": "stop\x1b[2J"}),
    "odd settings": _json(*({"action": "set", "settings": s} for s in (None, [], 5, {}, {"": ""}, {"train.steps": 9}))),
    "settings that are refused": _json(
        *({"action": "set", "settings": {"optimizer.lr": v}} for v in ("x", None, -1, 1e300, [], {}, True, 10**400))
    ),
    "odd ids": _json({"id": "../../../x", "action": "nothing"}, {"id": None, "action": 5}, {"id": {}, "action": ""}),
    "a flood": _flood,
    "a FIFO": _fifo,
    "a folder": _folder,
    "a link to a device": _link("/dev/zero"),
    "a link to itself": _link(f"{TIME}-ab12.json"),
    "a link to somebody's file": _link("../../../tiny.toml"),
    "unreadable": _unreadable,
    "a hostile name": lambda control: (
        (control / f"{TIME}-\x1b[2J\u202e.json").write_bytes(b'{"action":"stop"}') and None
    ),
}
THEIRS = {
    "README": b"hello",
    ".hidden": b"x",
    "2024 plans.json": b'{"action": "stop"}',
    "7.json": b"[]",
    ".x.tmp": b"y",
}


def cases(count: int, seed: int) -> list[Garbage]:
    chance, kinds = random.Random(seed), list(GARBAGE)
    numbers = _runs.in_training("killed")
    return [Garbage(kinds[i % len(kinds)], chance.choice((0, chance.choice(numbers)))) for i in range(count)]


def check(case: Garbage) -> str:
    with _commands.workplace(_runs.templates() / "killed") as folder:
        run = folder / "runs" / _runs.RUN
        control, tiny = run / "control", (folder / "tiny.toml").read_bytes()

        def lay() -> None:
            for name, content in THEIRS.items():
                (control / name).write_bytes(content)
            GARBAGE[case.kind](control)

        def late(operation: Operation) -> None:
            if operation.number == case.number:
                lay()
            if case.number and abs(operation.number - case.number) < 40:
                time.sleep(0.01)  # looks are a quarter of a second apart

        if not case.number:
            lay()
        ended = _runs.resume(folder, run, late)
        if wrong := _commands.complaint(ended, {0}):
            return wrong
        if wrong := _runs.difference(run):
            return wrong
        left = {name: (control / name).read_bytes() for name in THEIRS if (control / name).exists()}
        touched = [name for name in THEIRS if left.get(name) != THEIRS[name]]
        if (folder / "tiny.toml").read_bytes() != tiny:
            touched.append("tiny.toml")
        if touched:
            return f"not ours, and touched: {', '.join(touched)}"
        for command in ("show", "ls"):
            if wrong := _commands.complaint(_commands.cmbench(folder, command), {0}):
                return f"{command}: {wrong}"
    return ""


def spoilt():
    """Let what is refused have a part in the weights."""
    from cmbench.engine.requests import Requests

    refuse = Requests.refuse

    def wrong(self, why):
        for parameter in self._runner.trainer.state.model.parameters():
            parameter.data.mul_(1.0001)
        return refuse(self, why)

    return replaced(Requests, "refuse", wrong)


ATTACK = Attack(
    "controls",
    "Whatever lies among the requests to a run is refused or passed over, the run goes on to the same end, and what is "
    "not a request stays where it is.",
    tries=2 * len(GARBAGE),
    short=2,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="differs from an unbroken run",
)
