"""Networks of the diffusers package, where it is installed; what is refused without it."""

import copy
import json
import shutil
import sys
import warnings

import pytest
import tomli
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cmbench import consent
from cmbench.engine import build, loop, runner, trainer
from cmbench.errors import UsageError
from cmbench.forward_mode.dual import value_and_derivative
from cmbench.networks.diffusers import Config, Network
from cmbench.recipe import check_tables

UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
}
DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "patch_size": 2}
SETTINGS = {"UNet2DModel": UNET, "DiTTransformer2DModel": DIT}
LABELS = torch.tensor([1, 0, 2])


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("diffusers")
        _ = package.UNet2DModel, package.DiTTransformer2DModel  # loaded now, as what the package loads warns
    return package


def network(model, classes=0, shape=(2, 8, 8), **settings):
    torch.manual_seed(0)
    config = Config(model=model, settings={**SETTINGS[model], **settings}, class_conditional=bool(classes))
    net = Network(config, shape, classes)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def points(dtype=torch.float64):
    x, v = torch.randn(2, 3, 2, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([3.0, 100.0, 700.0], dtype=dtype), v, torch.tensor([1.0, 4.0, -2.0], dtype=dtype)


@pytest.mark.parametrize("model", SETTINGS)
def test_output_is_that_of_the_package_with_c_noise_as_time(diffusers, model):
    net = network(model, 3).eval()
    x, c, _, _ = points(torch.float32)
    expected = net.net(x, timestep=c, class_labels=LABELS).sample
    assert torch.equal(net(x, c, LABELS), expected)
    assert not torch.allclose(net(x, c + 50, LABELS), expected)
    assert not torch.allclose(net(x, c, LABELS.roll(1)), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own, at the first torch.func.jvp
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("model", SETTINGS)
def test_value_and_derivative_in_one_pass_are_torchs(diffusers, model, classes):
    """No function on the way lacks a rule: a warning would say so."""
    net, (x, c, v, w) = network(model, classes).double().train(), points()
    labels = LABELS if classes else None
    value, derivative = value_and_derivative(net, (x, c, labels), (v, w, None))
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        plain, expected = torch.func.jvp(lambda x, c: net(x, c, labels), (x, c), (v, w))
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(derivative, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())
    assert expected.flatten(1).norm(dim=1).min() > 1e-2


def test_variance_of_a_dit_is_cut_off(diffusers):
    net = network("DiTTransformer2DModel", out_channels=4).eval()
    x, c, _, _ = points(torch.float32)
    whole = net.net(x, c, class_labels=torch.full((3,), 1000)).sample  # 1000, the label that says nothing
    assert whole.shape == (3, 4, 8, 8)
    assert torch.equal(net(x, c), whole[:, :2])


def test_no_label_is_dropped_by_the_network_itself(diffusers):
    net, (x, c, _, _) = network("DiTTransformer2DModel", 3).train(), points(torch.float32)
    state = torch.get_rng_state()
    first = net(x, c, LABELS)
    assert all(torch.equal(first, net(x, c, LABELS)) for _ in range(20))
    assert torch.equal(torch.get_rng_state(), state)


def test_no_labels_are_a_label_without_content(diffusers):
    """Also in a copy of the network, such as an average."""
    net, (x, c, _, _) = network("UNet2DModel", 3).eval(), points(torch.float32)
    for each in (net, copy.deepcopy(net)):
        labelled, without = each(x, c, LABELS), each(x, c)
        assert torch.equal(each(x, c, LABELS), labelled)
        nn.init.zeros_(each.net.class_embedding.weight)
        assert torch.equal(each(x, c, LABELS), without)
        assert not torch.allclose(labelled, without)


# Folders


@pytest.fixture(params=SETTINGS)
def folder(request, diffusers, tmp_path):
    """A folder as the package writes it."""
    torch.manual_seed(3)
    of_labels = {"num_class_embeds": 3} if request.param == "UNet2DModel" else {"num_embeds_ada_norm": 3}
    made = getattr(diffusers, request.param)(
        **SETTINGS[request.param], **of_labels, sample_size=8, in_channels=2, out_channels=2
    )
    made.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_a_folder_s_network_is_read_whole(diffusers, folder):
    config = Config(folder=str(folder), class_conditional=True)
    net = Network(config, (2, 8, 8), 3).eval()
    net.bring_weights()
    original = getattr(diffusers, config.model).from_pretrained(folder).eval()
    x, c, _, _ = points(torch.float32)
    assert torch.equal(net(x, c, LABELS), original(x, c, class_labels=LABELS).sample)


def test_settings_of_a_folder_pass_through_a_run_s_recipe(diffusers, folder):
    """The run's recipe alone makes the network: the folder may be gone."""
    config = Config(folder=str(folder), class_conditional=True)
    network = {"kind": "diffusers", **config.model_dump(mode="json")}
    given = {"name": "x", "data": {"kind": "digits"}, "network": network, "objective": {"kind": "denoise"}}
    whole = build.complete(check_tables(given, "x"), "x")
    text = build.commented(whole)
    (folder / "config.json").unlink()
    again = build.complete(check_tables(tomli.loads(text), "x"), "x")
    assert again.network == whole.network
    states = [Network(made, (2, 8, 8), 3).state_dict() for made in (config, Config(**_table(again)))]
    assert {k: v.shape for k, v in states[0].items()} == {k: v.shape for k, v in states[1].items()}


def _table(whole):
    return {key: value for key, value in whole.network.items() if key != "kind"}


def test_null_of_a_config_is_not_its_default(diffusers, tmp_path):
    """attention_head_dim is 8 by default; null means one head."""
    made = diffusers.UNet2DModel(**{**UNET, "attention_head_dim": None}, sample_size=8, in_channels=2, out_channels=2)
    made.save_pretrained(tmp_path)
    config = Config(folder=str(tmp_path))
    assert config.settings["attention_head_dim"] == "none"
    assert Network(config, (2, 8, 8), 0).net.config.attention_head_dim is None


def test_a_published_dit_folder_of_the_former_class_is_taken(diffusers, tmp_path):
    own = {**DIT, "num_embeds_ada_norm": 3, "in_channels": 2, "sample_size": 8, "out_channels": 4}
    gone = {"_class_name": "Transformer2DModel", "_diffusers_version": "0.12", "cross_attention_dim": None}
    (tmp_path / "config.json").write_text(json.dumps({**own, **gone, "use_linear_projection": False}))
    config = Config(folder=str(tmp_path))
    assert config.model == "DiTTransformer2DModel"
    assert Network(config, (2, 8, 8), 0)(*points(torch.float32)[:2]).shape == (3, 2, 8, 8)


OVERRIDES = ["data.kind=digits", "evaluate.every=0", "snapshot.every=0", "profile.every=0", "train.steps=4"]


@pytest.mark.trains
@pytest.mark.slow
def test_a_run_starts_from_a_folder_and_resumes_without_it(diffusers, home, put_back):
    place = home / "saved"
    diffusers.UNet2DModel(**UNET, sample_size=8, in_channels=1, out_channels=1).save_pretrained(place)
    network = f"network={{kind='diffusers', folder='{place}'}}"
    overrides = [*OVERRIDES, network, "objective={kind='sct'}", "path.kind=trigflow"]
    unbroken = trainer.from_file(home / "tiny.toml", overrides)
    own = diffusers.UNet2DModel.from_pretrained(place).state_dict()
    assert all(torch.equal(unbroken.state.model.F_theta.net.state_dict()[k], v) for k, v in own.items())
    list(loop.train(unbroken))

    made = runner.create(consent.named(home / "tiny.toml", overrides), None, ["cmbench"])
    made.trainer.objective.after_step = lambda model, step: made.request_stop("test") if step == 1 else None
    list(made.records())
    assert made.trainer.state.step == 2
    shutil.rmtree(place)
    again = runner.resume(made.run)
    list(again.records())
    assert again.trainer.state.step == 4
    weights = again.trainer.state.model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in unbroken.state.model.state_dict().items())


# Refusals


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "folder: found .*, whose config.json cannot be read: No such file"),
        ("{", "folder: found .*, whose config.json cannot be read: not JSON"),
        ("[1]", "folder: found .*, whose config.json is no table"),
        ('{"_class_name": "AutoencoderKL"}', "folder: found 'AutoencoderKL' in .*, allowed: UNet2DModel, DiT"),
        ('{"_class_name": ["x"]}', r"folder: found \['x'\] in"),
    ],
)
def test_a_folder_without_a_config_of_a_network_is_refused(tmp_path, write, message):
    if write is not None:
        (tmp_path / "config.json").write_text(write)
    with pytest.raises(ValidationError, match=message):
        Config(folder=str(tmp_path))


def test_another_class_than_the_folder_s_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ValidationError, match=r"model: found .DiTTransformer2DModel., allowed for .*: UNet2DModel"):
        Config(folder=str(tmp_path), model="DiTTransformer2DModel")


def spoilt(folder, how):
    path = folder / "diffusion_pytorch_model.safetensors"
    found = load_file(path)
    first = min(found)
    if how == "pickle":
        path.unlink()
        (folder / "diffusion_pytorch_model.bin").write_bytes(b"no")
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:200])
    else:
        if how == "less":
            del found[first]
        elif how == "more":
            found["more"] = torch.ones(1)
        elif how == "shape":
            found[first] = torch.ones(3, 3)
        elif how == "nan":
            found[first][0] = torch.nan
        save_file(found, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", "allowed: a folder with .*; diffusion_pytorch_model.bin is a pickle"),
        ("damaged", "cannot be read as safetensors"),
        ("less", r"lacks \S+, of another network \(1 names differ\)"),
        ("more", "has more, of another network"),
        ("shape", r"found \[3, 3\], allowed: \["),
        ("nan", "holds numbers that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(diffusers, folder, how, message):
    spoilt(folder, how)
    net = Network(Config(folder=str(folder), class_conditional=True), (2, 8, 8), 3)
    with pytest.raises(UsageError, match=message):
        net.bring_weights()


@pytest.mark.parametrize(
    ("model", "classes", "shape", "settings", "message"),
    [
        ("UNet2DModel", 0, (2, 8, 8), {"layers": 1}, r"settings\.layers: unknown key.*layers_per_block"),
        ("UNet2DModel", 0, (2, 8, 8), {"norm_num_groups": 3}, r"network\.settings: UNet2DModel does not take them"),
        ("UNet2DModel", 0, (2, 8, 8), {"down_block_types": ["X", "Y"]}, r"UNet2DModel does not take them"),
        ("UNet2DModel", 0, (2, 8, 8), {"in_channels": 3}, r"found 3 channels in and 2 out, allowed for these data: 2"),
        ("UNet2DModel", 0, (2, 8, 8), {"out_channels": 5}, r"found 2 channels in and 5 out, allowed for these data"),
        ("UNet2DModel", 3, (2, 8, 8), {"num_class_embeds": 2}, r"num_class_embeds: found 2, allowed: at least 3"),
        ("UNet2DModel", 0, (2, 8, 8), {"num_class_embeds": 2}, r"class_conditional: found false, allowed .*: true"),
        ("DiTTransformer2DModel", 0, (2, 8, 4), {}, r"pictures of 8x4, allowed for DiT: square"),
        ("UNet2DModel", 0, (2,), {}, r"network\.kind: found 'diffusers' for data of shape \[2\]"),
    ],
)
def test_settings_that_do_not_fit_are_refused(diffusers, model, classes, shape, settings, message):
    with pytest.raises(UsageError, match=message):
        network(model, classes, shape, **settings)


def test_two_times_are_refused():
    with pytest.raises(UsageError, match="found 'diffusers', allowed for an objective of two times: unet"):
        Network(Config(), (2, 8, 8), 0, times=2)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UsageError, match=r"needs the diffusers package: pip install 'cmbench\[diffusers\]'"):
        Network(Config(settings=UNET), (2, 8, 8), 0)
