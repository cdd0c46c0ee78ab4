"""Bad input: the right exit code, one line that names the key and what is allowed, and nothing left on disk."""

import os
import shutil
import socket
from pathlib import Path

import pytest
import typer
from tiny import TINY, set_options

from cmbench.cli import main
from cmbench.engine import checkpoint
from cmbench.rundir import status
from cmbench.rundir.files import read_json

UNET = ["network.kind=unet"]
DIGITS = ["data.kind=digits", *UNET]
IMAGES = ["data.kind=images", *UNET, "data.download=false"]

# overrides of the tiny recipe, exit code, what the line must contain
RECIPES = {
    "seed beyond 63 bits": (["seed=18446744073709551616"], 2, ["tiny.toml", "seed", "9223372036854775808"]),
    "device number beyond all": (["train.device=cuda:999"], 2, ["tiny.toml", "train.device", "cuda:999", "GPUs"]),
    "kind without a module": (["data={kind=':X'}"], 2, ["tiny.toml", "data.kind", "':X'", "mixtures"]),
    "kind in no package": (["data={kind='..a:X'}"], 2, ["tiny.toml", "data.kind", "'..a:X'", "mixtures"]),
    "unknown key": (["train.stepz=3"], 2, ["tiny.toml", "train.stepz", "unknown key", "'steps'", "batch_size"]),
    "unknown key of a component": (["network.widht=3"], 2, ["tiny.toml", "network.widht", "'width'"]),
    "unknown table": (["trian.steps=3"], 2, ["tiny.toml", "trian", "'train'"]),
    "wrong type": (["train.steps=1.5"], 2, ["tiny.toml", "train.steps", "1.5", "integer"]),
    "a string for a number": (["optimizer.lr=fast"], 2, ["tiny.toml", "optimizer.lr", "'fast'", "number"]),
    "a boolean for a number": (["train.steps=true"], 2, ["tiny.toml", "train.steps", "True", "integer"]),
    "a number for a table": (["train=5"], 2, ["tiny.toml", "train", "5", "a table"]),
    "steps 0": (["train.steps=0"], 2, ["tiny.toml", "train.steps", "found 0", "1"]),
    "out of range": (["profile.bins=1000"], 2, ["tiny.toml", "profile.bins", "1000", "512"]),
    "not finite": (["optimizer.lr=inf"], 2, ["tiny.toml", "optimizer.lr", "inf", "finite"]),
    "a rate beyond float32": (["optimizer.lr=1e38"], 2, ["tiny.toml", "optimizer.lr", "1e+38", "up to", "3.4e+37"]),
    "a decay beyond float32": (["optimizer.weight_decay=1e39"], 2, ["tiny.toml", "weight_decay", "1e+39", "3.4e+38"]),
    "noise beyond float32": (["path.sigma_data=1e38"], 2, ["tiny.toml", "path.sigma_data", "1e+38", "1000000000"]),
    "noise levels beyond the floats": (
        ["objective={kind='ect'}", "objective.P_mean=1000"],
        2,
        ["tiny.toml", "objective.P_mean", "found 1000", "21"],
    ),
    "a grid beyond the floats": (["objective.rho=1e-40"], 2, ["tiny.toml", "objective.rho", "1e-40", "0.1"]),
    "a square beyond float32": (
        ["objective.distance=pseudo_huber", "objective.huber_c=1e300"],
        2,
        ["huber_c", "1e+18"],
    ),
    "a proposal beside the noise levels": (
        ["objective={kind='ict'}", "objective.P_mean=-20", "objective.P_std=1"],
        2,
        ["objective.P_mean", "found -20", "between -6.21 and 4.38"],
    ),
    "a grid beyond all machines": (["objective.s_1=100000000000000000000"], 2, ["objective.s_1", "100000"]),
    "a batch beyond all machines": (["train.batch_size=100000000000000"], 2, ["train.batch_size", "10000000"]),
    "parts larger than the batch": (
        ["train.micro_batch_size=9"],
        2,
        ["tiny.toml: train.micro_batch_size: found 9, allowed: up to batch_size = 8, or 0"],
    ),
    "parts below nothing": (["train.micro_batch_size=-1"], 2, ["tiny.toml", "train.micro_batch_size", "-1", "0"]),
    "a network beyond all machines": (["network.width=100000000000"], 2, ["network.width", "65536"]),
    "stages beyond the floats": (["objective={kind='ect', stages=100000}", "train.steps=200000"], 2, ["objective.q"]),
    "bad literal": (["path.kind=edmm"], 2, ["tiny.toml", "path.kind", "'edmm'", "'trigflow'", "did you mean 'edm'?"]),
    "path kind that is no text": (["path.kind=[1]"], 2, ["tiny.toml", "path.kind", "[1]", "'trigflow'"]),
    "a table in the place of a path": (["path={kind={a=1}}"], 2, ["tiny.toml", "path.kind", "'trigflow'"]),
    "scalings": (["path.scalings=edmm"], 2, ["tiny.toml", "path.scalings", "'edmm'", "'linear'", "'edm'?"]),
    "boundary of linear scalings": (
        ["objective={kind='denoise'}", "path.kind=linear", "path.boundary=sigma_min"],
        2,
        ["tiny.toml", "path.boundary", "'sigma_min'", "zero"],
    ),
    "what the network is told": (["path.c_noise=log1000"], 2, ["tiny.toml", "path.c_noise", "'log_1000'?"]),
    "precision of products": (["train.matmul_precision=hihg"], 2, ["tiny.toml", "train.matmul_precision", "'high'?"]),
    "one kernel that is no text": (["optimizer.kind=adam", "optimizer.fused=true"], 2, ["fused", "'auto'", "'off'"]),
    "one kernel of radam": (["optimizer.fused=on"], 2, ["tiny.toml: optimizer.fused: found 'on'", "'radam'", "off"]),
    "precision of times": (["path.time_precision=bfloat16"], 2, ["tiny.toml", "time_precision", "'float64'"]),
    "first weights from nowhere": (["start.run=nobody"], 4, ["nobody", "no such run"]),
    "first weights without a run": (["start.ema=none"], 2, ["tiny.toml", "start.run", "missing"]),
    "samples of the anatomy": (["profile.anatomy_n=0"], 2, ["tiny.toml", "profile.anatomy_n", "0"]),
    "samples of the true error": (["evaluate.true_error_n=-1"], 2, ["tiny.toml", "true_error_n", "-1"]),
    "measure": (
        ["evaluate.metrics=['frechet']"],
        2,
        ["tiny.toml", "evaluate.metrics", "'frechet'", "sliced_wasserstein", "did you mean 'frechet_distance'?"],
    ),
    "no measure": (["evaluate.metrics=[]"], 2, ["tiny.toml", "evaluate.metrics", "[]", "one or more"]),
    "a measure twice": (["evaluate.metrics=['recall','recall']"], 2, ["evaluate.metrics", "different"]),
    "a measure that tells no best": (
        ["evaluate.metrics=['nearest_neighbour']"],
        2,
        ["tiny.toml", "evaluate.metrics", "'nearest_neighbour' as the first", "coverage"],
    ),
    "self-consistency without a teacher": (
        ["evaluate.self_error_n=8"],
        2,
        ["tiny.toml", "self_error_n", "8", "teacher"],
    ),
    "a measure of no samples": (["evaluate.metrics=['consistency_error']"], 2, ["metrics", "'consistency_error'"]),
    "measures that are no list": (["evaluate.metrics=recall"], 2, ["tiny.toml", "evaluate.metrics", "'recall'"]),
    "objective kind": (["objective.kind=ctt"], 2, ["tiny.toml", "objective.kind", "'ctt'", "denoise", "'ct'?"]),
    "network kind": (["network.kind=mpl"], 2, ["tiny.toml", "network.kind", "'mpl'", "unet", "'mlp'?"]),
    "data kind": (["data.kind=mixture"], 2, ["tiny.toml", "data.kind", "'mixture'", "digits", "'mixtures'?"]),
    "teacher kind": (["teacher.kind=orakle"], 2, ["tiny.toml", "teacher", "kind", "'orakle'", "'run'", "'oracle'?"]),
    "optimiser kind": (["optimizer.kind=sgd"], 2, ["tiny.toml", "optimizer.kind", "'sgd'", "'radam'"]),
    "kind that is no string": (["network.kind=5"], 2, ["tiny.toml", "network.kind", "5", "mlp"]),
    "kind from nowhere": (["network.kind=own_nowhere:Network"], 2, ["tiny.toml", "network.kind", "own_nowhere"]),
    "kind without a Config": (["objective.kind=json:loads"], 2, ["tiny.toml", "objective.kind", "json", "Config"]),
    "path of another objective": (["path.kind=vp"], 2, ["tiny.toml", "path.kind", "'vp'", "'ct'", "edm"]),
    "no teacher for cd": (["objective={kind='cd'}"], 2, ["tiny.toml", "teacher", "missing", "'cd'", "'oracle'"]),
    "a teacher for ct": (["teacher.kind=oracle"], 2, ["tiny.toml", "teacher", "none", "'ct'"]),
    "teacher kind run without a run": (["teacher.kind=run"], 2, ["tiny.toml", "teacher", "run", "@latest"]),
    "oracle with a run": (
        ["objective={kind='cd'}", "teacher.kind=oracle", "teacher.run=x"],
        2,
        ["tiny.toml", "teacher", "'oracle'", "'run'"],
    ),
    "teacher's run missing": (
        ["objective={kind='cd'}", "teacher.kind=run", "teacher.run=nobody"],
        4,
        ["nobody", "no such run", "cmbench ls"],
    ),
    "mlp for pictures": (["data={kind='digits'}"], 2, ["tiny.toml", "network.kind", "'mlp'", "[1, 8, 8]", "'unet'"]),
    "unet for points": (["network={kind='unet'}"], 2, ["tiny.toml", "network.kind", "'unet'", "[2]", "'mlp'"]),
    "too many levels": (
        [*DIGITS, "network.multipliers=[1,1,1,1,1]"],
        2,
        ["tiny.toml", "network.multipliers", "5 levels", "8 pixels", "at most 4"],
    ),
    "attention at a size that never is": (
        [*DIGITS, "network.attention=[5]"],
        2,
        ["tiny.toml", "network.attention", "found 5", "[8, 4]"],
    ),
    "heads that do not divide": ([*DIGITS, "network.heads=3"], 2, ["tiny.toml", "heads", "found 3", "divisor", "32"]),
    "pictures that are not there": (
        [*IMAGES, "data.root=nowhere"],
        2,
        ["tiny.toml", "data.root", "nowhere", "MNIST/raw"],
    ),
    "a folder that is not there": (
        [*IMAGES, "data.name=folder", "data.root=nowhere"],
        2,
        ["tiny.toml", "data.root", "nowhere", "one sub-folder a class"],
    ),
    "a folder without pictures": (
        [*IMAGES, "data.name=folder", "data.root=runs"],
        2,
        ["tiny.toml", "data.root", "runs", "one sub-folder a class"],
    ),
    "no such device": (["train.device=cuda:99"], 2, ["tiny.toml", "train.device", "'cuda:99'", "GPUs"]),
    "device of another name": (["train.device=gpu"], 2, ["tiny.toml", "train.device", "'gpu'", "auto", "cuda"]),
    "lpips for points": (["objective.distance=lpips"], 2, ["tiny.toml", "objective.distance", "'lpips'", "'l2'"]),
    "s_1 below s_0": (["objective.s_0=9", "objective.s_1=5"], 2, ["tiny.toml", "s_1", "found 5", "s_0 = 9"]),
    "sigma_min at sigma_max": (
        ["path.sigma_min=80.0"],
        2,
        ["tiny.toml", "path.sigma_min", "80", "less than sigma_max"],
    ),
    "sigma_mid beyond the path": (
        ["path.sigma_mid=81.0"],
        2,
        ["tiny.toml", "path.sigma_mid", "81", "between sigma_min = 0.002 and sigma_max = 80"],
    ),
    "sigma_max beyond the end of vp": (
        ["objective={kind='denoise'}", "path.kind=vp", "path.sigma_max=153"],
        2,
        ["tiny.toml", "path.sigma_max", "found 153", "'vp'", "up to 152"],
    ),
    "a beta of 1": (["optimizer.betas=[0.9,1.0]"], 2, ["tiny.toml", "optimizer.betas", "[0.9, 1.0]", "[0, 1)"]),
    "one beta": (["optimizer.betas=[0.9]"], 2, ["tiny.toml", "optimizer.betas", "0.9", "two numbers"]),
    "inverse_sqrt from 0": (["optimizer.decay=inverse_sqrt"], 2, ["tiny.toml", "optimizer.decay_after", "at least 1"]),
    "the same average twice": (["ema.lengths=[0.9,0.9]"], 2, ["tiny.toml", "ema.lengths", "[0.9, 0.9]", "different"]),
    "a power that is too long": (
        ["ema.profile=power", "ema.lengths=[0.5]"],
        2,
        ["tiny.toml", "ema.lengths", "[0.5]", "(0, 0.28)"],
    ),
    "a sampler of no step": (["evaluate.steps=[0]"], 2, ["tiny.toml", "evaluate.steps.0", "found 0", "to 1"]),
    "a name with a slash": (["name=a/b"], 2, ["tiny.toml", "name", "'a/b'", "letters, digits"]),
    "a negative seed": (["seed=-1"], 2, ["tiny.toml", "seed", "-1", "0"]),
    "--set without =": (["train.steps"], 2, ["--set", "train.steps", "table.key=value"]),
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def complains(cmbench, home):
    """Run a command that must fail, and check what any failure owes its user."""

    def call(*args: object, code: int, mentions: list[str]) -> str:
        before = files_in(home)
        outcome = cmbench(*args)
        assert outcome.code == code, outcome.err
        assert outcome.err.startswith("cmbench: ")
        assert outcome.err.endswith("\n")
        assert outcome.err.count("\n") == 1, outcome.err
        assert "Traceback" not in outcome.err
        assert outcome.out == ""
        assert [part for part in mentions if part not in outcome.err] == [], outcome.err
        assert files_in(home) == before
        return outcome.err

    return call


@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_with_a_mistake(complains, home, case):
    overrides, code, mentions = RECIPES[case]
    (home / "runs").mkdir()
    complains("run", "tiny.toml", *set_options(overrides), code=code, mentions=mentions)
    assert list((home / "runs").iterdir()) == []


@pytest.mark.parametrize("command", ["show", "check"])
def test_recipe_show_and_check_say_the_same(complains, command):
    mentions = ["tiny.toml", "train.stepz", "unknown key", "'steps'"]
    complains("recipe", command, "tiny.toml", "--set", "train.stepz=3", code=2, mentions=mentions)


@pytest.mark.parametrize(("sigma_mid", "code"), [("0.821", 2), ("1.0", 0), ("1.3", 0), ("0.0", 0)])
def test_two_steps_of_a_truncated_model_begin_where_it_is_trained(cmbench, sigma_mid, code):
    """A value that other objectives' recipes have, and that a recipe inherits."""
    own = ["objective={kind='tcm'}", "teacher={kind='run', run='x'}", f"path.sigma_mid={sigma_mid}"]
    outcome = cmbench("recipe", "check", "tiny.toml", *set_options(own))
    assert outcome.code == code, outcome.err
    for text in ["tiny.toml", "path.sigma_mid: found 0.821", "'tcm'", "at least 1,", "or 0"] if code else []:
        assert text in outcome.err


FILES = {
    "empty": (b"", ["bad.toml", "name", "missing"]),
    "without a network": (TINY.replace("[network]", "[networks]").encode(), ["bad.toml", "network", "missing"]),
    "without a kind": (TINY.replace('kind = "mlp"', "").encode(), ["bad.toml", "network.kind", "None", " mlp, "]),
    "not TOML": (b"name = tiny", ["bad.toml", "not TOML", "line 1"]),
    "a key twice": (b"seed = 1\nseed = 2", ["bad.toml", "not TOML", "overwrite"]),
    "binary": (bytes(range(256)), ["bad.toml", "cannot be read"]),
    "extends what is not there": (b'extends = "nowhere.toml"', ["nowhere.toml", "bad.toml", "No such file"]),
    "extends a folder": (b'extends = "."', ["bad.toml", "cannot be read"]),
    "extends a number": (b"extends = 5", ["bad.toml", "extends", "5", "path or name of a recipe"]),
    "extends itself": (b'extends = "bad.toml"', ["bad.toml", "extends"]),
    "extends a device": (b'extends = "/dev/zero"', ["/dev/zero", "bad.toml", "not a regular file"]),
    "extends a name that is too long": (b'extends = "' + b"a" * 300 + b'"', ["aaa…aaa", "bad.toml", "too long"]),
    "extends no name": (rb'extends = "\u0000"', ["bad.toml", "cannot be read", "null"]),
    "extends without end": (b'extends = "chain/0.toml"', ["extends", "allowed: 16 recipes in a row"]),
    "extends a loop of links": (b'extends = "loop.toml"', ["loop.toml", "cannot be read", "bad.toml"]),
    "arrays in arrays": (b"a = " + b"[" * 500 + b"]" * 500, ["bad.toml", "without end", "16 levels"]),
    "tables in tables": (b"a = " + b"{a = " * 900 + b"1" + b"}" * 900, ["bad.toml", "without end", "16 levels"]),
    "a key of a thousand parts": (b".".join([b"a"] * 1000) + b" = 1", ["bad.toml", "a.a.a", "16 in each other"]),
    "an array too deep": (b"ema.lengths = " + b"[" * 17 + b"]" * 17, ["bad.toml", "ema.lengths.0", "16 in each"]),
    "more digits than Python reads": (b"seed = " + b"9" * 5000, ["bad.toml", "thousands of digits", "64 bits"]),
    "more digits than Python writes": (b"seed = 0x" + b"f" * 5000, ["bad.toml", "seed", "20,000 bits", "64 bits"]),
    "a long key": (b"a" * 5000 + b" = 1\n" + TINY.encode(), ["bad.toml", "aaa…aaa", "unknown key", "seed"]),
    "a key on two lines": (rb'"a\nb" = 1' + b"\n" + TINY.encode(), ["bad.toml", r"'a\nb'", "unknown key"]),
    "extends in a circle": (b'extends = "circle.toml"', ["bad.toml", "extends"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_recipe(complains, home, case):
    content, mentions = FILES[case]
    (home / "bad.toml").write_bytes(content)
    (home / "circle.toml").write_text('extends = "bad.toml"')
    (home / "loop.toml").symlink_to("loop.toml")
    (home / "chain").mkdir()
    for i in range(20):
        (home / f"chain/{i}.toml").write_text(f'extends = "{i + 1}.toml"')
    complains("run", "bad.toml", code=2, mentions=mentions)
    complains("recipe", "check", "bad.toml", code=2, mentions=mentions)


@pytest.mark.parametrize("kind", ["fifo", "folder", "huge", "socket"])
def test_no_recipe_is_read_from_what_is_no_regular_file(cmbench, home, kind):
    """A FIFO would be waited for, a device fill the memory."""
    place = home / "place"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("place")
    else:
        with place.open("wb") as file:
            file.truncate(10**12)
    (home / "bad.toml").write_text('extends = "place"')
    mentions = [
        "place",
        "bad.toml",
        {"folder": "directory", "huge": "allowed: at most 1,048,576"}.get(kind, "not a regular"),
    ]
    outcome = cmbench("recipe", "check", "bad.toml")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert [part for part in mentions if part not in outcome.err] == []


def test_a_recipe_that_is_not_there(complains, home):
    (home / "recipes").mkdir()
    shutil.copy("tiny.toml", "recipes/ring_of_eight.toml")
    complains("run", "ring_of_eigth", code=2, mentions=["ring_of_eigth", "'ring_of_eight'", "cmbench recipe list"])
    complains("run", "a" * 300, code=2, mentions=["aaa…aaa", "no such recipe"])
    complains("run", "nowhere/x.toml", code=2, mentions=["nowhere/x.toml", "cmbench recipe list"])
    complains("run", "recipes", code=2, mentions=["recipes", "no such recipe"])


@pytest.mark.parametrize("folder", ["tiny.toml", "tiny.toml/runs"])
def test_a_runs_folder_that_is_none(complains, folder):
    mentions = [folder, "cannot be written", "Not a directory" if "/" in folder else "File exists"]
    complains("run", "tiny.toml", "--runs-dir", folder, code=2, mentions=mentions)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_runs_folder_that_is_read_only(complains, home):
    (home / "runs").mkdir(mode=0o500)
    complains("run", "tiny.toml", code=2, mentions=["runs", "cannot be written", "Permission denied"])


COMMANDS = {
    "unknown command": (["rnu"], 2, ["'rnu'", "'run'"]),
    "unknown option": (["run", "tiny.toml", "--step", "5"], 2, ["--step"]),
    "no recipe": (["run"], 2, ["RECIPE"]),
    "sample of an unknown run": (["sample", "nobody"], 4, ["nobody", "no such run", "cmbench ls"]),
    "sample without runs": (["sample"], 4, ["runs", "no run"]),
    "show of an unknown run": (["show", "nobody"], 4, ["nobody", "no such run"]),
    "watch of an unknown run": (["watch", "nobody"], 4, ["nobody", "no such run"]),
    "stop of an unknown run": (["stop", "nobody"], 4, ["nobody", "no such run"]),
    "pause of an unknown run": (["pause", "nobody"], 4, ["nobody", "no such run"]),
    "continue of an unknown run": (["continue", "nobody"], 4, ["nobody", "no such run"]),
    "checkpoint of an unknown run": (["checkpoint", "nobody"], 4, ["nobody", "no such run"]),
    "snapshot of an unknown run": (["snapshot", "nobody"], 4, ["nobody", "no such run"]),
    "set of an unknown run": (["set", "nobody", "log.every=5"], 4, ["nobody", "no such run"]),
    "set of nothing": (["set", "nobody"], 2, ["TABLE.KEY=VALUE"]),
    "patience below nothing": (["pause", "nobody", "--timeout", "-1"], 2, ["--timeout", "0"]),
    "resume of an unknown run": (["resume", "nobody"], 4, ["nobody", "no such run"]),
    "resume without runs": (["resume", "@latest:tiny"], 4, ["runs", "no run named tiny"]),
    "steps of sample": (["sample", "--steps", "0"], 2, ["--steps", "1"]),
    "number of samples": (["sample", "--n", "many"], 2, ["--n", "integer"]),
    "label of sample": (["sample", "--label", "-1"], 2, ["--label", "0"]),
    "seed of sample": (["sample", "--seed", "-1"], 2, ["--seed", "0"]),
    "eval of an unknown run": (["eval", "nobody"], 4, ["nobody", "no such run"]),
    "eval without runs": (["eval"], 4, ["runs", "no run"]),
    "sets of eval": (["eval", "--repeats", "1"], 2, ["--repeats", "2"]),
    "samples of eval": (["eval", "--n", "1"], 2, ["--n", "2"]),
    "steps of eval": (["eval", "--steps", "1,x"], 2, ["--steps", "'1,x'", "1,2,4"]),
    "no steps of eval": (["eval", "--steps", "0"], 2, ["--steps", "'0'", "from 1"]),
    "measure of eval": (["eval", "--measures", "recal"], 2, ["--measures", "'recal'", "'recall'?"]),
    "steps of eval beyond all": (["eval", "--steps", "9" * 5000], 2, ["--steps", "999…999", "from 1"]),
    "an override of a thousand parts": (["run", "tiny.toml", "--set", ".".join("a" * 1000) + "=1"], 2, ["--set", "16"]),
    "an override without end": (
        ["run", "tiny.toml", "--set", "a=" + "[" * 900 + "]" * 900],
        2,
        ["--set a", "16 levels"],
    ),
    "digits of an override": (["run", "tiny.toml", "--set", "seed=" + "9" * 5000], 2, ["--set seed", "64 bits"]),
    "bits of an override": (["run", "tiny.toml", "--set", "seed=0x" + "f" * 5000], 2, ["tiny.toml", "seed", "20,000"]),
    "a device of 5,000 digits": (["run", "tiny.toml", "--set", "train.device=cuda:" + "9" * 5000], 2, ["train.device"]),
    "classifier without a file": (["classifier", "tiny.toml"], 2, ["--out"]),
    "classifier in another file": (["classifier", "tiny.toml", "--out", "x.pt"], 2, ["--out", "x.pt", ".safetensors"]),
    "classifier of points": (
        ["classifier", "tiny.toml", "--out", "x.safetensors"],
        2,
        ["data.kind", "pictures", "digits"],
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_with_a_mistake(complains, home, case):
    arguments, code, mentions = COMMANDS[case]
    complains(*arguments, code=code, mentions=mentions)
    assert not (home / "runs").exists()


def whole_number_options():
    """Every option of every command that takes a whole number, with its command."""
    found = [("", typer.main.get_command(main.app))]
    while found:
        path, command = found.pop()
        found += [(f"{path} {name}".strip(), inner) for name, inner in getattr(command, "commands", {}).items()]
        for option in command.params:
            if option.type_descriptor.annotation in (int, int | None):
                yield pytest.param(path, option, id=f"{path} {option.opts[0]}")


@pytest.mark.parametrize(("command", "option"), list(whole_number_options()))
def test_a_whole_number_of_an_option_ends(complains, command, option):
    """Else torch, or the writer of JSON, says that it overflows."""
    required = {"ablate": ["tiny.toml"], "classifier": ["tiny.toml", "--out", "x.safetensors"]}.get(command, [])
    for value in (2**63, 10**30, "9" * 5000):
        complains(*command.split(), *required, option.opts[0], value, code=2, mentions=[option.opts[0]])


SAMPLES = {
    "sigmas that are no numbers": (["--sigmas", "80,low"], 2, ["--sigmas", "80,low", "e.g. 80,0.8"]),
    "sigmas that ascend": (["--sigmas", "0.8,80"], 2, ["--sigmas", "0.8,80", "descending", "0.002", "80"]),
    "sigmas that repeat": (["--sigmas", "8,8"], 2, ["--sigmas", "8,8", "descending"]),
    "sigmas beyond the range": (["--sigmas", "81"], 2, ["--sigmas", "81", "up to 80"]),
    "sigmas at sigma_min": (["--sigmas", "80,0.002"], 2, ["--sigmas", "above 0.002"]),
    "sigmas that are not finite": (["--sigmas", "nan"], 2, ["--sigmas", "nan", "above 0.002"]),
    "an unknown average": (["--ema", "0.7"], 2, ["ema", "'0.7'", "0.9, 0.5, none"]),
    "an unknown checkpoint": (["--checkpoint", "7"], 4, ["step 7", "10, 12"]),
    "a device of 5,000 digits": (["--device", "cuda:" + "9" * 5000], 2, ["--device", "999'", "cuda:N"]),
    "sigmas of 5,000 digits": (["--sigmas", "9" * 5000], 2, ["--sigmas", "999…999", "descending"]),
    "a label of a run without labels": (["--label", "1"], 2, ["--label", "unconditional"]),
    "a picture below a file": (["--out", "tiny.toml/x.png"], 2, ["--out", "tiny.toml/x.png", "cannot be written"]),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_samples_that_cannot_be_drawn(complains, trained, case):
    arguments, code, mentions = SAMPLES[case]
    complains("sample", trained.name, *arguments, code=code, mentions=mentions)


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_a_run_whose_recipe_has_a_key_that_this_version_lacks(complains, trained, command):
    text = trained.recipe.read_text()
    trained.recipe.write_text(text.replace("[network]\n", '[network]\nformer = "x"\n'))
    complains(command, trained.name, code=2, mentions=["recipe.toml", "network.former", "unknown key"])


EVALS = {
    "no features": (["--features", "pixel"], 2, ["--features", "'pixel'", "pixels, inception"]),
    "features that are no text": (["--features", "\udcff"], 2, ["--features", "pixels, inception"]),
    "features that are a device": (["--features", "null.safetensors"], 2, ["--features", "not a regular file"]),
    "features of pictures": (["--features", "inception"], 2, ["--features", "'inception'", "[2]", "pixels"]),
    "an unknown average": (["--ema", "0.7"], 2, ["--ema", "'0.7'", "0.9, 0.5, none"]),
    "an unknown checkpoint": (["--checkpoint", "7"], 4, ["step 7", "10, 12"]),
    "a checkpoint of 5,000 digits": (["--checkpoint", "9" * 5000], 2, ["--checkpoint", "999…999", "best or latest"]),
    "a word for a checkpoint": (["--checkpoint", "newest"], 2, ["--checkpoint", "'newest'", "best or latest"]),
    "a measure that it has not": (
        ["--measures", "recall,self_consistency", "--n", "4"],
        2,
        ["--measures", "'self_consistency'", "no teacher"],
    ),
    "an unknown device": (["--device", "tpu"], 2, ["--device", "'tpu'", "cuda"]),
}


@pytest.mark.parametrize("case", EVALS)
def test_figures_that_cannot_be_had(complains, trained, case):
    Path("null.safetensors").symlink_to("/dev/null")
    arguments, code, mentions = EVALS[case]
    complains("eval", trained.name, *arguments, code=code, mentions=mentions)
    assert not trained.evaluations.exists()


def test_a_label_that_is_not_there(complains, conditional):
    complains("sample", conditional.name, "--label", "8", code=2, mentions=["--label", "found 8", "0 to 7"])


def test_a_damaged_checkpoint(complains, trained):
    victim = checkpoint.folder_of(trained, 12) / "ema_0.9.safetensors"
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    complains("sample", trained.name, code=4, mentions=["00000012/ema_0.9.safetensors", "damaged", "checksum"])
    victim.unlink()
    complains("sample", trained.name, code=4, mentions=["00000012/ema_0.9.safetensors", "cannot be read"])


def test_a_run_without_a_checkpoint(complains, trained):
    shutil.rmtree(trained.checkpoints)
    complains("sample", trained.name, code=4, mentions=[trained.name, "no checkpoint"])
    complains("sample", "@latest", code=4, mentions=["no run with a checkpoint"])


def test_a_teacher_that_fits_badly(complains, trained, teacher):
    distill = ["objective={kind='cd'}", "teacher.kind=run"]
    cases = [
        ([f"teacher.run={trained.name}"], ["tiny.toml", "teacher.run", trained.name, "'denoise'"]),
        (
            [f"teacher.run={teacher.name}", "data={kind='digits'}", "network={kind='unet'}"],
            ["tiny.toml", "teacher.run", "[2]", "[1, 8, 8]"],
        ),
        ([f"teacher.run={teacher.name}", "teacher.ema='0.7'"], ["tiny.toml", "ema", "'0.7'", "0.5, none"]),
        (
            ["objective={kind='tcm'}", f"teacher.run={teacher.name}"],
            ["tiny.toml", "teacher.run", teacher.name, "consistency model", "'ect'"],
        ),
        (["objective={kind='tcm'}", "teacher={kind='oracle'}"], ["tiny.toml", "teacher.kind", "'oracle'", "run"]),
        (
            [f"teacher.run={teacher.name}", "teacher.initialise_student=true", "network.width=8"],
            ["tiny.toml", "teacher.initialise_student", "allowed: the same", "false"],
        ),
    ]
    for overrides, mentions in cases:
        complains("run", "tiny.toml", *set_options([*distill, *overrides]), code=2, mentions=mentions)


def test_what_a_finished_run_cannot_do(complains, trained):
    complains(
        "resume",
        trained.name,
        code=5,
        mentions=[trained.name, "already finished", "cmbench sample", "cmbench run --from"],
    )
    for command in ("stop", "pause", "continue", "checkpoint", "snapshot"):
        complains(command, trained.name, code=5, mentions=[trained.name, "not live", "finished"])
    complains("set", trained.name, "log.every=5", code=5, mentions=[trained.name, "not live", "finished"])


SETTINGS = {
    "unknown key": ("optimizer.lrr=1", ["optimizer.lrr", "cannot be changed", "'optimizer.lr'?", "log.every"]),
    "key that is fixed": (
        "train.batch_size=5",
        ["train.batch_size", "cannot be changed while a run trains", "optimizer.lr"],
    ),
    "key of another objective": ("objective.tangent_warmup=5", ["objective.tangent_warmup", "cannot be changed"]),
    "wrong type": ("log.every=often", ["log.every", "'often'", "integer"]),
    "out of range": ("log.every=0", ["log.every", "found 0", "1"]),
    "not finite": ("optimizer.lr=nan", ["optimizer.lr", "nan", "finite"]),
    "beyond float32": ("optimizer.lr=1e38", ["optimizer.lr", "1e+38", "up to", "3.4e+37"]),
    "beyond 63 bits": ("log.every=99999999999999999999", ["log.every", "99999999999999999999", "9223372036854775807"]),
    "another number of averages": ("ema.lengths=[0.5]", ["ema.lengths", "[0.5]", "as many as before, 2"]),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_a_run_cannot_be_given(complains, trained, case):
    change, mentions = SETTINGS[case]
    status.write(trained, {**(read_json(trained.status) or {}), **status.owner(), "state": "running"})
    complains("set", trained.name, "snapshot.every=5", change, code=2, mentions=[trained.name, *mentions])
    complains("set", trained.name, "log.every", code=2, mentions=["set 'log.every'", "table.key=value"])
    status.write(trained, {**(read_json(trained.status) or {}), "state": "stopped"})
    complains("resume", trained.name, "--set", change, code=2, mentions=[trained.name, *mentions])
    complains("resume", trained.name, "--set", "log.every", code=2, mentions=["--set 'log.every'", "table.key=value"])


def test_a_checkpoint_that_a_run_cannot_be_resumed_from(complains, trained):
    complains("resume", trained.name, "--checkpoint", 5, code=5, mentions=[trained.name, "already finished"])
    status.write(trained, {**(read_json(trained.status) or {}), "state": "stopped"})
    mentions = [trained.name, "no checkpoint at step 7", "10, 12"]
    complains("resume", trained.name, "--checkpoint", 7, code=4, mentions=mentions)
    complains(
        "resume", trained.name, "--checkpoint", "bset", code=2, mentions=["--checkpoint", "'bset'", "a step, best"]
    )
    (checkpoint.folder_of(trained, 10) / "model.safetensors").write_bytes(b"")
    complains("resume", trained.name, "--checkpoint", 10, "--foreground", code=4, mentions=["00000010", "checksum"])
    shutil.rmtree(trained.checkpoints)
    complains("resume", trained.name, "--checkpoint", "best", code=4, mentions=[trained.name, "no checkpoint yet"])


def test_a_live_run_is_not_resumed(complains, trained):
    status.write(trained, {**(read_json(trained.status) or {}), **status.owner(), "state": "running"})
    complains("resume", trained.name, code=5, mentions=[trained.name, "is running", "cmbench watch"])


def test_two_runs_that_begin_so(complains, trained, home):
    shutil.copytree(trained.path, home / "runs" / (trained.name + "x"))
    complains("show", "tiny-", code=4, mentions=["tiny-", "2 runs", trained.name])


@pytest.mark.parametrize("sigma_data", ["0.01", "50"])
def test_a_sigma_data_that_cannot_be_meant_is_one_line_and_no_run(cmbench, home, sigma_data):
    outcome = cmbench("run", "tiny.toml", "--set", f"path.sigma_data={sigma_data}", "--set", "path.sigma_max=80")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert f"path.sigma_data: found {sigma_data}, but the data have a standard deviation of" in line
    assert not (home / "runs").exists()
