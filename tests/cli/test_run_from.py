"""`cmbench run --from RUN[@STEP]`."""

import pytest

from cmbench.rundir.files import read_json
from cmbench.rundir.layout import steps_of_checkpoints
from cmbench.rundir.select import all_runs


def test_a_child_is_trained_and_names_its_parent(cmbench, trained, home):
    first = steps_of_checkpoints(trained)[0]
    done = cmbench("run", "--from", f"{trained.name}@{first + 1}", "--set", "optimizer.lr=1e-3", "--foreground")
    assert done.code == 0, done.err
    child = next(run for run in all_runs(home / "runs") if run.name != trained.name)
    assert f"forked from {trained.name}" in done.out
    assert f"forked at step {first}, the last checkpoint up to step {first + 1}" in done.err
    meta = read_json(child.meta)
    assert meta["parent"] == {"run": trained.name, "step": first, "changed": {"optimizer.lr": 1e-3}}
    assert "lr = 0.001" in child.recipe.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["tiny.toml", "--from", "@latest"], 2, "--from: found together with RECIPE tiny.toml"),
        ([], 2, "RECIPE: missing; allowed: a recipe's path or name, or --from RUN[@STEP]"),
        (["--from", "@latest@0"], 4, "no checkpoint up to step 0 to fork from"),
        (["--from", "@latest"], 2, "train.steps: found 12, allowed for a fork at step 12: more than 12"),
        (["--from", "@latest@11", "--set", "network.width=8"], 2, "network.width: found in --set"),
        (["--from", "nothing"], 4, "nothing"),
    ],
)
def test_what_cannot_be_forked_is_one_line(cmbench, trained, home, arguments, code, says):
    before = sorted(path.name for path in (home / "runs").iterdir())
    done = cmbench("run", *arguments, "--foreground")
    assert done.code == code
    assert says in done.err
    assert len(done.err.splitlines()) == 1
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
