"""Runs what was exported, in a process of its own in which cmbench cannot be imported. `check.py` starts it.

It takes the format, the export's folder and a folder of its own, with inputs.safetensors and batches.json. It writes
samples.npy there: the samples of all inputs, in batches of each size, one after the other.
"""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.modules["cmbench"] = None  # type: ignore[assignment]  # every import of it fails from here on
try:
    import cmbench  # noqa: F401
except ImportError:
    pass
else:
    raise SystemExit("cmbench could be imported")

import numpy as np  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402

warnings.simplefilter("ignore")  # of other packages
Arrays = dict[str, np.ndarray]
About = dict[str, Any]


def of_torch(folder: Path, inputs: Arrays, batches: Sequence[int], about: About) -> list[np.ndarray]:
    """Return the samples of a torch.export program."""
    import torch

    generate = torch.export.load(folder / "generator.pt2").module()
    return [generate(**_tensors(own)).numpy() for own in _cut(inputs, batches)]


def of_onnx(folder: Path, inputs: Arrays, batches: Sequence[int], about: About) -> list[np.ndarray]:
    """Return the samples of an ONNX model, without torch."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "generator.onnx"), providers=["CPUExecutionProvider"])
    return [session.run(["samples"], own)[0] for own in _cut(inputs, batches)]


def of_safetensors(folder: Path, inputs: Arrays, batches: Sequence[int], about: About) -> list[np.ndarray]:
    """Return the samples by what generator.json says, of F_theta's graph with the weights of the exported file."""
    import torch
    from safetensors.torch import load_file as load_tensors

    F = torch.export.load(Path(about["own"]) / "F_theta.pt2").module()
    weights = load_tensors(folder / "F_theta.safetensors")
    missing, unexpected = F.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - set(about["constants"]):
        raise SystemExit(f"other names: {missing[:3]} {unexpected[:3]}")
    told = json.loads((folder / "generator.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        return [_sampled(F, told, **_tensors(own)).numpy() for own in _cut(inputs, batches)]


def of_diffusers(folder: Path, inputs: Arrays, batches: Sequence[int], about: About) -> list[np.ndarray]:
    """Return the samples of a ConsistencyModelPipeline, whose random numbers are the inputs."""
    import torch
    from diffusers import ConsistencyModelPipeline
    from diffusers.pipelines.consistency_models import pipeline_consistency_models as pipeline
    from diffusers.schedulers import scheduling_consistency_models as scheduling

    pipe = ConsistencyModelPipeline.from_pretrained(str(folder))
    pipe.set_progress_bar_config(disable=True)
    found = []
    for own in _cut(inputs, batches):
        given = _tensors(own)
        queue = [given["latents"], *(given["noise"].unbind(1) if "noise" in given else ())]
        last: list[Any] = []
        draws = iter([*queue, torch.zeros_like(queue[0])])
        pipeline.randn_tensor = scheduling.randn_tensor = lambda *_, draws=draws, **__: next(draws)
        labels = given.get("labels")
        kept = {"callback": lambda i, t, x, last=last: last.append(x), "output_type": "np"}
        pipe(len(queue[0]), class_labels=labels, timesteps=about["timesteps"], **kept)
        found.append(last[-1].numpy())
    return found


def _sampled(F: Any, told: About, latents: Any, labels: Any = None, noise: Any = None) -> Any:
    """Return samples as docs/export.md says."""
    import torch

    wide = torch.float64 if told["time_precision"] == "float64" else torch.float32

    def network(own: About, x: Any) -> Any:
        c_noise = torch.tensor([own["c_noise"]], dtype=wide).expand(len(x), -1)
        return F(x, c_noise[:, 0] if c_noise.shape[1] == 1 else c_noise, *(() if labels is None else (labels,)))

    def function(own: About, x: Any) -> Any:
        x_t = own["s"] * x
        return own["c_skip"] * x_t + own["c_out"] * network(own, own["c_in"] * x_t)

    each, x = told["evaluations"], told["start"] * latents
    if told["sampler"] == "average_velocity":
        for own in each:
            x = x - own["interval"] * network(own, own["c_in"] * x)
        return x
    if told["sampler"] == "ode":
        for own, lower in zip(each, each[1:]):  # noqa: B905, RUF007 - Python 3.10 has neither
            slope, step = (x - function(own, x)) / own["sigma"], lower["sigma"] - own["sigma"]
            below = x + step * slope
            x = x + step * 0.5 * (slope + (below - function(lower, below)) / lower["sigma"])
        return function(each[-1], x)
    for k, own in enumerate(each):
        x = function(own, x + own["renoise"] * noise[:, k - 1] if k else x)
    return x


def _cut(inputs: Arrays, batches: Sequence[int]) -> Iterator[Arrays]:
    """Yield the first inputs in batches of each size."""
    for size in batches:
        yield {name: own[:size] for name, own in inputs.items()}


def _tensors(inputs: Arrays) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(own) for name, own in inputs.items()}


def main(kind: str, folder: Path, own: Path) -> None:
    """Run an export and write its samples."""
    about = json.loads((own / "about.json").read_text(encoding="utf-8"))
    run = {"torch": of_torch, "onnx": of_onnx, "safetensors": of_safetensors, "diffusers": of_diffusers}[kind]
    found = run(folder, load_file(own / "inputs.safetensors"), about["batches"], {**about, "own": str(own)})
    np.save(own / "samples.npy", np.concatenate(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
