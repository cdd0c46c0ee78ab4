"""Twenty viewers on one run, from its first file to its last."""

import time
from pathlib import Path
from typing import NamedTuple

from torture import _commands, _processes, _runs
from torture._attack import Attack, replaced

VIEWERS = 20
COMMANDS = (
    ("ls",),
    ("ls", "--json"),
    ("show", "RUN"),
    ("watch", "RUN", "--plain"),
    ("watch", "RUN"),
    ("watch", "RUN", "--json"),
)


class Crowd(NamedTuple):
    """Viewers of one run."""

    number: int


def cases(count: int, seed: int) -> list[Crowd]:
    return [Crowd(seed + i) for i in range(count)]


def check(case: Crowd) -> str:
    with _commands.workplace() as folder:
        runs, log = folder / "runs", folder / "log"
        with log.open("wb") as out:
            streams = (out.fileno(), out.fileno())
            trainer = _processes.start(lambda: _slow(folder), streams, folder, _commands.environment(folder))
            deadline = time.monotonic() + 60
            while not _runs.runs_of(runs) and time.monotonic() < deadline:
                time.sleep(0.01)
            (run,) = _runs.runs_of(runs)
            crowd = [_viewer(folder, run, case.number + i) for i in range(VIEWERS)]
            codes = [_processes.wait(pid, 120) for pid, _ in crowd]
            trained = _processes.wait(trainer, 120)
        if trained != 0:
            return f"the trainer ended with {trained}: {log.read_text()[-300:]}"
        wrong = [file.read_text()[-300:] for code, (_, file) in zip(codes, crowd, strict=True) if code != 0]
        if wrong:
            return f"{len(wrong)} viewers ended otherwise than with 0: {wrong[0]}"
        return _runs.difference(run)


def _slow(folder: Path) -> None:
    """Train, slowly enough for others to look."""
    from torture import _operations

    _operations.watch(folder / "runs", lambda operation: time.sleep(0.01))
    _commands.call(_runs.TRAIN)


def _viewer(folder: Path, run: Path, number: int) -> tuple[int, Path]:
    """Look again and again until the run is over."""
    log = folder / f"viewer{number}"
    arguments = [part.replace("RUN", str(run)) for part in COMMANDS[number % len(COMMANDS)]]

    def look() -> None:
        over = False
        while not over:
            over = b'"finished"' in (run / "status.json").read_bytes()
            if code := _processes.exit_code(lambda: _commands.call(arguments)):
                raise SystemExit(code)

    with log.open("wb") as out:
        pid = _processes.start(look, (out.fileno(), out.fileno()), folder, _commands.environment(folder))
    return pid, log


def spoilt():
    """Let a viewer lay hands on the run."""
    from cmbench.rundir import status

    read = status.read

    def wrong(run):
        if run.metrics.exists():
            with run.metrics.open("ab") as file:
                file.write(b'{"segment":1,"step":5,"time":1,"loss":0.0}\n')
        return read(run)

    return replaced(status, "read", wrong)


ATTACK = Attack(
    "viewers",
    "Any number of viewers may look at a run while it trains: none fails, and the run does not notice.",
    tries=2 * VIEWERS,
    short=VIEWERS,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="differs from an unbroken run",
    size=VIEWERS,
)
