"""The optimiser, its learning rate over time, and its state as named tensors."""

import math

import torch
from torch import Tensor, nn

from cmbench.engine import joined
from cmbench.tables import Optimizer as Config

_KINDS = {"radam": joined.RAdam, "adam": joined.Adam, "adamw": joined.AdamW}


def build(config: Config, *modules: nn.Module) -> torch.optim.Optimizer:
    """Return torch's optimiser of the trainable parameters, those of the network first.

    `weight_decay` applies to all of them, also to w_phi of an adaptive weighting: it pulls w_phi to zero, and so the
    weight to one.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    fused: dict[str, bool] = {"fused": True} if is_fused(config, parameters[0].device) else {}
    return _KINDS[config.kind](
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        foreach=not fused,  # torch's choice on a GPU; on the CPU 4 ms instead of 14 for the digits' U-Net
        **fused,
    )


def is_fused(config: Config, device: torch.device) -> bool:
    """Return whether one kernel updates all weights on a device. Its results differ from the others' in last bits.

    On a CPU, runs stay equal to those of earlier versions unless the recipe asks for it.
    """
    return config.fused == "on" or (config.fused == "auto" and config.kind != "radam" and device.type == "cuda")


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, out of `steps`.

    The warm-up's first step has lr / warmup, its last one lr. Published code (NVlabs/edm, edm2) begins with 0, a step
    that changes no weight, and reaches lr one step later.
    """
    warmup = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    after = max(0, step - config.decay_after)
    if config.decay == "cosine":
        decay = 0.5 * (1 + math.cos(math.pi * after / max(1, steps - config.decay_after)))
    elif config.decay == "inverse_sqrt":
        decay = 1 / math.sqrt(max(1.0, step / config.decay_after))
    else:
        decay = 1.0
    return config.lr * warmup * decay


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state as `<parameter index>.<name>` -> tensor."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, own in state.items() for name, value in own.items()}


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Restore the tensors that `state_tensors` returned; the settings stay those of the recipe.

    Moments take the layout of their weights, which files do not tell: torch's fused kernels demand it.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        weight = weights[int(index)]
        alike = value.shape == weight.shape and value.stride() != weight.stride()
        state.setdefault(int(index), {})[name] = torch.empty_like(weight, device="cpu").copy_(value) if alike else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def misfit(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> str:
    """Describe the first tensor that `state_tensors` could not have returned; empty if all fit."""
    shapes = [p.shape for group in optimizer.param_groups for p in group["params"]]
    for key, tensor in tensors.items():
        index = key.partition(".")[0]
        if not index.isdecimal() or int(index) >= len(shapes) or tensor.shape not in ((), shapes[int(index)]):
            return f"'optimizer' has {key:.40} of shape {list(tensor.shape)}"
    return ""
