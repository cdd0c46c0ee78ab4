"""What `train.compile` brings on this CPU, for objectives and networks on the digits.

    python benchmarks/compiled.py [--rounds 15]

A step as it is and compiled, each beside a bare pass of its own kind, are measured in turn by the code of
`cmbench bench`. The clock is the processor time of this process, which has one thread. Prints the table of
docs/performance.md.
"""

import argparse
import time
from pathlib import Path

import torch

from cmbench.engine.bench.measure import measure
from cmbench.engine.bench.subject import Asked, built_as
from cmbench.engine.doctor import probe
from cmbench.engine.doctor.compiled import of_step
from cmbench.engine.ranks import Ranks

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
COMPILED = "train.compile=true"
NETWORKS = {"U-Net": (), "DiT": ("network={kind='dit', width=64, depth=4, patch=2}",)}
OBJECTIVES = {
    "ct": ("ct_edm",),
    "ect": ("ct_edm", "objective={kind='ect'}"),  # without the weights of another run
    "sct": ("sct_trigflow",),
    "meanflow": ("meanflow_linear",),
}
HEAD = (
    *("network", "objective", "to uncompiled", "uncompiled to its bare pass", "compiled to its bare pass"),
    *("compiling", "gradients differ by"),
)


def row(network: str, objective: str, rounds: int) -> tuple[str, ...]:
    """Return the figures of one objective on one network."""
    recipe, *own = OBJECTIVES[objective]
    asked = [Asked(RECIPES / f"{recipe}.toml", (*own, *NETWORKS[network], *more)) for more in ((COMPILED,), ())]
    found = measure(asked, rounds, Ranks(), time.process_time)
    compiled, plain = found.costs
    built, _ = built_as(asked[1])
    error = of_step(built, probe.copied(built.state.model)).values["error"]
    ratios = (found.ratio, plain.ratio, compiled.ratio)
    return network, f"`{objective}`", *(f"{x:.2f}" for x in ratios), f"{compiled.compiling:.0f} s", f"{error:.0e}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="that medians are over")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| " + " | ".join(HEAD) + " |\n" + "|---" * len(HEAD) + "|")
    for network in NETWORKS:
        for objective in OBJECTIVES:
            print("| " + " | ".join(row(network, objective, rounds)) + " |", flush=True)


if __name__ == "__main__":
    main()
