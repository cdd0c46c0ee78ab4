"""Defects of public code that have no better place: each test fails when its defect is put in.

Those that the other files hold: dropout masks, profile times, masked samples, lost gradients and rounded times in
test_every_objective; the N - 1 of mu in test_ct; the distance, the proposal and the scalings of iCT in test_ict and
tests/equations; the tangent of sCM in test_sct_and_scd; the proportions of MeanFlow in test_meanflow.
"""

import pytest
import torch
import toy
from test_every_objective import MODULES, STEP, build, on_path
from tiny import DISTILL

from cmbench.engine import build as engine
from cmbench.engine import loop, trainer
from cmbench.errors import UsageError
from cmbench.objectives._scm import Config as ScmConfig
from cmbench.randomness import StepRandom
from cmbench.recipe import check_tables
from cmbench.tables import Optimizer, PathTable

# Every key, another value for it, and what else must be set for the key to matter.
OTHER = {
    "denoise": {"P_mean": (0.0, {}), "P_std": (2.0, {}), "weighting": ("velocity", {}), "log_variance": ("linear", {})},
    "ct": {
        "s_0": (5, {}),
        "s_1": (80, {}),
        "mu_0": (0.5, {}),
        "rho": (3.0, {}),
        "distance": ("norm", {}),
        "huber_c": (0.3, {"distance": "pseudo_huber"}),
        "weighting": ("edm", {}),
    },
    "cd": {
        "N": (9, {}),
        "solver": ("euler", {}),
        "mu": (0.5, {}),
        "rho": (3.0, {}),
        "distance": ("norm", {}),
        "huber_c": (0.3, {"distance": "pseudo_huber"}),
        "weighting": ("edm", {}),
    },
    "ict": {
        "s_0": (20, {}),
        "s_1": (80, {}),
        "rho": (3.0, {}),
        "P_mean": (1.1, {}),
        "P_std": (1.0, {}),
        "distance": ("l2", {}),
        "huber_c": (0.3, {}),
        "weighting": ("uniform", {}),
    },
    "ect": {
        "P_mean": (0.0, {}),
        "P_std": (1.0, {}),
        "q": (4.0, {}),
        "stages": (4, {}),
        "adjustment": ("constant", {}),
        "k": (2.0, {}),
        "b": (3.0, {}),
        "distance": ("l2", {}),
        "huber_c": (0.3, {"distance": "pseudo_huber"}),
        "weighting": ("edm", {}),
    },
    "tcm": {
        "t_prime": (2.0, {}),
        "ratio": (0.9, {}),
        "k": (2.0, {"ratio": 0.9}),
        "b": (3.0, {"ratio": 0.9}),
        "nu": (1.0, {}),
        "scale": (0.6, {}),
        "boundary_share": (0.5, {}),
        "boundary_weight": (0.5, {}),
        "distance": ("l2", {}),
        "huber_c": (0.3, {"distance": "pseudo_huber"}),
        "weighting": ("uniform", {}),
    },
    "continuous": {
        "P_mean": (0.0, {}),
        "P_std": (1.0, {}),
        "weighting": ("edm", {}),
        "reduction": ("mean", {}),
        "tangent_method": ("finite_difference", {"tangent_step": 0.05}),
        "tangent_step": (0.05, {"tangent_method": "finite_difference"}),
    },
    "meanflow": {
        "P_mean": (0.5, {}),
        "P_std": (0.5, {}),
        "share_apart": (0.75, {}),
        "p": (0.5, {}),
        "c": (0.1, {}),
        "tangent_method": ("finite_difference", {"tangent_step": 0.05}),
        "tangent_step": (0.05, {"tangent_method": "finite_difference"}),
    },
    "sct": {
        "P_mean": (0.0, {}),
        "P_std": (1.0, {}),
        "tangent": ("naive", {"tangent_method": "finite_difference", "tangent_step": 0.05, "tangent_warmup": 0}),
        "tangent_method": ("finite_difference", {"tangent_step": 0.05, "tangent_warmup": 0}),
        "tangent_step": (0.05, {"tangent_method": "finite_difference", "tangent_warmup": 0}),
        "tangent_warmup": (10, {}),
        "tangent_normalisation": ("rms", {}),
        "tangent_c": (1.0, {}),
        "weighting": ("cosine", {}),
        "prior": ("inverse_tan", {}),
        "reduction": ("sum", {}),
    },
}
OTHER["scd"] = OTHER["sct"]
KEYS = [pytest.param(kind, key, id=f"{kind}-{key}") for kind in OTHER for key in OTHER[kind]]


def training(kind, x_0, **settings):
    """Return the losses of some steps, and the weights after them."""
    model = on_path(kind, toy.Tiny())
    objective, losses = build(kind, model, **settings), []
    optimizer = torch.optim.SGD([*model.parameters(), *(p for p in objective.parameters() if p.requires_grad)], 1e-3)
    for step in range(STEP, STEP + 3):
        optimizer.zero_grad()
        total = objective.loss(model, x_0, None, step, StepRandom(torch.device("cpu"), 0, step)).total
        total.backward()
        optimizer.step()
        objective.after_step(model, step)
        losses.append(total.item())
    return losses, model.F_theta.weights.tolist()


@pytest.mark.parametrize(("kind", "key"), KEYS)
def test_no_key_of_an_objective_is_ignored(x_0, kind, key):
    """Defect 19b. Values are told apart by more than rounding."""
    value, given = OTHER[kind][key]
    losses, weights = training(kind, x_0, **given)
    other_losses, other_weights = training(kind, x_0, **{**given, key: value})
    assert other_losses != pytest.approx(losses, rel=1e-9)
    assert other_weights[:3] != pytest.approx(weights[:3], rel=1e-12)


@pytest.mark.parametrize("kind", OTHER)
def test_no_key_of_an_objective_is_forgotten_here(kind):
    """`form` alone changes no number: test_both_forms_have_one_gradient tells its values apart."""
    assert set(OTHER[kind]) | {"form"} == set(MODULES[kind].Config.model_fields) | {"form"}
    assert set(MODULES) == set(OTHER)
    assert MODULES["sct"].Config is MODULES["scd"].Config is ScmConfig


@pytest.mark.parametrize(
    ("override", "given"),
    [
        ("kind=adamw", ("weight_decay=0.1",)),
        ("lr=0.02", ()),
        ("betas=[0.5, 0.999]", ()),
        ("betas=[0.9, 0.9]", ()),
        ("eps=0.1", ()),
        ("weight_decay=0.1", ()),
        ("warmup=6", ()),
        ("decay=cosine", ()),
        ("decay_after=6", ("decay=cosine",)),
        ("decay_after=3", ("decay=inverse_sqrt", "decay_after=6")),
        ("clip=0.01", ()),
        ("clip=0.01", ("kind=radam",)),
        ("warmup=6", ("kind=radam",)),
    ],
)
def test_no_key_of_the_optimiser_is_ignored(home, put_back, override, given):
    """Defect 19b: public code drops warm-up and clipping where the optimiser is RAdam."""
    assert override.split("=")[0] in Optimizer.model_fields
    quiet = ["snapshot.every=0", "evaluate.every=0", "checkpoint.every=0", "profile.every=0"]

    def weights(*settings):
        sets = ["kind=adam", *settings]
        built = trainer.from_file(home / "tiny.toml", [*quiet, *(f"optimizer.{s}" for s in sets)])
        list(loop.train(built))
        return torch.cat([p.detach().flatten() for p in built.state.model.parameters()])

    assert not torch.allclose(weights(*given), weights(*given, override), rtol=1e-4, atol=1e-6)


def test_no_key_of_the_optimiser_is_forgotten_here():
    (parameters,) = (mark for mark in test_no_key_of_the_optimiser_is_ignored.pytestmark)
    speed_alone = {"fused"}  # whose results differ in last bits: tests/engine/test_gpu_settings.py
    assert {override.split("=")[0] for override, _ in parameters.args[1]} == set(Optimizer.model_fields) - speed_alone


PATH_KEYS = {
    "kind": "vp",
    "sigma_data": 0.7,
    "sigma_min": 0.01,
    "sigma_max": 20.0,
    "sigma_mid": 0.8,
    "scalings": "trigflow",
    "boundary": "zero",
    "c_noise": "angle",
    "time_precision": "float64",
}


@pytest.mark.parametrize("key", PATH_KEYS)
def test_no_key_of_the_path_is_ignored(home, put_back, key):
    """Defect 19b. The precision of times shows in the last digits of float32 alone, sigma_mid in two-step samples."""
    assert set(PATH_KEYS) == set(PathTable.model_fields)
    quiet = ["snapshot.every=0", "evaluate.every=0", "checkpoint.every=0", "profile.every=0"]
    kind = "ct" if key in ("sigma_min", "sigma_max") else "continuous"

    def weights(*overrides):
        sets = [*quiet, f"objective.kind={kind}", "path.kind=edm", *overrides]
        built = trainer.from_file(home / "tiny.toml", sets)
        list(loop.train(built))
        parts = [built.sample(8, steps=2)] if key == "sigma_mid" else built.state.model.parameters()
        return torch.cat([part.detach().flatten() for part in parts])

    assert not torch.equal(weights(), weights(f"path.{key}={PATH_KEYS[key]}"))


ENGINE = {
    "denoise": ["objective.kind=denoise"],
    "ct": [],
    "cd": ["objective.kind=cd", "objective.mu=0.5", "teacher.kind=oracle"],
    "ict": ["objective.kind=ict"],
    "ect": ["objective.kind=ect", "objective.stages=4"],
    "tcm": ["objective.kind=tcm", "teacher.kind=run", "teacher.run=@latest:tiny"],
    "continuous": ["objective.kind=continuous", "path.kind=vp"],
    "meanflow": ["objective.kind=meanflow", "path.kind=linear"],
    "sct": ["objective.kind=sct", "path.kind=trigflow", "objective.tangent_warmup=8"],
    "scd": ["objective.kind=scd", "path.kind=trigflow", "objective.tangent_warmup=8", "teacher.kind=oracle"],
}


@pytest.mark.parametrize("kind", ENGINE)
def test_a_trainer_with_the_state_of_another_goes_on_as_it(home, put_back, trained, kind):
    """Defects 5 and 8, with stage, warm-up and target between; tests/engine/test_resume.py goes through the disk."""
    sets = ["snapshot.every=0", "evaluate.every=0", "network.dropout=0.5", "profile.anatomy_every=2", "log.every=1"]
    one, other = (trainer.from_file(home / "tiny.toml", [*sets, *ENGINE[kind]]) for _ in range(2))

    def train(built, until):
        rows = []
        for event in loop.train(built):
            if isinstance(event, (loop.Metrics, loop.Profiled)):
                rows.append({k: v for k, v in event.values.items() if k != "images_per_s"})
            if isinstance(event, loop.Stepped) and event.step == until:
                return rows
        return rows

    train(one, 5)
    saved = {group: {k: v.clone() for k, v in tensors.items()} for group, tensors in one.state.groups().items()}
    rows = train(one, 12)
    torch.manual_seed(99)
    other.state.load(5, saved)
    assert train(other, 12) == rows
    assert len(rows) == 9  # seven steps and two profiles
    for group, tensors in one.state.groups().items():
        mine = other.state.groups()[group]
        assert all(torch.equal(mine[name], tensor) for name, tensor in tensors.items()), group


def test_a_student_does_not_start_as_its_teacher_unless_asked(home, put_back, teacher):
    """Defect 6b: a command line of public code trains "from scratch" from the teacher's weights."""
    fresh = trainer.from_file(home / "tiny.toml").state.model.state_dict()
    sets = [*DISTILL, f"teacher.run={teacher.name}"]
    student = trainer.from_file(home / "tiny.toml", sets)
    assert all(torch.equal(student.state.model.state_dict()[name], tensor) for name, tensor in fresh.items())
    asked = trainer.from_file(home / "tiny.toml", [*sets, "teacher.initialise_student=true"])
    name = "F_theta.output.weight"
    assert not torch.equal(asked.state.model.state_dict()[name], fresh[name])
    assert torch.equal(asked.state.model.state_dict()[name], asked.teacher.denoiser.model.state_dict()[name])


TABLES = {
    "name": "x",
    "data": {"kind": "mixtures", "name": "ring"},
    "network": {"kind": "mlp"},
}


@pytest.mark.parametrize(
    ("objective", "others", "says"),
    [
        ("sct", {"path": {"kind": "edm"}}, "path.kind: found 'edm', allowed for objective 'sct': trigflow"),
        ("scd", {"path": {"kind": "vp"}}, "path.kind: found 'vp', allowed for objective 'scd': trigflow"),
        ("meanflow", {"path": {"kind": "edm"}}, "path.kind: found 'edm', allowed for objective 'meanflow': linear"),
        ("ict", {"path": {"kind": "linear"}}, "path.kind: found 'linear', allowed for objective 'ict': edm"),
        ("ect", {"path": {"kind": "vp"}}, "path.kind: found 'vp', allowed for objective 'ect': edm"),
        ("tcm", {"path": {"kind": "trigflow"}}, "path.kind: found 'trigflow', allowed for objective 'tcm': edm"),
        ("scd", {"path": {"kind": "trigflow"}}, "teacher: missing, and objective 'scd' needs it"),
        ("tcm", {}, "teacher: missing, and objective 'tcm' needs it (kind = 'run' or 'file')"),
        ("tcm", {"teacher": {"kind": "oracle"}}, "teacher.kind: found 'oracle', allowed for objective 'tcm': run"),
        ("ict", {"teacher": {"kind": "oracle"}}, "teacher: found one, allowed: none, since objective 'ict'"),
        ("ect", {"teacher": {"kind": "oracle"}}, "teacher: found one, allowed: none, since objective 'ect'"),
        (
            "sct",
            {"path": {"kind": "trigflow"}, "teacher": {"kind": "oracle"}},
            "teacher: found one, allowed: none, since objective 'sct'",
        ),
    ],
)
def test_what_an_objective_has_no_use_for_is_refused(objective, others, says):
    """Defect 17: whether there is a teacher decides nothing silently."""
    tables = {**TABLES, **others, "objective": {"kind": objective}}
    with pytest.raises(UsageError) as raised:
        engine.complete(check_tables(tables, "x.toml"), "x.toml")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("value", [-1.0, "mean", float("nan")])
def test_values_out_of_range_are_refused(kind, value):
    """Every number and every choice has its range; an unknown key is an error."""
    fields = MODULES[kind].Config.model_fields
    with pytest.raises(ValueError, match="Extra inputs"):
        MODULES[kind].Config(warmup=3)
    free = {"P_mean"} | ({"reduction"} if value == "mean" else set())
    for key in set(fields) - free:
        with pytest.raises(ValueError, match=key):
            MODULES[kind].Config(**{key: value})
