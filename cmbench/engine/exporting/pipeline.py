"""A ConsistencyModelPipeline of the diffusers package, where it computes the same function as the run.

Its scheduler, CMStochasticIterativeScheduler, has the parameterisation of Song et al. 2023 on the EDM path: timesteps
250 ln(sigma), and c_skip, c_out and c_in with sigma_data and one sigma_min. It names noise levels by whole numbers i:
sigma_max^(1/7) + i / (N - 1) (sigma_min^(1/7) - sigma_max^(1/7)), to the power of 7.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from cmbench.engine.exporting.generator import Generator
from cmbench.engine.weights import Trained
from cmbench.errors import UsageError

_RHO = 7.0
_SMALLEST, _FINEST = 40, 1_000_000  # intervals of a grid: about as the published pipelines have, and at most
_NEAR = 1e-9  # of the length of a grid
_OTHERS = "allowed for this run: --as safetensors, torch or onnx"


def write(folder: Path, trained: Trained, generator: Generator) -> list[int]:
    """Write a pipeline's folder, and return the timesteps that give the generator's noise levels.

    Raises:
        UsageError: the pipeline cannot compute this run's function, or the folder cannot be written.
    """
    refuse_misfits(trained)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it loads a lot, of which nothing is used here
        from diffusers import CMStochasticIterativeScheduler, ConsistencyModelPipeline

    path, epsilon = trained.recipe.path, trained.model.parameterisation.epsilon
    count, timesteps = grid([own.sigma for own in generator.plan.evaluations], epsilon, path.sigma_max)
    unet: Any = copy.deepcopy(generator.F_theta.net)
    unet.register_to_config(sample_size=trained.model.shape[1])
    scheduler = CMStochasticIterativeScheduler(
        num_train_timesteps=count,
        sigma_min=epsilon,
        sigma_max=path.sigma_max,
        sigma_data=path.sigma_data,
        clip_denoised=False,  # cmbench does not clip
    )
    try:
        made: Any = ConsistencyModelPipeline(unet=unet, scheduler=scheduler)
        made.save_pretrained(str(folder))
    except SafetensorError as error:  # of a full disk too
        raise UsageError(f"--out: cannot be written: {error}") from None
    return timesteps


def refuse_misfits(trained: Trained) -> None:
    """Refuse a run whose function the pipeline cannot compute.

    Raises:
        UsageError: the message names the key, and the formats that take this run.
    """
    recipe, network, shape = trained.recipe, trained.recipe.network, trained.model.shape
    net = getattr(trained.model.F_theta, "net", None)
    wanted = [
        ("network.kind", network["kind"], "diffusers"),
        ("network.model", network.get("model"), "UNet2DModel"),
        ("path.kind", recipe.path.kind, "edm"),
        ("path.scalings", recipe.path.scalings, "edm"),
        ("path.c_noise", recipe.path.c_noise, "log_1000"),
    ]
    for key, found, allowed in wanted:
        if found != allowed:
            raise UsageError(f"--as diffusers: {key}: found '{found}', the pipeline computes '{allowed}'; {_OTHERS}")
    if trained.sampler != "consistency":
        kind = recipe.objective["kind"]
        raise UsageError(f"--as diffusers: objective '{kind}' trains no consistency function; {_OTHERS}")
    if net is not None and net.config.out_channels != shape[0]:
        raise UsageError(f"--as diffusers: found {net.config.out_channels} channels out, not {shape[0]}; {_OTHERS}")
    if len(shape) != 3 or shape[1] != shape[2]:
        raise UsageError(f"--as diffusers: found samples of shape {list(shape)}, not square pictures; {_OTHERS}")


def grid(sigmas: Sequence[float], lowest: float, highest: float) -> tuple[int, list[int]]:
    """Return how many levels a pipeline's grid has, and the timesteps of these noise levels, in descending order.

    Where few levels do, `num_inference_steps` finds them too. Otherwise it is the grid that comes nearest: in the
    network's time, 250 ln(sigma), a small error of sigma is a large one.
    """
    ends = highest ** (1 / _RHO), lowest ** (1 / _RHO)
    places = np.array([(ends[0] - sigma ** (1 / _RHO)) / (ends[0] - ends[1]) for sigma in sigmas])
    steps = len(sigmas)
    few = steps * -(-_SMALLEST // steps)
    intervals = few if _errors(places, np.array([few])).item() < _NEAR else _nearest(places)
    return intervals + 1, np.rint(places * intervals).astype(int).tolist()[::-1]


def _nearest(places: NDArray[np.float64]) -> int:
    counts = np.arange(_SMALLEST, _FINEST)
    return int(counts[np.argmin(_errors(places, counts))])


def _errors(places: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far places from 0 to 1 are from a grid of so many intervals, (counts,)."""
    exact = places[:, None] * counts
    return (np.abs(np.rint(exact) - exact) / counts).max(axis=0)
