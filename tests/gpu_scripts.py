"""Scripts of `make gpu` as modules."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import gpu  # noqa: E402
from on_gpu import benches, checks, chosen, driver, table  # noqa: E402
from on_gpu.budget import Budget  # noqa: E402

__all__ = ["ROOT", "Budget", "benches", "checks", "chosen", "driver", "gpu", "table"]

FIGURES = {  # of a recipe, as `cmbench bench --json` has them
    "name": "ect_edm_cifar10",
    "precision": "bfloat16",
    "batch_size": 256,
    "images_per_s": 2012.4,
    "ratio": 1.449,
    "share_of_product": 0.3512,
    "peak": 41.25 * 2**30,
}
