"""Checkpoints that are damaged, forged, incomplete, in each other's place, or called what no checkpoint is."""

import hashlib
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from torture import _commands, _runs
from torture._attack import Attack, replaced
from torture._commands import complaint

TRIES = 96


class Damage(NamedTuple):
    """What is done to the newest checkpoint, or to all of them."""

    kind: str
    everywhere: bool
    seed: int


def _a_file(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(path for path in folder.iterdir() if path.is_file()))


def _tensors(folder: Path, chance: random.Random) -> Path:
    return chance.choice(sorted(folder.glob("*.safetensors")))


def _bit(folder: Path, chance: random.Random) -> None:
    path = _a_file(folder, chance)
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _cut(folder: Path, chance: random.Random) -> None:
    path = _a_file(folder, chance)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def _longer(folder: Path, chance: random.Random) -> None:
    path = _a_file(folder, chance)
    path.write_bytes(path.read_bytes() + bytes(chance.randrange(1, 4096)))


def _gone(folder: Path, chance: random.Random) -> None:
    _a_file(folder, chance).unlink()


def _swapped(folder: Path, chance: random.Random) -> None:
    a, b = chance.sample(sorted(folder.glob("*.safetensors")), 2)
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)


def _zeros(folder: Path, chance: random.Random) -> None:
    path = _a_file(folder, chance)
    path.write_bytes(bytes(path.stat().st_size))


def _state(change: Callable[[dict, random.Random], object]) -> Callable[[Path, random.Random], None]:
    def alter(folder: Path, chance: random.Random) -> None:
        state = json.loads((folder / "state.json").read_text())
        change(state, chance)
        (folder / "state.json").write_text(json.dumps(state))

    return alter


def _drop_entry(state: dict, chance: random.Random) -> None:
    del state["sha256"][chance.choice([name for name in state["sha256"] if name != "model"])]


def _another_step(state: dict, chance: random.Random) -> None:
    state["step"] = chance.choice([0, 3, 11, -1, 10**30, "9", None, 9.5, True])


def _odd_entry(state: dict, chance: random.Random) -> None:
    name = chance.choice(list(state["sha256"]))
    state["sha256"][name] = chance.choice([None, 5, [], {}, "", "x" * 64, True])


def _odd_field(state: dict, chance: random.Random) -> None:
    state[chance.choice(["sha256", "schema", "step"])] = chance.choice([None, [], "x", 1e300, {}, -1, True])


def _append_nested(path: Path) -> None:
    """Add a field of 300 levels, which may be read by what cannot write it again."""
    whole = json.dumps(json.loads(path.read_bytes())).removesuffix("}")
    path.write_text(whole + ', "x": ' + "[" * 300 + "]" * 300 + "}")


def _stray_entry(state: dict, chance: random.Random) -> None:
    name = chance.choice(["../../../../tmp/x", "/etc/passwd", "a/b", "\x1b[2J", "ema_0.7", "é" * 300])
    state["sha256"][name] = "0" * 64


def _forged(change: Callable[[Path, random.Random], object]) -> Callable[[Path, random.Random], None]:
    """Change a file of tensors and put its checksum right, as far as state.json itself allows."""

    def forge(folder: Path, chance: random.Random) -> None:
        path = _tensors(folder, chance)
        change(path, chance)
        state = json.loads((folder / "state.json").read_text())
        state["sha256"][path.stem] = hashlib.sha256(path.read_bytes()).hexdigest()
        (folder / "state.json").write_text(json.dumps(state))

    return forge


def _header(path: Path, chance: random.Random) -> None:
    huge = {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 2**62]}
    overlapping = {name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}
    headers = [{"a": huge}, overlapping, {"a": {"dtype": "X9", "shape": [-1], "data_offsets": [4, 0]}}, [], {"a": None}]
    text = json.dumps(chance.choice(headers)).encode()
    length = chance.choice([len(text), 2**63, 2**64 - 1, 0, 10**8, len(text) + 9])
    path.write_bytes(struct.pack("<Q", length) + text + bytes(16))


def _nested(path: Path, chance: random.Random) -> None:
    text = b'{"a":' * 10**5
    path.write_bytes(struct.pack("<Q", len(text)) + text)


def _shape(path: Path, chance: random.Random) -> None:
    tensors = load_file(path)
    name = chance.choice(sorted(tensors))
    other = [torch.zeros(3, 5, 7), torch.zeros(0), tensors[name].reshape(-1)[:1].clone(), torch.zeros(())]
    save_file({**tensors, name: chance.choice(other)}, path)


def _dtype(path: Path, chance: random.Random) -> None:
    to = chance.choice([torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8])
    save_file({name: tensor.to(to) for name, tensor in load_file(path).items()}, path)


def _names(path: Path, chance: random.Random) -> None:
    tensors = load_file(path)
    tensors.pop(chance.choice(sorted(tensors)))
    save_file({**tensors, chance.choice(["", "a.b.c", "\x1b[2J", "../x"]): torch.zeros(2)}, path)


def _not_finite(path: Path, chance: random.Random) -> None:
    save_file({"a": torch.full((4,), float("nan"))}, path)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit": _bit,
    "cut off": _cut,
    "longer": _longer,
    "a file gone": _gone,
    "two files swapped": _swapped,
    "zeros": _zeros,
    "an entry of state.json gone": _state(_drop_entry),
    "another step in state.json": _state(_another_step),
    "an odd entry of state.json": _state(_odd_entry),
    "an odd field of state.json": _state(_odd_field),
    "a stray entry of state.json": _state(_stray_entry),
    "a nested field of state.json": lambda folder, _: _append_nested(folder / "state.json"),
    "an absurd header": _forged(_header),
    "a nested header": _forged(_nested),
    "another shape": _forged(_shape),
    "another dtype": _forged(_dtype),
    "other names": _forged(_names),
    "not finite": _forged(_not_finite),
    "another step's folder": lambda folder, _: _replace(folder, folder.parent / "00000005"),
    "beside odd folders": lambda folder, _: _odd_folders(folder.parent),
    "of an older version": lambda folder, _: (folder / "of-old.bin").write_bytes(b"?"),
}


def _replace(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def _odd_folders(checkpoints: Path) -> None:
    for name in ("²", "7", "٣", "1" * 200, "00000099 ", "99999999999999999999", "-1", "[0-9]", "\udcff", "abandoned"):
        (checkpoints / name).mkdir(exist_ok=True)


def cases(count: int, seed: int) -> list[Damage]:
    kinds = list(DAMAGES)
    return [Damage(kinds[i % len(kinds)], i // len(kinds) % 3 == 2, seed + i) for i in range(count)]


def check(case: Damage) -> str:
    chance = random.Random(case.seed)
    with _commands.workplace(_runs.templates() / "stopped") as folder:
        run = folder / "runs" / _runs.RUN
        steps = sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())
        for step in steps if case.everywhere else steps[-1:]:
            if step.exists() and not (case.kind == "another step's folder" and step.name == "00000005"):
                DAMAGES[case.kind](step, chance)
        for command in (("show", str(run)), ("sample", str(run), "--device", "cpu"), ("ls",)):
            if wrong := complaint(_commands.cmbench(folder, *command, "--json"), {0, 2, 4}):
                return f"{command[0]}: {wrong}"
        ended = _runs.resume(folder, run)
        codes = {0, 2, 4} if case.everywhere else {0}
        if wrong := complaint(ended, codes):
            return f"resume: {wrong}"
        return _runs.difference(run) if ended.code == 0 else ""


def spoilt():
    """Read tensors without a look at their checksum."""
    from cmbench.engine import checkpoint

    read = checkpoint.read_tensors
    return replaced(checkpoint, "read_tensors", lambda path, sha256=None: read(path))


ATTACK = Attack(
    "checkpoints",
    "A damaged checkpoint is noticed and passed over for the newest whole one, and never leads to other numbers; where "
    "none is whole, one line says so.",
    tries=TRIES,
    short=3,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="differs from an unbroken run",
)
