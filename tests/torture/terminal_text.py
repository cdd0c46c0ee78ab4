"""Hostile names, notes, values, journals and arguments, on a pseudo-terminal that takes whatever is printed."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cmbench.rundir import status
from torture import _commands, _processes, _runs
from torture._attack import Attack, replaced

# A title, a colour that nobody else uses, a cleared screen, C1, text turned around, backspace, line separators.
EVIL = "a\x1b]0;OWNED\x07b\x1b[38;5;201mc\x1b[2J\x9b31m\u202ed\u2066e\x08\x7f\x85\u2028f\r\n[bold]g"
NAME = EVIL.replace("/", "")
# What a command may print: styles, line ends, and a line that turns while one waits.
OWN = re.compile(r"\x1b\[[0-9;]*m|\r\n|\t|\n|\x1b\[\?25[hl]|\r?\x1b\[1A|\r?\x1b\[2K|\r(?=\x1b\[2K)")
STYLE = "\x1b[38;5;201m"
HOSTILE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\udc80-\udcff]")
PATIENCE = 90.0

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ls",),
    ("ls", "--json"),
    ("show", "NAMED"),
    ("show", "NAMED", "--json"),
    ("watch", "NAMED", "--plain", "--past", "999"),
    ("watch", "NAMED", "--json"),
    ("compare", "NAMED", "SOUND", "--plain"),
    ("compare", "NAMED", "SOUND", "--json"),
    ("compare", "NAMED", "SOUND", "--csv=-"),
    ("compare", "NAMED", "SOUND", "--plain", "--ascii"),
    ("compare", "SOUND", "NAMED", "--fail-if", "loss < 1e9"),
    ("compare", "NAMED", "SOUND", "--fail-if", "EVIL"),
    ("compare", "NAMED", "SOUND", "--reach", "loss=EVIL"),
    ("compare", "NAMED", "SOUND", "--metric", "EVIL"),
    ("compare", "--filter", "EVIL", "--plain"),
    ("compare", "--filter", "tag:EVIL loss<1", "--plain"),
    ("sample", "NAMED", "--n", "4"),
    ("sample", "NAMED", "--n", "4", "--json"),
    ("sample", "NAMED", "--ema", "EVIL"),
    ("sample", "NAMED", "--sigmas", "EVIL"),
    ("sample", "NAMED", "--device", "EVIL"),
    ("sample", "NAMED", "--n", "EVIL"),
    ("sample", "NAMED", "--n", "4", "--out", "EVIL/EVIL/\udcff.png"),
    ("eval", "NAMED", "--n", "32", "--repeats", "1", "--steps", "1"),
    ("eval", "NAMED", "--n", "32", "--measures", "EVIL"),
    ("eval", "NAMED", "--n", "32", "--features", "EVIL"),
    ("stop", "NAMED"),
    ("stop", "LIVE", "--timeout", "0.3"),
    ("stop", "EVIL"),
    ("pause", "LIVE", "--timeout", "0.3"),
    ("continue", "LIVE", "--timeout", "0.3"),
    ("checkpoint", "LIVE", "--timeout", "0"),
    ("snapshot", "EVIL"),
    ("set", "LIVE", "EVIL=1"),
    ("set", "LIVE", "optimizer.lr=EVIL"),
    ("resume", "NAMED", "--foreground"),
    ("resume", "LIVE", "--foreground"),
    ("resume", "BROKEN", "--foreground"),
    ("resume", "BROKEN", "--foreground", "--set", "EVIL=1"),
    ("resume", "BROKEN", "--foreground", "--checkpoint", "EVIL"),
    ("show", "BROKEN"),
    ("show", "EVIL"),
    ("show", "\udcff\udcfe"),
    ("recipe", "list"),
    ("recipe", "check", "recipes/EVIL.toml"),
    ("recipe", "check", "EVIL"),
    ("recipe", "show", "recipes/EVIL.toml"),
    ("recipe", "show", "tiny.toml", "--set", "EVIL=1"),
    ("recipe", "show", "tiny.toml", "--set", "data.name=EVIL"),
    ("recipe", "EVIL"),
    ("run", "EVIL", "--foreground"),
    ("run", "tiny.toml", "--foreground", "--set", "name=EVIL"),
    ("run", "tiny.toml", "--foreground", "--set", "network={kind='EVIL:X'}"),
    ("run", "tiny.toml", "--foreground", "--runs-dir", "tiny.toml/EVIL"),
    ("ablate", "tiny.toml", "--drop", "EVIL"),
    ("doctor", "EVIL"),
    ("bench", "EVIL"),
    ("lab", "EVIL"),
    ("serve", "EVIL"),
    ("EVIL",),
    ("--EVIL",),
)


class Call(NamedTuple):
    """A command, by its place in the list."""

    number: int
    command: tuple[str, ...]


def cases(count: int, seed: int) -> list[Call]:
    return [Call(i, COMMANDS[i]) for i in ((seed + j * 7) % len(COMMANDS) for j in range(count))]


def check(case: Call) -> str:
    with _commands.workplace(_runs.templates() / "finished") as folder:
        names = _lay(folder)
        arguments = [names.get(part, part.replace("EVIL", EVIL)) for part in case.command]
        code, sent = _on_terminal(folder, arguments)
    text = sent.decode("utf-8", "surrogateescape")
    if code is None:
        return f"hung: {text[-200:]!a}"
    if code not in (*_commands.CODES, 1) or "CMBENCH_DEBUG" in text or "Traceback" in text:
        return f"not foreseen, exit code {code}: {text[-300:]!a}"
    if STYLE in text:
        return "printed a style of theirs"
    if found := HOSTILE.search(OWN.sub("", text)):
        at = OWN.sub("", text)
        return f"printed {found[0]!a} in {at[max(0, found.start() - 40) : found.end() + 20]!a}"
    return ""


def _lay(folder: Path) -> dict[str, str]:
    """Make runs full of hostile text, and return what each is called."""
    runs = folder / "runs"
    sound, named, live, broken = (runs / _runs.RUN, runs / f"n{NAME}", runs / f"l{NAME}", runs / f"b{NAME}")
    for run in (named, live, broken):
        shutil.copytree(sound, run)
        _fill(run)
    now = json.loads((live / "status.json").read_text())
    (live / "status.json").write_text(
        json.dumps({**now, **status.owner(), "state": "running", "heartbeat": time.time()})
    )
    (broken / "status.json").write_text(json.dumps({**now, "state": "stopped"}))
    recipe = (broken / "recipe.toml").read_text()
    (broken / "recipe.toml").write_text(recipe.replace('name = "ring"', f"name = {json.dumps(EVIL)}"))
    for name in ("not \udcff utf8", "x[bold]y"):
        shutil.copytree(sound, runs / name)
    (folder / "recipes").mkdir()
    text = (folder / "tiny.toml").read_text()
    (folder / "recipes" / f"{NAME}.toml").write_text(text.replace('"ring"', json.dumps(EVIL)))
    (folder / "recipes" / f"2{NAME}.toml").write_text(text)
    return {"NAMED": str(named), "LIVE": str(live), "BROKEN": str(broken), "SOUND": str(sound)}


def _fill(run: Path) -> None:
    (run / "annotations.json").write_text(json.dumps({"note": EVIL, "tags": [EVIL, "x"]}))
    meta = json.loads((run / "meta.json").read_text())
    evil = dict.fromkeys(("device", "host", "directory"), EVIL)
    teacher = {"teacher": {"recipe": EVIL, "step": 1, "ema": EVIL}}
    (run / "meta.json").write_text(json.dumps({**meta, **evil, **teacher, "argv": [EVIL], "versions": {"torch": EVIL}}))
    now = json.loads((run / "status.json").read_text())
    last, best = {**now["last"], EVIL: 1.0}, {**now["best"], EVIL: {"value": 0.5, "step": 6}}
    (run / "status.json").write_text(json.dumps({**now, "last": last, "best": best}))
    base = {"segment": 1, "step": 12, "time": 1.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**base, EVIL: 1.5, "loss": 0.5, "note": EVIL}) + "\n")
    with (run / "events.jsonl").open("a") as file:
        for row in (
            {"kind": "warning", "text": EVIL},
            {"kind": EVIL},
            {"kind": "failed", "error": EVIL},
            {"kind": "request", "id": EVIL, "action": EVIL, "result": EVIL, "settings": {EVIL: EVIL}},
            {"kind": "request", "id": "1", "action": "set", "result": "done", "settings": {EVIL: EVIL}},
            {"kind": "snapshot", "files": [EVIL]},
            {"kind": "checkpoint", "folder": EVIL, "best": True},
            {"kind": "stopped", "reason": EVIL},
        ):
            file.write(json.dumps({**base, **row}) + "\n")
    (run / "snapshots" / f"00000012_1step{NAME}.png").write_bytes(b"")
    (run / "checkpoints" / NAME).mkdir()


def _on_terminal(folder: Path, arguments: Sequence[str]) -> tuple[int | None, bytes]:
    """Run a command on a terminal of its own, and return its exit code and all that it sent."""
    end, slave = pty.openpty()
    environment = {**_commands.environment(folder), "COLUMNS": "120", "LINES": "40"}
    sent, deadline = b"", time.monotonic() + PATIENCE
    pid = _processes.start(lambda: _commands.call(arguments), (slave, slave), folder, environment, None, stdin=slave)
    os.close(slave)
    with contextlib.suppress(OSError):  # the other side is closed
        while time.monotonic() < deadline:
            if select.select([end], [], [], 0.2)[0]:
                if not (new := os.read(end, 1 << 16)):
                    break
                sent += new
    status_of = _processes.wait(pid, max(0.5, deadline - time.monotonic()))
    os.close(end)
    return None if status_of is None else os.waitstatus_to_exitcode(status_of), sent


def spoilt():
    """Let a message reach the terminal as it is."""
    from cmbench.cli import main

    run = main.main

    def wrong() -> None:
        for argument in sys.argv[1:]:
            sys.stdout.write(argument)
        sys.stdout.flush()
        run()

    return replaced(main, "main", wrong)


ATTACK = Attack(
    "terminal_text",
    "Nothing that others wrote moves a cursor, rings a bell, colours, clears or turns text around on a terminal.",
    tries=len(COMMANDS),
    short=8,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="printed",
)
