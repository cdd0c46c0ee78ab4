"""The benches of `make gpu`: `cmbench bench --json` on the recipes for CIFAR-10, with noise in place of pictures.

Each runs in a process of its own, which is killed where it takes longer than the time that is left.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cmbench.engine.doctor.check import Check
from on_gpu import table
from on_gpu.budget import Budget

ROOT = Path(__file__).resolve().parents[2]
# With what makes every machine measure the same: no weights of another run, and no LPIPS.
RECIPES = {
    "ect_edm_cifar10": ("start.run=''",),
    "sct_trigflow_cifar10": ("start.run=''",),
    "meanflow_linear_cifar10": (),
    "ct_edm_cifar10": ("objective.distance=l2",),
}
PRECISION = "bfloat16"
COMPILE = "train.compile"
ROUNDS = 4
_MOST, _LEAST = 128, 8  # samples of a batch: with 128 large cards are busy, and steps are short
_PER_GIB = 2  # samples for each GiB of memory: what the tangent in one pass with the student leaves room for
_PATIENCE = {False: 30.0, True: 60.0}  # seconds that must be left, without and with compilation
_RESERVE = 5.0  # seconds for the table and the report


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Measured:
    """A recipe on one device.

    Attributes:
        recipe: its name.
        compiled: whether the step was compiled.
        check: whether it was measured.
        figures: what `cmbench bench --json` says of the recipe; empty if it was not measured.
    """

    recipe: str
    compiled: bool
    check: Check
    figures: dict[str, Any]


Call = Callable[[Sequence[str], float], Ended | None]


def benches(device: str, memory: int, folder: Path, budget: Budget, call: Call | None = None) -> Iterator[Measured]:
    """Measure all recipes, first without and then with compilation.

    Args:
        device: of `cmbench bench --device`.
        memory: bytes of the device that are free.
        folder: an empty one, where no pictures are found.
        budget: the time for all of them.
        call: runs cmbench with arguments, for so many seconds at most; None: `called`.
    """
    refusal = ""
    for compiled in (False, True):
        for name, own in RECIPES.items():
            check, figures = Check("", "-", refusal), dict[str, Any]()
            if not (compiled and refusal):
                settings = [*own, f"data.root={folder}", f"train.precision={PRECISION}", "train.micro_batch_size=0"]
                settings += [f"{COMPILE}=true"] if compiled else []
                begin = ["bench", str(ROOT / "recipes" / f"{name}.toml"), "--device", device, "--json"]
                begin += ["--rounds", str(ROUNDS)]
                begin += [part for setting in settings for part in ("--set", setting)]
                check, figures = fitting(begin, batch_for(memory), _PATIENCE[compiled], budget, call or called)
                refusal = check.found if compiled and check.level == "-" and COMPILE in check.found else ""
            told = f"bench {name} {PRECISION}{' compiled' if compiled else ''}"
            yield Measured(name, compiled, Check(told, check.level, check.found, values=figures), figures)


def batch_for(memory: int) -> int:
    """Return the samples of the first batch that is tried: a power of two, by the bytes that are free."""
    return min(_MOST, max(_LEAST, 2 ** (int(memory / 2**30 * _PER_GIB).bit_length() - 1)))


def fitting(
    begin: Sequence[str], batch: int, patience: float, budget: Budget, call: Call
) -> tuple[Check, dict[str, Any]]:
    """Measure with a batch of so many samples, or with half as many until it fits into the memory."""
    while True:
        if not budget.has(patience):
            return Check("", "-", "no time left"), {}
        seconds = budget.left - _RESERVE
        ended = call([*begin, "--set", f"train.batch_size={batch}"], seconds)
        if ended is None:
            return Check("", "-", f"it took longer than the {seconds:.0f} s that were left"), {}
        if ended.code and "out of memory" in ended.err and batch > _LEAST:
            batch //= 2
            continue
        return read(ended)


def read(ended: Ended) -> tuple[Check, dict[str, Any]]:
    """Return the figures of a bench that has ended, or the reason why there are none."""
    last = (ended.err.strip().splitlines() or [f"exit code {ended.code} without a word"])[-1]
    if ended.code == 2 and COMPILE in last:
        return Check("", "-", last), {}
    if ended.code:
        return Check("", "fail", last), {}
    (figures,) = json.loads(ended.out)["recipes"]
    rate, share = figures["images_per_s"], figures["share_of_product"]
    text = f"{rate:,.0f} images/s in batches of {figures['batch_size']}, {figures['ratio']:.2f} of a bare pass"
    text += f", {share:.1%} of the matrix rate, {table.size(figures['peak'])}"
    if seconds := figures.get("compiling"):
        text += f", compiled in {seconds:.0f} s"
    return Check("", "ok", text), figures


def called(arguments: Sequence[str], seconds: float) -> Ended | None:
    """Run cmbench, and return how it ended. If it takes longer, kill it with all that it started, and return None."""
    command = [sys.executable, "-m", "cmbench", *arguments]
    options = {"cwd": ROOT, "text": True, "start_new_session": True, "stdin": subprocess.DEVNULL}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return Ended(process.returncode, out, err)
