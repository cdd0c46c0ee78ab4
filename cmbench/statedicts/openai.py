"""OpenAI's U-Net, of openai/guided-diffusion and openai/consistency_models: its names and layouts beside `adm`'s.

It numbers its blocks through: input_blocks.0 to the last, middle_block.0 to 2, output_blocks.0 to the last. Each has a
residual block, then an attention where it attends, then a block that doubles the size where a level ends. With
`resblock_updown` and `use_scale_shift_norm` these are the layers of ADM (Dhariwal & Nichol 2021, section 3).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cmbench.statedicts.files import Entry

_GROUPS, _LEAST = 32, 128  # of each of its norms; fewer channels have fewer groups in `adm`
_ORDERS = "'by_head' (guided-diffusion) or 'whole' (consistency_models, and use_new_attention_order)"
_OUTER = {"map_layer0": "time_embed.0", "map_layer1": "time_embed.2", "out_norm": "out.0", "out_conv": "out.2"}
_BLOCK = {"norm0": "in_layers.0", "conv0": "in_layers.2", "affine": "emb_layers.1", "norm1": "out_layers.0"}
_BLOCK |= {"conv1": "out_layers.3", "skip": "skip_connection"}
_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}


def names(ours: Sequence[str]) -> dict[str, str]:
    """Return our name for each of OpenAI's, for the names of an `adm` network in the order of its layers."""
    modules = list(dict.fromkeys(name[: at.end()] for name in ours if (at := re.match(r"(?:enc|dec)\.\w+", name))))
    places = _places(modules, {name.removesuffix(".qkv.weight") for name in ours if name.endswith(".qkv.weight")})
    found = {f"{theirs}.{kind}": f"{own}.{kind}" for own, theirs in _OUTER.items() for kind in ("weight", "bias")}
    found["label_emb.weight"] = "map_label.weight"
    for name in ours:
        if at := re.match(r"((?:enc|dec)\.\w+)\.(?:(\w+)\.)?(weight|bias)$", name):
            module, layer, kind = at.groups()
            residual, attention = places[module]
            within = {None: residual} | {own: f"{residual}.{theirs}" for own, theirs in _BLOCK.items()}
            within |= {own: f"{attention}.{theirs}" for own, theirs in _ATTENTION.items()}
            if layer in within:
                found[f"{within[layer]}.{kind}"] = name
    return found


def _places(modules: Sequence[str], attending: set[str]) -> dict[str, tuple[str, str]]:
    """Return the name of each module's residual block (or convolution), and of its attention."""
    places: dict[str, tuple[str, str]] = {}
    inputs, outputs, before = 0, 0, ""
    for module in modules:
        if module.startswith("enc."):
            places[module] = f"input_blocks.{inputs}.0", f"input_blocks.{inputs}.1"
            inputs += 1
        elif module.endswith(("_in0", "_in1")):
            places[module] = f"middle_block.{0 if module.endswith('_in0') else 2}", "middle_block.1"
        elif module.endswith("_up"):  # the last layer of the block before it
            at = 2 if before in attending else 1
            places[module] = f"output_blocks.{outputs - 1}.{at}", ""
        else:
            places[module] = f"output_blocks.{outputs}.0", f"output_blocks.{outputs}.1"
            outputs += 1
        before = module
    return places


def fitted(entry: Entry, name: str) -> Entry:
    """Return a tensor in the layout of ours: labels are rows of theirs, and some convolutions of pixels have one side.

    Args:
        entry: theirs.
        name: ours.
    """
    shape = entry.shape
    if name == "map_label.weight" and len(shape) == 2:
        return replace(entry, shape=shape[::-1], read=lambda: entry.read().t())
    if name.endswith((".qkv.weight", ".proj.weight")) and len(shape) == 3:
        return replace(entry, shape=(*shape, 1), read=lambda: entry.read().unsqueeze(-1))
    return entry


def difference(network: Mapping[str, object], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Return which key of [network] makes `adm` another function than OpenAI's network; empty: none does."""
    norms = [size for name, (size, *_) in expected.items() if ".norm" in name or name.startswith("out_norm")]
    if network["qkv"] == "by_channel":
        return f"network.qkv: found 'by_channel', allowed for OpenAI's names: {_ORDERS}"
    if tuple(network["resampling"]) != (1, 1):  # type: ignore[arg-type]
        return f"network.resampling: found {list(network['resampling'])}, allowed for OpenAI's names: [1, 1]"  # type: ignore[call-overload]
    if network["double_norm"]:
        return "network.double_norm: found true, allowed for OpenAI's names: false"
    if norms and min(norms) < _LEAST:
        return (
            f"network.width: found levels of {min(norms)} channels, allowed for OpenAI's names: at least {_LEAST}, "
            f"since its norms always have {_GROUPS} groups"
        )
    return ""
