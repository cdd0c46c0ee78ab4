"""No key of a network is ignored, and none is forgotten here: each changes the output from one seed."""

import pytest
import torch
from tiny import TINY

from cmbench.engine import build, weights
from cmbench.engine.doctor import probe
from cmbench.networks import adm, ddpmpp, dit, edm2, mlp, ncsnpp, unet
from cmbench.recipe import load

MODULES = {"mlp": mlp, "unet": unet, "dit": dit, "ddpmpp": ddpmpp, "ncsnpp": ncsnpp, "adm": adm, "edm2": edm2}
DATA = dict.fromkeys(MODULES, "{kind='digits'}") | {"mlp": "{kind='mixtures'}"}
SHAPES = dict.fromkeys(MODULES, (1, 8, 8)) | {"mlp": (2,)}
SHARED = {
    "embedding": ("fourier", {}),
    "embedding_scale": (3.0, {}),
    "dropout": (0.5, {}),
    "class_conditional": (True, {}),
}
PUBLISHED = {
    "width": (16, {}),
    "multipliers": ([2, 1], {}),
    "depth": (2, {}),
    "attention": ([8], {}),
    "resampling": ([1, 3, 3, 1], {}),
    "double_norm": (True, {}),
    "label_dropout": (0.5, {"class_conditional": True}),
    "augment_labels": (6, {}),
    **SHARED,
}
SONG = {**PUBLISHED, "heads": (2, {}), "embedding_channels": (3, {}), "encoder": ("skip", {})}

# Every key, another value for it, and what else must be set for the key to matter.
OTHER = {
    "mlp": {"width": (32, {}), "depth": (2, {}), "embedding_channels": (32, {}), **SHARED},
    "unet": {
        "width": (16, {}),
        "multipliers": ([1], {}),
        "depth": (2, {}),
        "attention": ([4], {}),
        "heads": (2, {"attention": [4]}),
        "double_norm": (True, {}),
        **SHARED,
    },
    "dit": {
        "width": (32, {}),
        "depth": (2, {}),
        "heads": (2, {}),
        "patch": (4, {}),
        "mlp_ratio": (2, {}),
        "double_norm": (True, {}),
        **SHARED,
    },
    "edm2": {
        "width": (16, {}),
        "multipliers": ([1, 3], {}),
        "depth": (2, {}),
        "attention": ([8, 4], {}),
        "head_channels": (4, {}),
        "double_norm": (True, {}),
        "label_share": (0.3, {"class_conditional": True}),
        "skip_share": (0.3, {}),
        "block_share": (0.5, {}),
        "attention_share": (0.5, {}),
        "dropout_sizes": ([4], {"dropout": 0.5}),
        **SHARED,
        "embedding": ("positional", {}),
    },
}
OTHER |= {
    "ddpmpp": SONG,
    "ncsnpp": {**SONG, "resampling": ([1, 1], {}), "embedding": ("positional", {})},
    "adm": {**PUBLISHED, "head_channels": (4, {}), "qkv": ("by_head", {})},
}
SMALL = {"mlp": {"width": 16, "depth": 1}, "unet": {"width": 8, "depth": 1}, "dit": {"width": 16, "depth": 1}}
OF_EDM = {"width": 8, "multipliers": [1, 2], "depth": 1, "attention": [4]}
WITH_HEADS = {**OF_EDM, "head_channels": 8}
SMALL |= {"ddpmpp": OF_EDM, "ncsnpp": OF_EDM, "adm": WITH_HEADS, "edm2": WITH_HEADS}
OF_THE_LOSS = {"log_variance_channels"}  # keys of a head that does not change F
KEYS = [pytest.param(kind, key, id=f"{kind}-{key}") for kind in OTHER for key in OTHER[kind]]


def output(folder, kind, times, settings):
    """Return F of a fresh network in training mode, its weights and dropout drawn from fixed seeds."""
    objective = ["objective={kind='meanflow'}", "path.kind=linear"] if times == 2 else []
    (folder / "tiny.toml").write_text(TINY)
    given = load(folder / "tiny.toml", [f"data={DATA[kind]}", f"network.kind={kind}", *objective])
    given = given.model_copy(update={"network": {"kind": kind, **SMALL[kind], **settings}})
    model = build.model(build.complete(given, "x"), SHAPES[kind], 3, torch.device("cpu"))
    model = probe.copied(model).train()  # weights that begin at zero hide what lies before them
    x = torch.randn(3, *SHAPES[kind], generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    labels = torch.arange(3) if build.is_conditional(given) else None
    if takes := given.network.get("augment_labels"):
        model.augment_labels = torch.ones(3, takes)
    return model.F(x, model.time(torch.tensor([0.1, 0.5, 3.0])), labels).detach()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_no_key_of_a_network_is_ignored(tmp_path, kind, key, times):
    value, given = OTHER[kind][key]
    before = output(tmp_path, kind, times, given)
    assert torch.equal(before, output(tmp_path, kind, times, given))
    assert not torch.allclose(before, output(tmp_path, kind, times, {**given, key: value}), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", OTHER)
def test_no_key_of_a_network_is_forgotten_here(kind):
    assert set(OTHER[kind]) | OF_THE_LOSS == set(MODULES[kind].Config.model_fields) | OF_THE_LOSS


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", OTHER)
def test_the_shapes_of_weights_are_known_without_memory_for_them(tmp_path, kind, conditional):
    (tmp_path / "tiny.toml").write_text(TINY)
    given = load(tmp_path / "tiny.toml", [f"data={DATA[kind]}", f"network.kind={kind}"])
    network = {"kind": kind, **SMALL[kind], "class_conditional": conditional}
    complete = build.complete(given.model_copy(update={"network": network}), "x")
    model = build.model(complete, SHAPES[kind], 3, torch.device("cpu"))
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert weights.shapes_of(complete, SHAPES[kind], 3) == expected
