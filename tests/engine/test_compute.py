"""What training costs: counted in passes, weighed by floating-point operations, carried from run to run."""

import pytest
import torch
from fake_runs import read_rows
from tiny import DISTILL, TEACHER

from cmbench import consent
from cmbench.engine import compute, loop, runner, trainer, weights
from cmbench.engine.compute import Compute

CPU = torch.device("cpu")
IMAGES = 12 * 8


def multiplications(width: int, depth: int, embedding: int = 64) -> int:
    """Of the multilayer perceptron in the plane: x and the embedding enter, depth - 1 square layers, two leave."""
    return 2 * width + embedding * width + (depth - 1) * width**2 + 2 * width


def build(home, *overrides: str) -> trainer.Trainer:
    return trainer.from_file(home / "tiny.toml", overrides)


@pytest.mark.parametrize(("width", "depth"), [(32, 1), (16, 3), (8, 2)])
def test_cost_of_a_network_is_that_of_its_matrix_products(home, width, depth):
    unit = build(home).state.model
    other = build(home, f"network.width={width}", f"network.depth={depth}").state.model
    expected = multiplications(width, depth) / multiplications(16, 1)
    assert compute.relative_cost(other, unit) == pytest.approx(expected, rel=1e-12)
    assert compute.relative_cost(unit, other) == pytest.approx(1 / expected, rel=1e-12)


@pytest.mark.parametrize("path", ["vp", "trigflow", "linear"])
def test_cost_does_not_depend_on_the_path_nor_change_the_model(home, path):
    unit = build(home).state.model
    other = build(home, "objective={kind='denoise'}", f"path.kind={path}", "path.time_precision=float64").state.model
    assert compute.relative_cost(other.train(), unit) == 1
    assert other.training
    assert other.last_F is None


def test_passes_are_summed_and_the_teachers_weighed(home):
    student = build(home).state.model
    teacher = build(home, "network.width=64", "network.depth=2").state.model
    forwards = {"student": 3.0, "target": 1.0, "teacher": 2.0}
    rel = multiplications(64, 2) / multiplications(16, 1)
    assert compute.per_image(forwards, compute.relative_cost(teacher, student)) == pytest.approx(4 + 2 * rel)
    assert compute.per_image(forwards, 0) == 4
    assert compute.per_image({"student": 3.0, "tangent": 1.0}, 5.0) == 4


def test_figures_of_a_row():
    assert Compute(4.0).so_far(100) == {"forwards_per_image": 4, "forwards": 400}
    carried = Compute(4.0, before=50.0).so_far(100)
    assert carried == {"forwards_per_image": 4, "forwards": 400, "forwards_with_teacher": 450}


@pytest.mark.parametrize(
    ("overrides", "passes"),
    [
        ([], 4),
        (TEACHER, 3),
        (["objective.kind=cd", "teacher.kind=oracle"], 4),
        (["objective.kind=cd", "objective.solver=euler", "teacher.kind=oracle"], 4),
        (["objective={kind='ect'}"], 4),
        (["objective={kind='continuous', tangent_method='jvp'}"], 5),
        (["objective={kind='continuous', tangent_method='dual'}"], 4),
    ],
)
def test_passes_of_an_image_without_a_trained_teacher(home, overrides, passes):
    """Forward and backward of the student 3, a target 1, a derivative by jvp 2 and by dual numbers 1, an oracle 0."""
    built = build(home, *overrides)
    assert (built.compute.per_image, built.compute.before) == (passes, 0)


@pytest.mark.parametrize(("solver", "passes"), [("heun", 2), ("euler", 1)])
def test_a_trained_teacher_costs_what_its_network_costs(home, teacher, solver, passes):
    overrides = [*DISTILL, f"objective.solver={solver}", f"teacher.run={teacher.name}", "network.width=8"]
    built = build(home, *overrides)
    rel = multiplications(16, 1) / multiplications(8, 1)
    assert built.compute.per_image == pytest.approx(4 + passes * rel)
    assert built.compute.before == pytest.approx(IMAGES * 3 * rel)


OWN = """
import torch
from torch import nn

class Teacher:
    def __init__(self, data):
        self.passes = 0

    def denoise(self, x, sigma, labels=None):
        self.passes += 1
        return torch.zeros_like(x)

class Layer(nn.Linear):
    def __init__(self, data):
        super().__init__(2, 2)

    def denoise(self, x, sigma, labels=None):
        return self(x) if labels is None else self(self(x))
"""


@pytest.mark.parametrize(
    ("kind", "overrides", "cost"),
    [
        ("Teacher", [], 1),
        ("Layer", [], 4 / multiplications(16, 1)),
        ("Layer", ["network.class_conditional=true"], 8 / multiplications(16, 1)),
    ],
)
@pytest.mark.parametrize(("solver", "calls"), [("heun", 2), ("euler", 1)])
def test_a_teacher_of_ones_own_costs_a_forward_a_call_or_what_its_module_costs(
    home, put_back, kind, overrides, cost, solver, calls
):
    (home / "own_teacher.py").write_text(OWN)
    own = [f"teacher.kind=own_teacher:{kind}", "objective.kind=cd", f"objective.solver={solver}"]
    built = build(home, *own, *overrides)
    assert built.compute.per_image == pytest.approx(4 + calls * cost)
    if kind == "Teacher":
        before = built.teacher.denoiser.passes
        next(loop.train(built))
        assert built.teacher.denoiser.passes - before == calls


def test_cost_is_written_down_and_carried_from_run_to_run(home, teacher, put_back):
    made = runner.create(consent.named(home / "tiny.toml", [*DISTILL, f"teacher.run={teacher.name}"]), None, [])
    list(made.records())
    rows = [row for row in read_rows(made.run.metrics) if "loss" in row]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    for row in rows:
        assert row["forwards_per_image"] == 6
        assert row["forwards"] == 6 * row["images"] == 6 * 8 * row["step"]
        assert row["forwards_with_teacher"] == row["forwards"] + 3 * IMAGES
    assert weights.load(made.run, CPU).forwards == 9 * IMAGES
    assert weights.load(made.run, CPU, step=10).forwards == 6 * 80 + 3 * IMAGES  # between two rows
    kept = weights.load_kept(made.run.teacher, CPU)
    assert kept.forwards == 3 * IMAGES
    third = build(home, "objective={kind='tcm'}", "teacher.kind=run", f"teacher.run={made.run.name}")
    assert third.compute.before == 9 * IMAGES


def test_cost_survives_the_teachers_run(home, teacher, put_back):
    made = runner.create(consent.named(home / "tiny.toml", [*DISTILL, f"teacher.run={teacher.name}"]), None, [])
    before = made.trainer.compute
    made.close()
    teacher.metrics.unlink()
    resumed = runner.resume(made.run)
    resumed.close()
    assert resumed.trainer.compute == before == Compute(6.0, 3 * IMAGES)


def test_a_run_without_rows_has_cost_nothing_that_is_known(trained):
    trained.metrics.unlink()
    assert weights.load(trained, CPU).forwards == 0
