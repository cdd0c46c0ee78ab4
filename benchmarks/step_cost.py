"""What a training step costs beside one plain forward and backward of the same network, in time and in memory.

    python benchmarks/step_cost.py [--rounds 30] [--networks mlp unet dit] [--kinds ict sct ...]

Time: loss and backward of each objective, with and without the diagnostics (time profile, gradient at the output, parts
of the tangent every 20 steps), over mean(F^2) and its backward. One thread, interleaved step by step, medians of ratios
within a round. "forward more" is the plain step and one forward pass without gradient: what no discrete method can go
below. Memory (Linux): growth of the peak resident size of a process of its own over the size before the first step,
over the same growth of the plain step. The optimiser is in neither. scd is measured with a teacher that costs nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch
from torch import Tensor

from cmbench import recipe as recipes
from cmbench.engine import build, optimizer, passes
from cmbench.engine.bench.passes import bare
from cmbench.engine.bench.timing import interleaved, ratio
from cmbench.engine.meters import Profile
from cmbench.engine.state import State
from cmbench.model import Model
from cmbench.randomness import StepRandom

CPU = torch.device("cpu")
BARE = ("plain", "forward more")
NETWORKS = {
    "mlp": ({"kind": "mlp"}, (2,), 1024),
    "unet": ({"kind": "unet", "width": 32, "multipliers": [1, 2], "depth": 1, "attention": [14]}, (1, 28, 28), 16),
    "dit": ({"kind": "dit", "width": 128, "depth": 4, "patch": 4}, (1, 28, 28), 64),
}
KINDS = {
    "forward more": {},
    "denoise": {},
    "ct": {"objective": {"mu_0": 0.0}},
    "cd": {"teacher": {"kind": "oracle"}},
    "ict": {},
    "ect": {"path": {"boundary": "zero"}},
    "continuous": {"path": {"kind": "trigflow"}},
    "sct": {"path": {"kind": "trigflow"}},
    "sct, jvp": {"path": {"kind": "trigflow"}, "objective": {"tangent_method": "jvp"}},
    "scd": {"path": {"kind": "trigflow"}, "teacher": {"kind": "oracle"}},
    "meanflow": {"path": {"kind": "linear"}},
}


class Free:
    """A teacher without cost."""

    @staticmethod
    def denoise(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return zeros (B, ...)."""
        return torch.zeros_like(x)


def steps_of(network: str, kind: str, diagnostics: bool = False) -> "Callable[[], None]":
    """Return a function that does one step without the optimiser; kind "plain" is the unit."""
    settings, shape, batch = NETWORKS[network]
    more = KINDS.get(kind, {})
    objective = {"kind": kind.split(",")[0] if kind not in BARE else "denoise", **more.get("objective", {})}
    tables = {"name": "cost", "data": {"kind": "digits"}, "network": settings, **more, "objective": objective}
    recipe = build.complete(recipes.check_tables(tables, "cost"), "cost")
    model: Model = build.model(recipe, shape, 0, CPU).train()
    x_0 = 0.5 * torch.randn(batch, *shape)
    t, counter = torch.full((batch,), 0.3), iter(range(10**9))

    def plain() -> None:
        bare(model, x_0, t)

    def forward_more() -> None:
        with torch.no_grad():
            model.F_theta(x_0, t, None)
        plain()

    if kind in BARE:
        return plain if kind == "plain" else forward_more
    cls, own = build.settings("objective", recipe)
    made = cls(own, model, Free(), 1000)
    profile, few = Profile(made.profile_edges(32)), min(32, batch // 4)  # 32 of 128 are the recipes'
    state = State(model, made, optimizer.build(recipe.optimizer, model, made), [], profile)
    state.step = 500

    def step() -> None:
        k = next(counter)
        random = StepRandom(CPU, 0, k)
        terms, F_gradient = passes.backward(state, x_0, None, random, batch)
        if diagnostics:
            profile.add(terms, F_gradient())
            if hasattr(made, "anatomy") and k % 20 == 0:
                for look in passes.looks(made, state, x_0, None, random, few, batch):
                    profile.add_anatomy(look)
        model.last_F = None

    return step


def times(network: str, kinds: list[str], rounds: int) -> dict[str, float]:
    """Return the median ratio of each step to the plain one. A round of the diagnostics is 20 steps long."""
    timed: dict[str, Callable[[], None]] = {"plain": steps_of(network, "plain")}
    for kind in kinds:
        timed[kind] = steps_of(network, kind)
        timed[f"{kind} + diagnostics"] = steps_of(network, kind, diagnostics=kind not in BARE)
    found = interleaved(timed, lambda done: done < rounds, CPU, times=20, clock=time.process_time)
    return {name: ratio(own, found["plain"]) for name, own in found.items()}


def memory(network: str, kind: str) -> float:
    """Return the growth of the peak resident size by three steps, in MiB, in this process."""
    NETWORKS[network] = (*NETWORKS[network][:2], 16 * NETWORKS[network][2])
    step = steps_of(network, kind)
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the imports
    for _ in range(3):
        step()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return (1024 * int(peak[1]) - before) / 2**20 if peak else float("nan")


def memories(network: str, kinds: list[str]) -> dict[str, float]:
    """Return the growth of the peak of each step over that of the plain one, each in a process of its own."""

    def of(kind: str) -> float:
        command = [sys.executable, __file__, "--memory", network, kind]
        quiet = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
        return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=quiet).stdout))

    unit = of("plain")
    return {kind: of(kind) / unit for kind in kinds}


def rows(network: str, kinds: list[str], rounds: int) -> Iterator[str]:
    """Yield rows of a Markdown table."""
    taken, peak = times(network, kinds, rounds), memories(network, kinds)
    for kind in kinds:
        plus = taken[f"{kind} + diagnostics"] / taken[kind] - 1
        yield f"| {network} | `{kind}` | {taken[kind]:.2f} | {plus:+.1%} | {peak[kind]:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # one figure, of this process
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(memory(*options.memory)))
        return
    print("| network | step | time | diagnostics | memory |\n|---|---|---|---|---|")
    for network in options.networks:
        for line in rows(network, options.kinds, options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
