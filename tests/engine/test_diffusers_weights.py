"""A folder that diffusers has saved: imported, sampled, a teacher and a start, with the outputs of diffusers itself."""

import shutil
import warnings

import pytest
import torch
from tiny import set_options
from torch import nn

from cmbench.engine import start, trainer, weights
from cmbench.errors import UsageError
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs

CPU = torch.device("cpu")
SHAPE = {"in_channels": 1, "out_channels": 1, "sample_size": 8, "norm_num_groups": 4}
UNET = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 4,
}
DIT = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "patch_size": 2, "num_embeds_ada_norm": 10}
SETTINGS = {"UNet2DModel": UNET, "DiTTransformer2DModel": DIT}
IMPORT = ["--network", "diffusers", *set_options(["path.c_noise=log_1000", "data.shape=[1, 8, 8]", "data.classes=10"])]
QUIET = ["data.kind=digits", "path.c_noise=log_1000", "evaluate.every=0", "snapshot.every=0", "profile.every=0"]
TEACHER = ["teacher.kind=file", "teacher.network={kind='diffusers'}", "teacher.path={c_noise='log_1000'}"]
SIGMA = torch.tensor([0.01, 0.5, 30.0])


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("diffusers")
        _ = package.UNet2DModel, package.DiTTransformer2DModel  # loaded now, as what the package loads warns
    return package


@pytest.fixture(params=SETTINGS)
def theirs(request, diffusers, home):
    """A network of diffusers with weights of its own, saved to saved/ by the package."""
    torch.manual_seed(4)
    network = getattr(diffusers, request.param)(**SHAPE, **SETTINGS[request.param])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    network.save_pretrained(home / "saved")
    return network.eval().requires_grad_(False)


@pytest.fixture
def unet(diffusers, home):
    torch.manual_seed(4)
    diffusers.UNet2DModel(**SHAPE, **UNET).save_pretrained(home / "saved")
    return home / "saved"


def denoised(network, x):
    """D = c_skip x + c_out F(c_in x, 1000 ln(sigma) / 4), written here from the paper (Karras et al. 2022, table 1)."""
    s = SIGMA[:, None, None, None]
    total = s.square() + 0.25
    more = {"class_labels": torch.full((3,), 10)} if type(network).__name__.startswith("DiT") else {}
    (F,) = network(x / total.sqrt(), 250 * SIGMA.log(), return_dict=False, **more)
    return 0.25 / total * x + 0.5 * s / total.sqrt() * F


def assert_same(model, network):
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (model.denoise(x, SIGMA) - denoised(network, x)).abs().max() < 1e-6 * x.abs().max()


@pytest.mark.slow
def test_a_folder_is_imported_and_sampled_as_diffusers_computes(theirs, home, cmbench):
    cmbench("import", "saved", *IMPORT, "--out", "d")
    shutil.rmtree(home / "saved")
    run = RunDir(home / "runs" / "d")
    loaded = weights.load(run, CPU)
    assert_same(loaded.model.on_edm_path(), theirs)
    assert loaded.recipe.network["folder"] == ""
    assert read_json(run.meta)["source"]["file"] == str(home / "saved")
    for command in (["sample", "d", "--steps", "2", "-n", "2"], ["show", "d"], ["ls"], ["watch", "d", "--plain"]):
        cmbench(*command)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["unet", "transformer"])
def test_a_pipeline_holds_the_folder_of_its_network(unet, home, cmbench, part):
    (home / "pipeline").mkdir()
    unet.rename(home / "pipeline" / part)
    cmbench("import", "pipeline", *IMPORT, "--out", "d")
    assert weights.load(RunDir(home / "runs" / "d"), CPU).recipe.network["settings"]["layers_per_block"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["cd", "scd"])
def test_a_folder_teaches_and_begins_its_student(theirs, home, objective):
    path = ["path.kind=trigflow", "path.scalings=edm"] if objective == "scd" else []
    own = ["network={kind='diffusers', folder='saved'}", "teacher.initialise_student=true", "teacher.file=saved"]
    built = trainer.from_file(home / "tiny.toml", [*QUIET, *TEACHER, *path, *own, f"objective={{kind='{objective}'}}"])
    assert_same(built.teacher.denoiser, theirs)
    tensors = built.state.model.F_theta.net.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in theirs.state_dict().items())
    if objective == "cd":  # TrigFlow's time, rounded to float32 and multiplied by 1000, is another by 1e-4
        assert_same(built.state.model.on_edm_path(), theirs)


@pytest.mark.slow
def test_a_folder_begins_a_run_of_ect(theirs, home):
    own = ["network={kind='diffusers', folder='saved'}", "start.file=saved", "objective={kind='ect'}"]
    built = trainer.from_file(home / "tiny.toml", [*QUIET, *own])
    tensors = built.state.model.F_theta.net.state_dict()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in theirs.state_dict().items())


@pytest.mark.slow
def test_a_run_begins_with_a_run_whose_folder_lay_elsewhere(unet, home, cmbench):
    """The folder is where the network once was; what it is stands in the recipe."""
    shutil.copytree(unet, home / "copy")
    network = "network={{kind='diffusers', folder='{}'}}"
    cmbench("run", "tiny.toml", *set_options([*QUIET, network.format("saved"), "train.steps=1"]))
    (source,) = all_runs(home / "runs")
    built = trainer.from_file(home / "tiny.toml", [*QUIET, network.format("copy"), f"start.run={source.name}"])
    assert built.start.error == 0
    other = "network={kind='diffusers', settings={block_out_channels=[8, 8]}}"
    with pytest.raises(UsageError, match=r"network\.settings"):
        trainer.from_file(home / "tiny.toml", [*QUIET, other, f"start.run={source.name}"])
    assert isinstance(built.start, start.Start)


@pytest.mark.slow
def test_averages_of_diffusers_own_ema_are_taken(diffusers, home, cmbench):
    """EMAModel keeps them in a list; with the network's state dict beside it, and alone."""
    from diffusers.training_utils import EMAModel

    torch.manual_seed(4)
    network = diffusers.UNet2DModel(**SHAPE, **UNET)
    average = EMAModel(network.parameters(), decay=0.5)
    wanted = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    network.save_pretrained(home / "saved")
    torch.save({"model": network.state_dict(), "ema": average.state_dict()}, home / "both.pt")
    torch.save(average.state_dict(), home / "alone.pt")
    folder = set_options(["network.folder=saved"])
    for name in ("both", "alone"):
        cmbench("import", f"{name}.pt", *IMPORT, *folder, "--out", name)
        found = weights.load(RunDir(home / "runs" / name), CPU).model.F_theta.net.state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())
