"""Make all attacks and count what was lost.

    python tests/torture/run.py [--short] [--only NAME] [--seed N] [--share .1] [--jobs 2] [--markdown FILE]

Prints a table: attack, tries, lost; then every loss with the case that shows it. Exits with 1 if anything was lost.
`--case TEXT` shows and tries only the cases whose text holds it; `--spoilt` breaks the program on purpose, and exits
with 1 where an attack does not notice.
"""

import argparse
import gc
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # before torch: children are forked, and tensors are small
sys.path[0] = str(Path(__file__).parents[1])
sys.path.append(str(Path(__file__).parents[2]))

from torture import _processes, _runs  # noqa: E402
from torture._attack import Attack, Result  # noqa: E402

PARTS = 12  # pieces of an attack, so that two processes are busy to the end
ENOUGH = 24  # cases, of which one must show what was broken on purpose
MARKS = "<!-- table -->", "<!-- end of table -->"


class Piece(NamedTuple):
    """Some of the tries of an attack."""

    attack: Attack
    count: int
    part: int
    parts: int


def attacks(only: Iterable[str] = ()) -> list[Attack]:
    """Return all attacks, those with the longest pieces first, or those of these names."""
    names = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith(("_", "run", "test_")))
    if unknown := set(only) - set(names):
        sys.exit(f"--only: found {', '.join(sorted(unknown))}, allowed: {', '.join(names)}")
    return [importlib.import_module(f"torture.{name}").ATTACK for name in names if not only or name in set(only)]


def preload(chosen: list[Attack]) -> None:
    """Import what commands import, once, so that forked children need not."""
    import torch

    torch.set_num_threads(1)
    from cmbench.cli import _card, _report_json  # noqa: F401
    from cmbench.comparison import compare  # noqa: F401
    from cmbench.engine import build, evaluate, judge, runner, sample, weights  # noqa: F401
    from cmbench.words import comparison  # noqa: F401

    for folder in ("data", "networks", "objectives", "evaluation"):
        for path in (Path(__file__).parents[2] / "cmbench" / folder).glob("*.py"):
            if path.stem not in ("__init__", "_inception"):
                importlib.import_module(f"cmbench.{folder}.{path.stem}")
    _runs.templates()
    for attack in chosen:
        attack.prepare()
    gc.collect()
    gc.freeze()  # nothing of this is looked through again in a child


def pieces(chosen: list[Attack], share: float, short: bool) -> list[Piece]:
    """Cut attacks into pieces."""
    found = []
    for attack in chosen:
        count = attack.short if short else max(1, round(attack.tries * share))
        parts = 1 if short else min(-(-count // attack.size), PARTS)
        found += [Piece(attack, count, part, parts) for part in range(parts)]
    return found


def tried(
    todo: list[Piece], seed: int, jobs: int, only_case: str = "", until: str | None = None
) -> Iterator[tuple[Piece, list[Result], float]]:
    """Make the pieces, so many at once, each in a child, and yield what came of each and the CPU-seconds it took."""
    waiting, busy = todo[::-1], {}
    while waiting or busy:
        while waiting and len(busy) < jobs:
            piece, file = waiting.pop(), tempfile.TemporaryFile()  # noqa: SIM115
            pid = _processes.start(
                lambda piece=piece, file=file: _try(piece, seed, only_case, until, file.fileno()),
                (1, 2),
                memory=None,
            )
            busy[pid] = piece, file
        pid, status, used = os.wait4(-1, 0)
        if pid not in busy:
            continue
        piece, file = busy.pop(pid)
        file.seek(0)
        results = [Result(*json.loads(line)) for line in file.read().splitlines()]
        if status:
            results.append(Result(f"piece {piece.part} of {piece.parts}", f"ended with status {status}"))
        yield piece, results, used.ru_utime + used.ru_stime


def _try(piece: Piece, seed: int, only_case: str, until: str | None, fd: int) -> None:
    for result in piece.attack.results(piece.count, seed, piece.part, piece.parts, only_case):
        os.write(fd, json.dumps(result).encode() + b"\n")
        if until is not None and until in result.lost:
            return


def main() -> int:
    """Attack, print, and return the exit code."""
    asked = _arguments()
    chosen = attacks(asked.only)
    preload(chosen)
    if asked.spoilt:
        return _prove(chosen, asked.seed, asked.jobs)
    began = time.monotonic()
    results: dict[str, list[Result]] = {attack.name: [] for attack in chosen}
    spent = dict.fromkeys(results, 0.0)
    for piece, found, seconds in tried(pieces(chosen, asked.share, asked.short), asked.seed, asked.jobs, asked.case):
        results[piece.attack.name] += found
        spent[piece.attack.name] += seconds
        for result in found:
            if result.lost:
                print(f"{piece.attack.name}: {result.case}\n    {ascii(result.lost)[1:-1]}", flush=True)
    _print_table(results, spent)
    if asked.markdown:
        _write_page(asked.markdown, results, chosen)
    everything = [result for found in results.values() for result in found]
    tries, lost = _count(everything), _lost(everything)
    print(f"\n{tries:,} tries, {lost:,} lost, seed {asked.seed}, {time.monotonic() - began:.0f} s")
    return 1 if lost or not tries else 0


def _write_page(page: Path, results: dict[str, list[Result]], chosen: list[Attack]) -> None:
    """Put the table between the marks of a page."""
    rows = [(f"`{a.name}`", a.promise, _count(results[a.name]), _lost(results[a.name])) for a in chosen]
    head = "| attack | what is promised | tries | lost |\n|---|---|---:|---:|\n"
    table = head + "".join(f"| {name} | {text} | {tries:,} | {lost:,} |\n" for name, text, tries, lost in rows)
    before, _, rest = page.read_text(encoding="utf-8").partition(f"{MARKS[0]}\n")
    page.write_text(f"{before}{MARKS[0]}\n{table}{MARKS[1]}{rest.partition(MARKS[1])[2]}", encoding="utf-8")


def _count(results: list[Result]) -> int:
    return sum(result.tries for result in results)


def _lost(results: list[Result]) -> int:
    return sum(bool(result.lost) for result in results)


def _print_table(results: dict[str, list[Result]], spent: dict[str, float]) -> None:
    print(f"\n| {'attack':<16} | {'tries':>6} | {'lost':>5} | seconds of a core |\n|---|---:|---:|---:|")
    for name, found in results.items():
        print(f"| {f'`{name}`':<16} | {_count(found):>6,} | {_lost(found):>5,} | {spent[name]:.0f} |")


def _prove(chosen: list[Attack], seed: int, jobs: int) -> int:
    """Break the program on purpose, and see that each attack tells."""
    blind = []
    for attack in chosen:
        with attack.spoilt():
            count = max(ENOUGH * attack.size, attack.short)
            ((_, found, _),) = tried([Piece(attack, count, 0, 1)], seed, jobs, until=attack.tells)
        told = next((result.lost for result in found if attack.tells in result.lost), "")
        print(f"{attack.name}: {ascii(told)[1:200] if told else 'NOT NOTICED'}", flush=True)
        blind += [] if told else [attack.name]
    return 1 if blind else 0


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--case", default="", metavar="TEXT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="a page whose table is to be replaced")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--spoilt", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
