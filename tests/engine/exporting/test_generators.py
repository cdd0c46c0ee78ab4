"""A generator is the sampler's function, on every path, and a graph of any batch size for every network."""

import ast
import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY

from cmbench.engine import build
from cmbench.engine.doctor import probe
from cmbench.engine.exporting import check, formats, generator, programs
from cmbench.engine.sample import default_sigmas
from cmbench.engine.weights import Trained
from cmbench.errors import UsageError
from cmbench.recipe import load

UNETS = {"width": 8, "multipliers": [1, 2], "depth": 1, "attention": [4]}
SETTINGS = {
    "mlp": {"width": 16, "depth": 2},
    "unet": {**UNETS, "multipliers": [1]} | {"attention": []},
    "dit": {"width": 16, "depth": 1},
    "ddpmpp": UNETS,
    "ncsnpp": UNETS,
    "adm": {**UNETS, "head_channels": 8},
    "edm2": {**UNETS, "head_channels": 8},
}
CLASSES = 3
# objective and path: each sampler on each path that it has
SAMPLED = [
    ("ct", "edm"),
    ("continuous", "vp"),
    ("sct", "trigflow"),
    ("continuous", "linear"),
    ("denoise", "edm"),
    ("denoise", "vp"),
    ("denoise", "trigflow"),
    ("denoise", "linear"),
    ("meanflow", "linear"),
]


def trained(folder, kind="mlp", objective="ct", path="edm", conditional=False, **keys):
    """A model with weights that are not zero, as a checkpoint has it."""
    (folder / "tiny.toml").write_text(TINY)
    shape = (2,) if kind == "mlp" else (1, 8, 8)
    data = "{kind='mixtures'}" if kind == "mlp" else "{kind='digits'}"
    overrides = [f"data={data}", f"network.kind={kind}", f"objective={{kind='{objective}'}}", f"path={{kind='{path}'}}"]
    given = load(folder / "tiny.toml", [*overrides, *(f"{key}={value}" for key, value in keys.items())])
    network = {"kind": kind, **SETTINGS[kind], "class_conditional": conditional}
    recipe = build.complete(given.model_copy(update={"network": network}), "x")
    model = probe.copied(build.model(recipe, shape, CLASSES, torch.device("cpu")))
    return Trained(model, recipe, build.component("objective", objective)[0].sampler, CLASSES, 7, "none")


def largest(a, b):
    return (a - b).abs().max().item()


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(("objective", "path"), SAMPLED)
def test_a_generator_gives_the_samples_of_the_sampler(tmp_path, objective, path, steps, conditional):
    own = trained(tmp_path, "mlp", objective, path, conditional)
    sigmas = default_sigmas(own.model, own.sampler, steps)
    found, made = check.reference(own, sigmas), generator.of(own, sigmas)
    assert largest(made(**found.inputs), found.samples) < 1e-6 * found.samples.abs().max()
    assert ("noise" in found.inputs) == (made.plan.noises > 0)
    assert found.samples.std() > 0.01


def test_weights_that_two_layers_share_are_written_under_both_names(tmp_path):
    own = trained(tmp_path)
    made = generator.of(own, [80.0])
    hidden = made.F_theta.hidden
    hidden.append(copy.copy(hidden[0]))
    formats.write("safetensors", tmp_path, own, made, check.reference(own, [80.0]))
    found = load_file(tmp_path / "F_theta.safetensors")
    assert found.keys() == made.F_theta.state_dict().keys()
    assert torch.equal(found["hidden.1.weight"], hidden[0].weight)


def test_times_in_float64_stay_so(tmp_path):
    own = trained(tmp_path, "mlp", "sct", "trigflow", **{"path.time_precision": "'float64'"})
    made = generator.of(own, [80.0])
    assert made.c_noise_0.dtype == torch.float64
    found = check.reference(own, [80.0])
    assert largest(made(**found.inputs), found.samples) < 1e-6


def test_a_run_in_bfloat16_is_compared_in_float32(tmp_path):
    own = trained(tmp_path, "mlp", **{"train.precision": "'bfloat16'"})
    found = check.reference(own, [80.0])
    assert largest(generator.of(own, [80.0])(**found.inputs), found.samples) < 1e-6
    assert own.model.autocast is torch.bfloat16


def test_a_sampler_of_its_own_is_refused(tmp_path):
    own = trained(tmp_path)
    with pytest.raises(UsageError, match="samples by 'mine' and cannot be exported; allowed"):
        generator.plan(Trained(own.model, own.recipe, "mine", CLASSES, 7, "none"), [80.0])


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize(
    ("kind", "objective", "path"),
    [
        ("mlp", "ct", "edm"),
        ("mlp", "meanflow", "linear"),
        ("dit", "continuous", "vp"),
        ("unet", "sct", "trigflow"),
        pytest.param("ddpmpp", "continuous", "linear", marks=pytest.mark.long),
        pytest.param("ncsnpp", "ct", "edm", marks=pytest.mark.long),
        pytest.param("adm", "continuous", "vp", marks=pytest.mark.long),
        pytest.param("edm2", "sct", "trigflow", marks=pytest.mark.long),
    ],
)
def test_a_graph_of_each_network_takes_any_batch(tmp_path, kind, objective, path, conditional):
    own = trained(tmp_path, kind, objective, path, conditional)
    sigmas = default_sigmas(own.model, own.sampler, 1)
    found = check.reference(own, sigmas)
    generate = programs.of_generator(generator.of(own, sigmas), found).module()
    for size in (len(found.samples), 5, 1):
        samples = generate(**{name: value[:size] for name, value in found.inputs.items()})
        assert largest(samples, found.samples[:size]) < 1e-5
    assert found.samples.std() > 0.01


def test_what_no_graph_can_hold_is_refused_in_one_line(tmp_path):
    own = trained(tmp_path)
    found = check.reference(own, [80.0])
    made = generator.of(own, [80.0])
    made.F_theta.forward = lambda x, c_noise, labels: x * len(x.numpy())
    with pytest.raises(UsageError, match=r"^network: torch\.export cannot trace it: [^\n]*$"):
        programs.of_generator(made, found)


def test_the_graph_of_the_network_holds_no_weights(tmp_path):
    own = trained(tmp_path, "dit")
    program, constants = programs.of_network(generator.of(own, [80.0]), check.reference(own, [80.0]))
    assert not any(value.any() for name, value in program.state_dict.items() if name not in constants)
    assert next(own.model.F_theta.parameters()).any()


def test_the_script_of_the_check_imports_nothing_of_ours():
    text = Path(check.__file__).with_name("alone.py").read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [node for node in imports if "cmbench" in ast.unparse(node)]
    assert [ast.unparse(node) for node in ours] == ["import cmbench"]  # where it is seen to fail
    assert text.index('sys.modules["cmbench"] = None') < text.index("import cmbench")
