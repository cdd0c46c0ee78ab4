"""`make gpu` apart from its checks: no GPU, the recipes, the budget, the benches, and the table of the page."""

import ast
import ctypes
import json
import os
import shutil
import subprocess
import sys
from datetime import date
from itertools import pairwise
from types import SimpleNamespace

import psutil
import pytest
import torch
from gpu_scripts import FIGURES, ROOT, Budget, benches, checks, chosen, driver, gpu, table

from cmbench import recipe as recipes
from cmbench.engine.doctor.check import Check

TODAY = date(2026, 11, 30)
GIB = 2**30


def budget(seconds: float = 1e9) -> Budget:
    """A budget whose clock stands still."""
    return Budget(seconds, clock=lambda: 0.0)


# a machine without a GPU


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("own", [[], ["TORCH=own"]], ids=["tested", "own"])
def test_make_says_in_one_line_that_there_is_no_gpu_and_installs_nothing(tmp_path, own):
    command = ["make", "-C", str(ROOT), "gpu", f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}", *own]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # as make sets them
    done = subprocess.run(command, capture_output=True, text=True, env={**outside, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 2
    lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1, done
    assert lines[0].startswith("cmbench: make gpu needs a GPU: ")
    assert list(tmp_path.iterdir()) == []


def test_a_python_that_is_too_old_can_read_what_is_asked_first():
    ast.parse((ROOT / "scripts" / "on_gpu" / "driver.py").read_text(), feature_version=(3, 6))


class Driver:
    """NVIDIA's driver as far as it is asked."""

    def __init__(self, error: int, count: int) -> None:
        self.error, self.count = error, count

    def cuInit(self, flags):  # noqa: N802
        return self.error

    def cuDeviceGetCount(self, found):  # noqa: N802
        found._obj.value = self.count
        return 0


@pytest.mark.parametrize(
    ("error", "count", "says"),
    [(0, 1, ""), (0, 8, ""), (100, 0, "finds none"), (0, 0, "shows none"), (803, 0, "fails with CUDA error 803")],
)
def test_the_driver_is_asked(monkeypatch, capsys, error, count, says):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(error, count))
    monkeypatch.setattr(sys, "argv", ["driver.py"])
    if not says:
        driver.main()
        assert capsys.readouterr().err == ""
        return
    with pytest.raises(SystemExit) as ended:
        driver.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"cmbench: make gpu needs a GPU: {driver.of_driver()}\n"
    assert says in driver.of_driver()


def test_a_driver_that_is_not_here_is_named(monkeypatch):
    monkeypatch.setattr(driver, "DRIVER", "libcuda.so.none")
    assert driver.of_driver() == "NVIDIA's driver (libcuda.so.none) is not here"


def test_a_torch_of_ones_own_is_asked_in_place_of_the_driver(monkeypatch):
    monkeypatch.setattr(driver, "DRIVER", "libcuda.so.none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert driver.of_own_torch() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert driver.of_own_torch() == f"torch {torch.__version__} of {sys.executable} finds none"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert driver.of_own_torch() == ""  # install.py says that it is missing


@pytest.fixture
def places(monkeypatch):
    """Put back the places where others write."""
    for variable in gpu._PLACES:
        monkeypatch.setenv(variable, "before")


@pytest.fixture
def no_work(monkeypatch):
    """Fail where anything is measured."""
    monkeypatch.setattr(gpu, "concluded", lambda *arguments: pytest.fail("it began"))


def test_a_torch_without_a_gpu_is_one_line_before_any_work(monkeypatch, capsys, places, no_work):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    version = torch.__version__
    assert told.err == f"cmbench: make gpu needs a GPU: torch {version} finds none that it can use\n"


def test_a_page_that_somebody_has_changed_is_one_line_before_any_work(monkeypatch, capsys, places, no_work, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    parts = table.parts
    monkeypatch.setattr(table, "parts", lambda: parts(page))
    assert gpu.main([]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"cmbench: {page}: found 0 lines '{table.BEGIN}'")
    assert err.count("\n") == 1


def test_the_time_of_the_install_counts_and_what_is_temporary_goes(monkeypatch, places):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Card")
    monkeypatch.setattr(gpu.time, "time", lambda: 1000.0)
    seen = []

    def of_checks(device, folder, budget):
        seen.extend([device, folder, budget.left])
        return []

    monkeypatch.setattr(checks, "checks", of_checks)
    monkeypatch.setattr(gpu, "concluded", lambda report, found, measure: 7)
    assert gpu.main(["--minutes", "8", "--began", "900"]) == 7
    device, folder, left = seen
    assert device == "cuda"
    assert left == pytest.approx(480 - 100, abs=60)
    assert not folder.parent.exists()
    assert {os.environ[variable].partition("/cmbench-gpu-")[1] for variable in gpu._PLACES} == {"/cmbench-gpu-"}


# the recipes


def test_every_objective_is_checked_on_points_and_on_pictures():
    found = [recipes.load(chosen.RECIPES / f"{name}.toml") for name in chosen.small()]
    pairs = [(recipe.data["kind"], recipe.objective["kind"]) for recipe in found]
    kinds = recipes.component_names("objectives")
    assert sorted(pairs) == sorted((data, kind) for data in ("mixtures", "digits") for kind in kinds)


def test_a_recipe_that_needs_no_other_run_is_preferred(tmp_path):
    for name, teacher in (("a", "kind='run'\nrun='@latest:dm_edm_ring-'"), ("b", "kind='oracle'")):
        base = chosen.RECIPES / "cd_edm_ring"
        (tmp_path / f"{name}.toml").write_text(f"name='{name}'\nextends='{base}.toml'\n[teacher]\n{teacher}\n")
    assert chosen.small(tmp_path) == ["b"]
    (tmp_path / "b.toml").unlink()
    assert chosen.small(tmp_path) == ["a"]
    assert chosen.needed(recipes.load(tmp_path / "a.toml")) == "dm_edm_ring"


def test_what_the_chosen_recipes_need_is_shipped():
    names = {path.stem for path in chosen.RECIPES.glob("*.toml")}
    needed = {chosen.needed(recipes.load(chosen.RECIPES / f"{name}.toml")) for name in names}
    assert needed - {""} <= names
    assert "dm_edm" in needed


# the budget


def test_a_budget_ends():
    now = 10.0
    left = Budget(60.0, clock=lambda: now)
    assert left.has(60.0)
    now = 40.0
    assert left.left == 30.0
    assert left.has(30.0)
    assert not left.has(31.0)
    now = 100.0
    assert left.left == 0.0


def test_checks_that_no_longer_fit_are_named(tmp_path):
    found = list(checks.checks("cpu", tmp_path, budget(5.0), ["ct_edm_ring"]))
    assert {(check.level, check.found) for check in found} == {("-", "no time left")}
    assert [check.name for check in found] == [
        *("steps ct_edm_ring float32", "steps ct_edm_ring bfloat16", "masks ct_edm_ring float32"),
        *("masks ct_edm_ring bfloat16", "resume ct_edm_ring float32", "resume ct_edm_ring bfloat16"),
        "gradients ct_edm_ring float32",
    ]
    assert list(tmp_path.iterdir()) == []


# the benches


class Bench:
    """Stands for `cmbench bench`: keeps what it was called with, and answers with figures unless told otherwise."""

    def __init__(self, fits: int = 1000, refuses: str = "", code: int = 2) -> None:
        self.fits, self.refuses, self.code, self.calls = fits, refuses, code, []

    def __call__(self, arguments, seconds):
        self.calls.append((list(arguments), seconds))
        settings = dict(setting.split("=", 1) for setting in arguments[arguments.index("--set") :] if "=" in setting)
        size = int(settings["train.batch_size"])
        if self.refuses and self.refuses in settings:
            return benches.Ended(self.code, "", f"cmbench: x.toml: {self.refuses}: unknown key\n")
        if size > self.fits:
            return benches.Ended(1, "", "cmbench: out of memory (3 GiB more were wanted); a lower train.batch_size\n")
        name = arguments[1].rpartition("/")[2].removesuffix(".toml")
        own = {**FIGURES, "name": name, "batch_size": size}
        return benches.Ended(0, json.dumps({"schema": 1, "recipes": [own]}), "")

    def sizes(self):
        return [int(arguments[-1].partition("=")[2]) for arguments, _ in self.calls]


def test_four_methods_are_measured_with_and_without_compilation(tmp_path):
    call = Bench()
    found = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(), call))
    kinds = [recipes.load(chosen.RECIPES / f"{each.recipe}.toml").objective["kind"] for each in found]
    assert sorted(kinds[:4]) == sorted(kinds[4:]) == ["ct", "ect", "meanflow", "sct"]
    assert [each.compiled for each in found] == [False] * 4 + [True] * 4
    assert {each.check.level for each in found} == {"ok"}
    assert {each.figures["batch_size"] for each in found} == {128}
    assert found[0].check.name == "bench ect_edm_cifar10 bfloat16"
    assert (
        found[0].check.found
        == "2,012 images/s in batches of 128, 1.45 of a bare pass, 35.1% of the matrix rate, 41.2 GiB"
    )
    for each, (arguments, _) in zip(found, call.calls, strict=True):
        assert ("train.compile=true" in arguments) == each.compiled
        assert {"bench", "--json", "--device", "cuda", "train.precision=bfloat16"} <= set(arguments)


@pytest.mark.parametrize("name", benches.RECIPES)
def test_the_settings_of_a_bench_are_allowed_and_need_neither_runs_nor_weights(name, tmp_path):
    """All but compilation, which may be refused."""
    call = Bench()
    list(benches.benches("cpu", 80 * GIB, tmp_path, budget(), call))
    arguments = next(own for own, _ in call.calls if own[1].endswith(f"/{name}.toml"))
    overrides = [part for before, part in pairwise(arguments) if before == "--set"]
    recipe = recipes.load(chosen.RECIPES / f"{name}.toml", overrides)
    assert chosen.needed(recipe) == ""
    assert recipe.objective["distance" if "distance" in recipe.objective else "kind"] != "lpips"
    assert (recipe.data["root"], recipe.train.precision, recipe.train.batch_size) == (str(tmp_path), "bfloat16", 128)


@pytest.mark.parametrize(
    ("gib", "size"), [(0.5, 8), (6, 8), (8, 16), (15.7, 16), (16, 32), (79, 128), (139, 128), (400, 128)]
)
def test_the_first_batch_follows_from_the_free_memory(gib, size):
    assert benches.batch_for(int(gib * GIB)) == size


def test_a_batch_is_halved_until_it_fits_for_each_recipe_anew(tmp_path):
    call = Bench(fits=40)
    found = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(), call))
    assert call.sizes() == [128, 64, 32] * 8
    assert {each.figures["batch_size"] for each in found} == {32}
    call = Bench(fits=4)
    found = list(benches.benches("cuda", 16 * GIB, tmp_path, budget(), call))
    assert call.sizes() == [32, 16, 8] * 8
    assert {each.check.level for each in found} == {"fail"}
    assert "out of memory" in found[0].check.found


def test_a_key_that_does_not_exist_yet_is_asked_for_once_and_fails_nothing(tmp_path):
    call = Bench(refuses="train.compile")
    found = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(), call))
    assert len(call.calls) == 5
    assert [each.check.level for each in found] == ["ok"] * 4 + ["-"] * 4
    assert {each.check.found for each in found[4:]} == {"cmbench: x.toml: train.compile: unknown key"}


def test_a_bench_that_fails_is_a_check_that_fails(tmp_path):
    found = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(), Bench(refuses="data.root", code=1)))
    assert {(each.check.level, each.check.found) for each in found} == {
        ("fail", "cmbench: x.toml: data.root: unknown key")
    }
    silent = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(), lambda *_: benches.Ended(-9, "", "")))
    assert {each.check.found for each in silent} == {"exit code -9 without a word"}
    assert not any(each.figures for each in (*found, *silent))


def test_benches_that_no_longer_fit_are_named(tmp_path):
    call = Bench()
    found = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(45.0), call))
    assert [(each.check.level, each.check.found) for each in found[4:]] == [("-", "no time left")] * 4
    assert [seconds for _, seconds in call.calls] == [40.0] * 4
    late = list(benches.benches("cuda", 80 * GIB, tmp_path, budget(100.0), lambda *_: None))
    assert {each.check.found for each in late} == {"it took longer than the 95 s that were left"}
    assert {each.check.level for each in late} == {"-"}


def test_a_compiled_step_says_how_long_that_took_and_its_memory_may_be_unknown():
    figures = {**FIGURES, "compiling": 61.7, "peak": None}
    check, found = benches.read(benches.Ended(0, json.dumps({"recipes": [figures]}), ""))
    assert found == figures
    assert check.found.endswith(", 35.1% of the matrix rate, -, compiled in 62 s")
    assert table.row("A", True, figures, "2.14.1", TODAY)[-3] == "-"


def test_a_command_that_takes_too_long_is_ended_with_what_it_started():
    assert benches.called(["--version"], 0.0) is None
    assert psutil.Process().children() == []
    assert benches.called(["bench", "no_such_recipe"], 600.0).code == 2


# the page


def row(card: str, recipe: str = "ect_edm_cifar10", compiled: bool = False, **changes: object) -> list[str]:
    return table.row(card, compiled, {**FIGURES, "name": recipe, **changes}, "2.14.1+cu130", TODAY)


def cells(*of: str) -> str:
    return f"| {' | '.join(of)} |"


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "performance.md"
    path.write_text(f"# Performance\n\n{table.BEGIN}\n{table.EMPTY}\n{table.END}\n\n## More\n")
    return path


def rows(page) -> list[str]:
    """The lines of the table below its head."""
    text = page.read_text()
    assert text.startswith("# Performance\n\n")
    assert text.endswith("\n\n## More\n")
    head, _, *found = text.partition(table.BEGIN)[2].partition(table.END)[0].strip().splitlines()
    assert head == cells(*table.COLUMNS)
    return found


def test_the_page_here_has_a_place_for_the_table():
    before, _, _ = table.parts()
    assert [line for line in before if line.startswith("## ")][-1] == "## Figures on a GPU"


def test_a_card_is_put_into_an_empty_table(page):
    table.write([row("NVIDIA H200")], page)
    assert rows(page) == [
        "| NVIDIA H200 | `ect_edm_cifar10` | bfloat16 | no | 256 | 2,012 | 1.45 | 35% | 41.2 GiB | 2.14.1+cu130 "
        "| 30 November 2026 |"
    ]
    assert table.EMPTY not in page.read_text()


def test_a_card_that_is_measured_again_replaces_its_own_rows_alone(page):
    first = [row("A"), row("A", compiled=True), row("A", "ct_edm_cifar10")]
    table.write([*first, row("B")], page)
    table.write([row("A", batch_size=64, images_per_s=7.0), row("A", "ct_edm_cifar10", ratio=9.0)], page)
    assert rows(page) == [
        cells(*row("A", batch_size=64, images_per_s=7.0)),
        cells(*row("A", compiled=True)),  # there was no time for it now
        cells(*row("A", "ct_edm_cifar10", ratio=9.0)),
        cells(*row("B")),
    ]
    before = page.read_text()
    table.write([], page)
    assert page.read_text() == before


def test_a_name_cannot_break_a_row(page):
    table.write([row("A | B\nC")], page)
    assert rows(page)[0].startswith("| A / B C | `ect_edm_cifar10` |")
    table.write([row("A | B\nC")], page)
    assert len(rows(page)) == 1


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (table.BEGIN, "", f"found 0 lines '{table.BEGIN}', allowed: one"),
        (table.END, "", f"found 0 lines '{table.END}', allowed: one"),
        (table.END, f"{table.END}\n{table.END}", f"found 2 lines '{table.END}', allowed: one"),
        (table.EMPTY, "My card is fast.", "found a table of GPUs that begins 'My card is fast.'"),
        ("| GPU | recipe |", "| card | recipe |", "found a table of GPUs that begins '| card | recipe |"),
        ("| 30 November 2026 |", "|", "in the table of GPUs, allowed: rows of 11 cells"),
    ],
)
def test_a_table_that_somebody_has_changed_is_one_line(page, before, after, says):
    if "|" in before:
        table.write([row("A")], page)
    assert before in page.read_text()
    page.write_text(page.read_text().replace(before, after))
    changed = page.read_text()
    with pytest.raises(table.PageError) as refused:
        table.write([row("B")], page)
    assert str(refused.value).startswith(f"{page}: found ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert page.read_text() == changed


def test_markers_in_the_wrong_order_and_pages_that_cannot_be_read_are_one_line(page, tmp_path):
    page.write_text(f"{table.END}\n{table.BEGIN}\n")
    with pytest.raises(table.PageError, match="found '<!-- end of the table of make gpu -->' before"):
        table.parts(page)
    page.write_bytes(b"\xff")
    with pytest.raises(table.PageError, match="cannot be read"):
        table.parts(page)
    with pytest.raises(table.PageError, match="cannot be read: No such file"):
        table.parts(tmp_path / "none.md")


def test_a_page_that_cannot_be_written_stays(page, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    before = page.read_text()
    monkeypatch.setattr(table, "write_atomically", full)
    with pytest.raises(table.PageError, match="cannot be written: No space left on device"):
        table.write([row("A")], page)
    assert page.read_text() == before


# the report


def measured(level: str, figures: dict) -> benches.Measured:
    return benches.Measured("ect_edm_cifar10", False, Check("bench x", level, "why", values=figures), figures)


def concluded(page, tmp_path, levels, of_benches=()):
    found = [Check(f"steps {i}", level, "told", values={"losses": [1.0]}) for i, level in enumerate(levels)]
    return gpu.concluded(gpu.Report("NVIDIA H200 (x)"), found, lambda: of_benches, page, tmp_path / "build" / "gpu")


def test_the_report_has_a_line_for_each_check_a_file_and_a_table(page, tmp_path, capsys):
    assert concluded(page, tmp_path, ["ok", "ok"], [measured("ok", FIGURES)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        *(["ok", "steps", str(i), "told"] for i in range(2)),
        ["ok", "bench", "x", "why"],
    ]
    kept = tmp_path / "build" / "gpu" / "NVIDIA-H200-x.json"
    assert lines[4].startswith("NVIDIA H200 (x): 3 ok, 0 failed, 0 not looked at, in ")
    assert lines[4].endswith(f"All figures: {kept}")
    assert lines[5] == f"new rows of the table in {page}: 1"
    told = json.loads(kept.read_text())
    assert (told["card"], told["torch"]) == ("NVIDIA H200 (x)", torch.__version__)
    first = told["checks"][0]
    assert first.pop("seconds") >= 0
    assert first == {"name": "steps 0", "level": "ok", "found": "told", "advice": "", "values": {"losses": [1.0]}}
    assert told["checks"][2]["values"] == FIGURES
    assert rows(page)[0].startswith("| NVIDIA H200 (x) | `ect_edm_cifar10` |")


@pytest.mark.parametrize(
    ("levels", "level", "code"),
    [(["ok", "fail"], "ok", 1), (["ok"], "fail", 1), (["ok"], "-", 0), (["ok", "-"], "ok", 0), (["-"], "-", 1)],
)
def test_a_check_that_fails_is_an_exit_code(page, tmp_path, capsys, levels, level, code):
    before = page.read_text()
    assert concluded(page, tmp_path, levels, [measured(level, FIGURES if level == "ok" else {})]) == code
    out = capsys.readouterr().out
    assert ("FAIL" in out) == ("fail" in (*levels, level))
    assert ("not looked at (more time: make gpu MINUTES=20): " in out) == ("-" in (*levels, level))
    assert (page.read_text() == before) == (level != "ok")


def test_a_page_that_was_changed_meanwhile_is_one_line_and_the_figures_are_kept(page, tmp_path, capsys):
    page.write_text("changed")
    assert concluded(page, tmp_path, ["ok"], [measured("ok", FIGURES)]) == 2
    assert capsys.readouterr().err.startswith(f"cmbench: {page}: found 0 lines")
    assert len(list((tmp_path / "build" / "gpu").iterdir())) == 1


def test_what_the_checks_have_taken_is_free_before_the_benches(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("emptied"))
    monkeypatch.setattr(gpu.memory, "free", lambda device: done.append(device.type) or 7)
    monkeypatch.setattr(benches, "benches", lambda *given: done.append(given) or iter([SimpleNamespace()]))
    limit = budget()
    assert len(list(gpu.measured(tmp_path, limit))) == 1
    assert done == ["emptied", "cuda", ("cuda", 7, tmp_path / "pictures", limit)]


def test_figures_lie_where_git_does_not_look():
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert f"/{gpu.FIGURES.relative_to(ROOT).parts[0]}/" in ignored
