"""`cmbench export --as diffusers`: a ConsistencyModelPipeline where it computes the run's function, else a refusal."""

import json
import warnings

import pytest
import torch
from tiny import TINY

from cmbench import consent
from cmbench.engine import runner
from cmbench.engine.exporting import pipeline
from cmbench.equations.timesteps import karras_grid

SETTINGS = (
    "network.settings={block_out_channels=[8], down_block_types=['DownBlock2D'], up_block_types=['UpBlock2D'], "
    "layers_per_block=1, norm_num_groups=4, attention_head_dim=4}"
)
UNET = ["network.kind=diffusers", SETTINGS, "data={kind='digits'}", "path.c_noise=log_1000", "snapshot.n=4"]
FEW = ["train.steps=2", "checkpoint.every=2", "evaluate.every=0", "evaluate.n=8", "data.kind=digits"]


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("diffusers")
        _ = package.UNet2DModel, package.ConsistencyModelPipeline, package.CMStochasticIterativeScheduler
    return package


def train(home, *overrides):
    (home / "tiny.toml").write_text(TINY)
    given = consent.named(home / "tiny.toml", [*UNET, *FEW, *overrides])
    made = runner.create(given, home / "runs", ["cmbench"])
    list(made.records())
    return made.run


@pytest.mark.long
@pytest.mark.parametrize(
    "overrides", [["network.class_conditional=true", "path.sigma_mid=0.8"], ["path.boundary=zero"]]
)
def test_a_pipeline_gives_the_samples_of_the_run(cmbench, home, diffusers, overrides):
    run = train(home, *overrides)
    done = cmbench("export", run.path, "--as", "diffusers", "--steps", 2, "--out", "x", "--json")
    assert done.code == 0, done
    assert json.loads(done.out)["difference"] < 3e-5
    told = json.loads((home / "x" / "scheduler" / "scheduler_config.json").read_text())
    assert told["clip_denoised"] is False
    assert {"model_index.json", "scheduler", "unet", "README.md", "samples.png"} == {
        p.name for p in (home / "x").iterdir()
    }
    assert "ConsistencyModelPipeline.from_pretrained" in (home / "x" / "README.md").read_text()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("path.c_noise=log", "path.c_noise: found 'log', the pipeline computes 'log_1000'"),
        ("path.kind=vp", "path.kind: found 'vp', the pipeline computes 'edm'"),
        ("objective={kind='denoise'}", "objective 'denoise' trains no consistency function"),
    ],
)
def test_another_function_is_refused_with_the_formats_that_take_it(cmbench, home, diffusers, override, said):
    objective = ["objective={kind='continuous'}"] if "vp" in override else []
    run = train(home, *objective, override)
    done = cmbench("export", run.path, "--as", "diffusers", "--out", "x")
    assert done.code == 2
    assert said in done.err
    assert done.err.endswith("allowed for this run: --as safetensors, torch or onnx\n")
    assert not (home / "x").exists()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_the_levels_of_the_karras_grid_lie_on_a_small_grid(steps):
    sigmas = karras_grid(steps + 1, 0.002, 80.0).flip(0)[:-1].tolist()
    count, timesteps = pipeline.grid(sigmas, 0.002, 80.0)
    assert count <= 50
    assert timesteps == [k * (count // steps) for k in range(steps)][::-1]  # as `num_inference_steps` chooses them


@pytest.mark.parametrize("lowest", [0.002, 0.0])
def test_any_level_lies_on_a_fine_grid(lowest):
    sigmas = [80.0, 0.8123]
    count, timesteps = pipeline.grid(sigmas, lowest, 80.0)
    ends = torch.tensor([80.0, lowest], dtype=torch.float64) ** (1 / 7)
    found = (ends[0] + torch.tensor(timesteps[::-1]).double() / (count - 1) * (ends[1] - ends[0])) ** 7
    assert found.tolist() == pytest.approx(sigmas, rel=1e-10)
