"""What `make gpu` does: check cmbench on a GPU, measure it, and put the figures into docs/performance.md.

Every objective trains three steps in float32 and bfloat16. Dropout masks, a resumed run and gradients are checked. Then
`cmbench bench` measures the recipes for CIFAR-10. All this ends after eight minutes: what no longer fits is named.

Exit code 1 if a check fails, or if there was time for none; 2 if there is no GPU, or the page is not as it should be.
make itself ends with 2 for both.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from on_gpu import benches, checks, table
from on_gpu.budget import Budget

from cmbench.engine import memory
from cmbench.engine.doctor.check import Check
from cmbench.rundir.files import to_json, write_atomically

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "build" / "gpu"
MINUTES = 8.0
DEVICE = "cuda"
_WORDS = {"ok": "ok", "fail": "FAIL", "warn": "warn", "-": "-"}
_PLACES = {  # variables that say where others write, with the name of a folder for each
    "CMBENCH_CACHE_DIR": "cmbench",
    "CUDA_CACHE_PATH": "cuda",
    "TMPDIR": "temporary",  # of a bench that is killed
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "XDG_DATA_HOME": "data",
}


@dataclass
class Report:
    """What was found on a card.

    Attributes:
        card: its name.
        checks: all findings, those of the benches too.
        seconds: that each finding took.
        rows: of the table, of what was measured.
        began: by the clock that never goes back.
    """

    card: str
    checks: list[Check] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rows: list[Sequence[str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, check: Check) -> None:
        """Keep a finding that has just come, and print it."""
        self.checks.append(check)
        self.seconds.append(time.monotonic() - self.began - sum(self.seconds))
        print(f"{_WORDS[check.level]:<4}  {check.name:<46}  {check.found}", flush=True)

    def count(self, level: str) -> int:
        """Return how many findings have a level."""
        return sum(check.level == level for check in self.checks)

    def told(self) -> dict[str, Any]:
        """Return it as data."""
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        found = [{**vars(check), "seconds": own} for check, own in zip(self.checks, self.seconds, strict=True)]
        return {"schema": 1, "card": self.card, "date": str(date.today()), **versions, "checks": found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and measure, or say in one line why not."""
    asked = parsed(arguments)
    with temporary() as folder:
        if not torch.cuda.is_available():
            return refused(f"make gpu needs a GPU: torch {torch.__version__} finds none that it can use")
        try:
            table.parts()
        except table.PageError as error:
            return refused(str(error))
        budget = Budget(60 * asked.minutes - max(0.0, time.time() - asked.began))
        card = torch.cuda.get_device_name()
        print(f"cmbench: checks and measures {card}, torch {torch.__version__}: {asked.minutes:g} minutes at most")
        return concluded(Report(card), checks.checks(DEVICE, folder / "runs", budget), lambda: measured(folder, budget))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for all of it (default: %(default)g)")
    parser.add_argument("--began", type=float, default=time.time(), help="when it began, in seconds since 1970")
    return parser.parse_args(arguments)


def refused(reason: str) -> int:
    """Print why nothing is done, and return the exit code."""
    print(f"cmbench: {reason}", file=sys.stderr)
    return 2


def measured(folder: Path, budget: Budget) -> Iterator[benches.Measured]:
    """Free what the checks have taken on the GPU, and measure the recipes."""
    torch.cuda.empty_cache()
    yield from benches.benches(DEVICE, memory.free(torch.device(DEVICE)), folder / "pictures", budget)


def concluded(
    report: Report,
    found: Iterable[Check],
    measure: Callable[[], Iterable[benches.Measured]],
    page: Path = table.PAGE,
    figures: Path = FIGURES,
) -> int:
    """Print checks and benches as they come, write the figures, and return the exit code.

    Args:
        report: an empty one.
        found: the checks.
        measure: returns the benches.
        page: that has the table.
        figures: the folder for all figures.
    """
    for check in found:
        report.add(check)
    for each in measure():
        report.add(each.check)
        if each.figures:
            report.rows.append(table.row(report.card, each.compiled, each.figures, torch.__version__, date.today()))
    kept = figures / f"{re.sub(r'[^A-Za-z0-9]+', '-', report.card).strip('-')}.json"
    figures.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, to_json(report.told(), indent=True))
    counts = f"{report.count('ok')} ok, {report.count('fail')} failed, {report.count('-')} not looked at"
    print(f"\n{report.card}: {counts}, in {sum(report.seconds):.0f} s. All figures: {kept}")
    if missing := [check.name for check in report.checks if check.level == "-"]:
        print(f"not looked at (more time: make gpu MINUTES=20): {', '.join(missing)}")
    if report.rows:
        try:
            table.write(report.rows, page)
        except table.PageError as error:
            return refused(str(error))
        print(f"new rows of the table in {page}: {len(report.rows)}")
    return 1 if report.count("fail") or not report.count("ok") else 0


@contextmanager
def temporary() -> Iterator[Path]:
    """Yield a folder for runs, and for caches of CUDA and of compilers. It is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="cmbench-gpu-") as name:
        folder = Path(name)
        for own in ("runs", "pictures", *_PLACES.values()):
            (folder / own).mkdir()
        os.environ.update({variable: str(folder / own) for variable, own in _PLACES.items()})  # before CUDA looks
        yield folder


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("cmbench: interrupted; docs/performance.md is as before")
