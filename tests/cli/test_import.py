"""`cmbench import`: weights that other code has saved become a run, which every command takes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_runs import read_rows
from killed import KilledError, Killer
from safetensors.torch import load_file, save_file
from tiny import TINY, set_options
from torch import nn
from waiting import until

from cmbench.engine import checkpoint, importing, weights
from cmbench.engine.sample import latents
from cmbench.rundir import leftovers, status
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import all_runs

CPU = torch.device("cpu")
KIND = ["--network", "mlp", *set_options(["network.width=16", "network.depth=1", "data.shape=[2]", "data.classes=8"])]
SHORT = set_options(["train.device=cpu", "evaluate.n=8", "evaluate.true_error_n=2", "optimizer.warmup=0"])


class Theirs(nn.Module):
    """A denoiser that somebody has written and trained without cmbench.

    Raw network: linear layers of x and of an embedding of c_noise, added; SiLU; linear. Around it EDM's preconditioner
    (Karras et al. 2022, table 1) with sigma_data .5.
    """

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"x_in": nn.Linear(2, 16), "c_in": nn.Linear(64, 16), "out": nn.Linear(16, 2)})

    def raw(self, x, c):
        angle = c[:, None] * 10_000.0 ** -(torch.arange(32) / 31)
        embedded = torch.cat([angle.cos(), angle.sin()], dim=1)
        return self.model["out"](nn.functional.silu(self.model["x_in"](x) + self.model["c_in"](embedded)))

    def forward(self, x, sigma):
        s = sigma[:, None]
        total = s.square() + 0.25
        return 0.25 / total * x + 0.5 * s / total.sqrt() * self.raw(x / total.sqrt(), sigma.log() / 4)


def train(steps=40):
    """Train on two points, as anybody would."""
    torch.manual_seed(0)
    theirs = Theirs()
    optimiser = torch.optim.Adam(theirs.parameters(), lr=1e-2)
    for _ in range(steps):
        x_0 = torch.tensor([[0.5, 0.5], [-0.5, -0.5]])[torch.randint(2, (64,))]
        sigma = (torch.randn(64) * 1.2 - 1.2).exp()
        D = theirs(x_0 + sigma[:, None] * torch.randn(64, 2), sigma)
        weight = (sigma.square() + 0.25) / (0.5 * sigma).square()
        loss = (weight[:, None] * (D - x_0).square()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return theirs.requires_grad_(False)


def heun(denoise, x, sigmas):
    """Sample with Heun's method down the noise levels (Karras et al. 2022, algorithm 1 without churn)."""
    for sigma, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        d = (x - denoise(x, torch.full((len(x),), sigma))) / sigma
        moved = x + (after - sigma) * d
        if after:
            d = (d + (moved - denoise(moved, torch.full((len(x),), after))) / after) / 2
            moved = x + (after - sigma) * d
        x = moved
    return x


# The names in cmbench's own network of the same equations, for the state dict as its author would hand it over.
NAMES = {"x_in": "input", "c_in": "time_linear", "out": "output"}


def handed_over(theirs, prefix="module.model."):
    state = {name.removeprefix("model."): tensor for name, tensor in theirs.state_dict().items()}
    return {f"{prefix}{NAMES[name.split('.')[0]]}.{name.split('.')[1]}": tensor for name, tensor in state.items()}


@pytest.fixture
def theirs(home):
    trained = train()
    state = handed_over(trained)
    torch.save({"ema": state, "net": {name: torch.randn_like(t) for name, t in state.items()}, "step": 40}, "x.pt")
    save_file(state, "x.safetensors")
    return trained


def test_samples_are_equal_before_and_after(cmbench, home, theirs):
    assert cmbench("import", "x.pt", *KIND, "--weights", "ema", "--out", "theirs").code == 0
    trained = weights.load(RunDir(home / "runs" / "theirs"), CPU)
    x, sigma = torch.randn(64, 2), torch.rand(64) * 80 + 0.002
    torch.testing.assert_close(trained.model.denoise(x, sigma), theirs(x, sigma), rtol=1e-5, atol=1e-5)
    assert (
        cmbench("sample", "theirs", "--sigmas", "80,5,.5,.05", "--n", "32", "--safetensors", "s.safetensors").code == 0
    )
    found = load_file("s.safetensors")["samples"]
    expected = heun(theirs, 80 * latents((2,), 32, 0), [80.0, 5.0, 0.5, 0.05])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.1


METHODS = {
    "cd": ["objective={kind='cd'}", "teacher={kind='run', run='theirs', initialise_student=true}"],
    "scd": [
        "objective={kind='scd'}",
        "path={kind='trigflow', sigma_data=0.5, sigma_max=80.0}",
        "teacher={kind='run', run='theirs'}",
    ],
    "ect": ["objective={kind='ect'}", "start.run=theirs"],
    "cd of the file": [
        "objective={kind='cd'}",
        "teacher={kind='file', file='x.pt', weights='ema', network={kind='mlp', width=16, depth=1}}",
    ],
    "scd of the file": [
        "objective={kind='scd'}",
        "path={kind='trigflow', sigma_data=0.5, sigma_max=80.0}",
        "teacher={kind='file', file='x.pt', weights='ema', network={kind='mlp', width=16, depth=1}}",
    ],
    "ect of the file": ["objective={kind='ect'}", "start={file='x.pt', weights='ema'}"],
}


@pytest.mark.parametrize("method", METHODS)
def test_others_weights_are_distilled_and_tuned(cmbench, home, theirs, method):
    licence = "CC BY-NC 4.0"
    assert cmbench("import", "x.pt", *KIND, "--weights", "ema", "--out", "theirs", "--licence", licence).code == 0
    done = cmbench("run", "tiny.toml", *set_options([*METHODS[method], "name=student"]), *SHORT, "--foreground")
    assert done.code == 0, done.err
    (run,) = (run for run in all_runs(home / "runs") if run.name.startswith("student-"))
    meta = read_json(run.meta)
    source = meta["start" if "ect" in method else "teacher"]
    assert source["file"] == str(home / "x.pt")
    assert source["weights"] == "ema.model"
    assert ("licence" in source) == ("file" not in method)
    if "file" not in method:
        shown = cmbench("show", run.name).out
        assert "sha256" in shown
        assert f"licence {licence}" in shown
    started = [row for row in read_rows(run.events) if row["kind"] == "initialised"]
    assert len(started) == (method.startswith("ect") or method == "cd")
    assert all(row["error"] < 1e-6 for row in started)


def test_an_imported_run_says_where_it_comes_from(cmbench, home, theirs):
    done = cmbench("import", "x.pt", *KIND, "--weights", "ema", "--out", "theirs", "--licence", "CC BY 4.0")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("theirs: 6 tensors, 1,122 parameters from x.pt, weights ema.model\n")
    run = RunDir(home / "runs" / "theirs")
    source = read_json(run.meta)["source"]
    assert source["file"] == str(home / "x.pt")
    assert source["bytes"] == (home / "x.pt").stat().st_size
    assert source["sha256"] == hashlib.sha256((home / "x.pt").read_bytes()).hexdigest()
    assert source["licence"] == "CC BY 4.0"
    shown = cmbench("show", "theirs").out
    assert "theirs: imported\n" in shown
    for text in (source["file"], source["sha256"], "CC BY 4.0"):
        assert text in shown
    assert checkpoint.is_whole(run, 0)
    assert (home / "runs" / "latest").readlink() == Path("theirs")


def test_a_recipe_has_network_path_and_data(cmbench, home, theirs):
    (home / "mine.toml").write_text(TINY.replace('"tiny"', '"mine"').replace('kind = "ct"\nmu_0 = 0.5', 'kind = "ect"'))
    assert cmbench("import", "x.safetensors", "--network", "mine.toml", "--out", "a").code == 0
    assert weights.load(RunDir(home / "runs" / "a"), CPU).sampler == "consistency"
    assert (
        cmbench("import", "x.safetensors", "--network", "mine.toml", "--out", "b", "--function", "denoiser").code == 0
    )
    assert weights.load(RunDir(home / "runs" / "b"), CPU).sampler == "ode"
    asked = ["--measures", "sliced_wasserstein,consistency_error", "--repeats", "2", "--n", "40", "--json"]
    done = cmbench("eval", "a", *asked)
    assert done.code == 0, done.err
    figures = json.loads(done.out)["runs"][0]["figures"]
    assert all(figure["value"] is not None for figure in figures)
    assert [row["kind"] for row in read_rows(RunDir(home / "runs" / "a").events) if "kind" in row] == ["imported"]


def test_a_recipe_with_a_teacher_leaves_it_out(cmbench, home, theirs):
    given = [*METHODS["cd"], "name=student"]
    assert cmbench("import", "x.safetensors", "--network", "tiny.toml", *set_options(given), "--out", "a").code == 0
    recipe = (home / "runs" / "a" / "recipe.toml").read_text()
    assert "[teacher]" not in recipe
    assert 'kind = "ct"' in recipe


VIEWS = [
    *(["ls"], ["ls", "--json"], ["show", "theirs"], ["show", "theirs", "--json"], ["watch", "theirs"]),
    *(["watch", "theirs", "--plain"], ["watch", "theirs", "--json"], ["compare", "theirs", "--plain"]),
    *(["compare", "theirs", "theirs", "--html", "x.html"], ["sample", "theirs", "-n", "4"], ["doctor", "theirs"]),
    *(["sample", "@latest", "-n", "4", "--json"],),
]


@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
def test_every_view_stands_an_imported_run(cmbench, home, theirs, words):
    assert cmbench("import", "x.safetensors", *KIND, "--out", "theirs").code == 0
    done = cmbench(*words)
    assert done.code == (1 if words[0] == "doctor" else 0), done
    assert "Traceback" not in done.err


CLOSED = {
    "resume": ["resume", "theirs"],
    "longer": ["resume", "theirs", "--set", "train.steps=9"],
    "fork": ["run", "--from", "theirs", "--set", "optimizer.lr=1e-3"],
    "or-resume": ["run", "tiny.toml", "--name", "theirs", "--or-resume"],
}


@pytest.mark.parametrize("case", CLOSED)
def test_an_imported_run_is_not_trained_further(cmbench, home, theirs, case):
    assert cmbench("import", "x.safetensors", *KIND, "--out", "theirs").code == 0
    done = cmbench(*CLOSED[case])
    says = "cmbench: theirs: was imported, and is not trained further; allowed: a run with --set start.run=theirs\n"
    assert (done.code, done.err) == (5, says)
    assert status.read(RunDir(home / "runs" / "theirs"))["state"] == "imported"


def test_without_data_an_evaluation_says_what_it_needs(cmbench, home, theirs):
    cmbench("import", "x.safetensors", *KIND, "--out", "theirs")
    done = cmbench("eval", "theirs")
    assert done.code == 2
    assert "data.kind: found 'none', allowed here: data with samples" in done.err
    refused = cmbench("run", "tiny.toml", "--set", "data={kind='none', shape=[2]}")
    assert (refused.code, "found 'none'" in refused.err) == (2, True)


def test_a_dry_run_lists_and_writes_nothing(cmbench, home, theirs):
    done = cmbench("import", "x.pt", *KIND, "--weights", "ema", "--list")
    assert (done.code, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert ["matched", "input.weight", "ema.module.model.input.weight", "16", "x", "2"] in rows
    assert "6 matched, 0 of another shape, 0 missing, 0 unexpected" in done.out
    assert "left aside: net (6 tensors)" in done.out
    about = json.loads(cmbench("import", "x.pt", *KIND, "--weights", "ema", "--list", "--json").out)
    assert about["matched"]["output.bias"] == "ema.module.model.output.bias"
    assert not (home / "runs").exists()


def test_a_dry_run_of_what_does_not_fit_lists_it_and_fails(cmbench, home, theirs):
    state = handed_over(theirs, "")
    del state["output.bias"]
    save_file({**state, "logvar.weight": torch.ones(3), "input.bias": torch.ones(3)}, home / "y.safetensors")
    done = cmbench("import", "y.safetensors", *KIND, "--list")
    assert done.code == 2
    rows = [line.split() for line in done.out.splitlines()]
    assert ["missing", "output.bias"] in rows
    assert ["unexpected", "logvar.weight"] in rows
    assert ["other", "shape", "input.bias", "[3]", "there,", "[16]", "here"] in rows
    assert done.err.count("\n") == 1
    allowed = ["--allow-missing", "output*", "--allow-unexpected", "logvar*"]
    assert "of another shape" in cmbench("import", "y.safetensors", *KIND, "--list", *allowed).err
    save_file({**state, "logvar.weight": torch.ones(3)}, home / "y.safetensors")
    assert cmbench("import", "y.safetensors", *KIND, *allowed, "--out", "a").code == 0
    assert not (home / "runs" / "listed").exists()


def test_weights_in_half_precision_are_converted_and_it_says_so(cmbench, home, theirs):
    save_file({n: t.to(torch.bfloat16) for n, t in handed_over(theirs).items()}, home / "half.safetensors")
    assert "to become float32: 6 tensors from bfloat16" in cmbench("import", "half.safetensors", *KIND, "--list").out
    assert (
        "converted to float32: 6 tensors from bfloat16"
        in cmbench("import", "half.safetensors", *KIND, "--out", "a").out
    )
    assert "converted 6 tensors from bfloat16" in cmbench("watch", "a").out


BAD = {
    "no name": ([*KIND], "--out: missing; allowed: a name for the run, or --list to import nothing"),
    "a path": ([*KIND, "--out", "../a"], "--out: found '../a', allowed: letters, digits, _ and -"),
    "latest": ([*KIND, "--out", "latest"], "--out: found 'latest'"),
    "function": ([*KIND, "--out", "a", "--function", "velocity"], "--function: found 'velocity', allowed: denoiser, "),
    "network": (["--network", "mpl", "--out", "a"], "mpl: no such recipe"),
    "key": ([*KIND, "--set", "network.widht=3", "--out", "a"], "--network mlp: network.widht: unknown key"),
    "shape": (["--network", "mlp", "--out", "a"], "--network mlp: data.shape: found [], allowed: sizes from 1"),
    "points": (["--network", "unet", "--set", "data.shape=[2]", "--out", "a"], "network.kind: found 'unet' for data"),
    "which": ([*KIND, "--out", "a"], "found several state dicts for this network; allowed for weights: ema.model, net"),
    "weights": ([*KIND, "--out", "a", "--weights", "emma"], "weights: found 'emma', allowed: ema.model, net.model"),
    "velocity": ([*KIND, "--out", "a", "--function", "average_velocity"], "--function: found 'average_velocity' on"),
    "licence": ([*KIND, "--out", "a", "--licence", "x" * 2000], "--licence: found 2,000 characters, allowed: up"),
    "smaller": ([*KIND, "--set", "network.width=8", "--out", "a", "--weights", "ema"], "of another shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_line_and_leaves_nothing(cmbench, home, theirs, case):
    words, says = BAD[case]
    before = sorted(path.name for path in home.iterdir())
    done = cmbench("import", "x.pt", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("cmbench: ")
    assert done.err.count("\n") == 1
    assert says in done.err
    assert sorted(path.name for path in home.iterdir()) == before


FILES = {
    "module": lambda path, theirs: torch.save(theirs, path),
    "pickle": lambda path, theirs: path.write_bytes(__import__("pickle").dumps({"ema": theirs})),
    "truncated": lambda path, theirs: path.write_bytes(Path("x.safetensors").read_bytes()[:-9]),
    "picture": lambda path, theirs: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)),
    "folder": lambda path, theirs: path.mkdir(),
    "nothing": lambda path, theirs: None,
    "nan": lambda path, theirs: torch.save({n: t * torch.nan for n, t in handed_over(theirs).items()}, path),
    "integers": lambda path, theirs: torch.save({n: t.int() for n, t in handed_over(theirs).items()}, path),
    "others": lambda path, theirs: torch.save(nn.Conv2d(3, 3, 3).state_dict(), path),
    "shapes": lambda path, theirs: torch.save({n: t[:1] for n, t in handed_over(theirs).items()}, path),
    "empty": lambda path, theirs: torch.save({}, path),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_state_dict_of_this_network(cmbench, home, theirs, case):
    FILES[case](home / "bad.pt", theirs)
    done = cmbench("import", "bad.pt", *KIND, "--out", "a")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"cmbench: {home / 'bad.pt'}: ")
    assert done.err.count("\n") == 1
    assert not list((home / "runs").glob("*"))


def test_a_name_that_is_taken_is_refused(cmbench, home, theirs):
    assert cmbench("import", "x.safetensors", *KIND, "--out", "a").code == 0
    before = {path: path.read_bytes() for path in (home / "runs" / "a").rglob("*") if path.is_file()}
    done = cmbench("import", "x.safetensors", *KIND, "--out", "a")
    assert (done.code, done.err) == (5, f"cmbench: {home / 'runs' / 'a'}: exists; choose another --out\n")
    assert {path: path.read_bytes() for path in (home / "runs" / "a").rglob("*") if path.is_file()} == before
    (home / "runs" / "link").symlink_to("nowhere")
    assert cmbench("import", "x.safetensors", *KIND, "--out", "link").code == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_import_leaves_nothing(cmbench, home, theirs, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(importing, "_status", fail)
    done = cmbench("import", "x.safetensors", *KIND, "--out", "a")
    assert done.code == (130 if error is KeyboardInterrupt else 2)
    assert list((home / "runs").iterdir()) == []


def test_a_signal_that_ends_it_leaves_nothing(cmbench, home, theirs, monkeypatch):
    monkeypatch.setattr(importing, "_status", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        cmbench("import", "x.safetensors", *KIND, "--out", "a")
    assert ended.value.code == 128 + signal.SIGTERM
    assert list((home / "runs").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("operations", range(0, 60, 3))
def test_a_kill_leaves_a_whole_run_or_what_the_next_command_removes(cmbench, home, theirs, monkeypatch, operations):
    (home / "runs").mkdir()
    with monkeypatch.context() as patch:
        Killer(patch, operations)
        try:
            cmbench("import", "x.safetensors", *KIND, "--out", "a")
            ended = True
        except KilledError:
            ended = False
    monkeypatch.setattr(leftovers, "lives", lambda pid: False)
    leftovers.sweep(home / "runs")
    left = {path.name for path in (home / "runs").iterdir()} - {"latest"}
    assert left <= {"a"}
    assert left or not ended
    if left:
        assert checkpoint.is_whole(RunDir(home / "runs" / "a"), 0)
        assert cmbench("sample", "a", "-n", "4").code == 0


def test_only_what_an_import_writes_is_removed(home):
    (home / "runs").mkdir()
    left = home / "runs" / f".import.{leftovers.machine()}.1234567"
    for folder in ("checkpoints/.00000000.tmp", "snapshots", "control"):
        (left / folder).mkdir(parents=True)
    (left / "checkpoints" / ".00000000.tmp" / "model.safetensors").write_bytes(b"x")
    (left / "meta.json").write_text("{}")
    other = shutil.copytree(left, left.with_name(f".import.{leftovers.machine()}.1234568"))
    (other / "thesis.tex").write_text("mine")
    elsewhere = shutil.copytree(left, left.with_name(".import.000000000000.1234567"))
    leftovers.sweep(home / "runs")
    assert not left.exists()
    assert (other / "thesis.tex").exists()
    assert elsewhere.exists()


def test_a_killed_process_leaves_what_the_next_import_removes(home, theirs):
    """By a real kill, while it waits within the block."""
    script = (
        "import sys, time; from cmbench.cli import main; from cmbench.engine import importing\n"
        "importing._status = lambda run: (print('here', flush=True), time.sleep(600))\n"
        f"sys.argv = ['cmbench', 'import', 'x.safetensors', *{KIND!r}, '--out', 'a']; main.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(importing.__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"here\n"
    assert [path.name for path in (home / "runs").iterdir()] == [f".import.{leftovers.machine()}.{process.pid}"]
    assert all_runs(home / "runs") == []
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not leftovers.lives(process.pid))
    leftovers.sweep(home / "runs")
    assert list((home / "runs").iterdir()) == []
