"""README and pages: each command and block of code in them runs, each link leads somewhere, the site builds.

Commands of a page run in their order in one empty folder, with short trainings in place of long ones. `...` stands for
output that was left out, RUN for the newest run.
"""

import importlib.metadata
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli
import typer

from cmbench import recipe as recipes
from cmbench.cli import _gpus
from cmbench.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import reference  # noqa: E402

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = sorted([ROOT / "README.md", CONTRIBUTING, *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)|(?:src|href)=\"([^\"#]+)")
SHORT = [
    *("train.steps=4", "train.batch_size=8", "log.every=1", "profile.every=2", "evaluate.every=2", "evaluate.n=8"),
    *("evaluate.true_error_n=2", "snapshot.n=4", "checkpoint.every=2", "optimizer.warmup=0", "train.device=cpu"),
]
FEWER = {  # options that make a command as short, for those that take none
    "eval": ("--n", "40", "--repeats", "2"),
    "sample": ("--n", "4"),
    "ablate": ("--list",),  # processes of their own train what it lists: other tests let them
    "sweep": ("--list",),
    "classifier": ("--train-steps", "2"),
    "bench": ("--rounds", "1"),
    "sigma-mid": ("--n", "40", "--repeats", "2", "--points", "3"),
}
OF_A_LIVE_RUN = {"stop", "pause", "continue", "checkpoint", "snapshot", "set", "resume"}  # here the run has finished
NEVER_ENDS = {"serve"}
OF_RUNS = {"compare", "eval", "export", "sample", "show", "watch"}
CONFLICT, USAGE, FAILED = 5, 2, 1
# Other programs that pages may name; of make, the targets are looked up.
OTHERS = {".", ".venv/bin/activate", ".venv/bin/python", "bash", "cat", "cd", "cp", "echo", "git", "grep", "jq", "kill"}
OTHERS |= {"ls", "mkdir", "python3", "ssh", "tmux", "torchrun"}
PHONY = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
TARGETS = set(re.findall(r"[\w-]+", PHONY[1]))


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of code of a page in one language."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, named, text in found if named == language]


def commands(page: Path) -> list[tuple[list[str], bool]]:
    """Return the words of each command behind a prompt, and whether the page shows that it is refused.

    A backslash at the end of a line takes the next line too. A refusal is output that begins with `cmbench: `.
    """
    lines = "\n".join(blocks(page, "console")).replace("\\\n", " ").splitlines()
    found = []
    for line, after in itertools.zip_longest(lines, lines[1:], fillvalue=""):
        typed = shlex.shlex(line[2:] if line.startswith("$ ") else "", posix=True, punctuation_chars=";|&")
        typed.whitespace_split = True
        for is_end, words in itertools.groupby(typed, lambda word: word in (";", "&&", "|")):
            if not is_end:
                found.append(([*words], after.startswith("cmbench: ")))
    return found


def all_pages(function):
    return pytest.mark.parametrize("page", PAGES, ids=page_name)(function)


def in_short(words: list[str]) -> list[str]:
    """Return the arguments of a command with a short training, and with a run where one is meant."""
    words = ["@latest" if word in ("RUN", "A", "B") else word for word in words]
    if words[0] in ("run", "resume", "eval", "sample", "bench") and "--gpus" in words:  # other tests start ranks
        place = words.index("--gpus")
        assert _gpus.parsed(words[place + 1])
        words = [*words[:place], *words[place + 2 :]]
    if {"--list", "--help"} & {*words}:
        return words
    if "--lengths" in words:  # those that the averages of a short training reach
        words = [*words, "--lengths", "0.075"]
    if words[0] == "run":
        words += ["--set", "ema.keep_every=1"] if any("ema.keep_every" in word for word in words) else []
        words = [word for word in words if word not in ("--detach", "-d")]
        words += [*(word for setting in SHORT for word in ("--set", setting)), "--foreground"]
    return [*words, *FEWER.get(words[0], ())]


def needs_pictures(words: list[str]) -> bool:
    """Whether a command would fetch pictures."""
    return any(word.endswith(("_cifar10", "_imagenet64", "_mnist")) for word in words)


@pytest.mark.trains
@all_pages
def test_the_commands_of_a_page_run(page, cmbench, home):
    (home / "tiny.toml").unlink()
    for text in blocks(page, "toml"):
        if name := re.search(r'^name = "(\w+)"', text, re.MULTILINE):
            (home / f"{name[1]}.toml").write_text(text, encoding="utf-8")
    known = {path.stem for path in recipes.available()}
    for words, is_refused in commands(page):
        for name in known & {*words[2:]} if words[:1] == ["cmbench"] and words[1] in OF_RUNS else ():
            if not list((home / "runs").glob(f"{name}-*")):  # a run that the page takes as given
                cmbench(*in_short(["run", name]))
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= TARGETS
        elif words[0] != "cmbench":
            assert words[0] in OTHERS, words
        elif words[1] in NEVER_ENDS or needs_pictures(words):
            command = typer.main.get_command(app).commands[words[1]]
            command.make_context(words[1], list(words[2:])).close()
        else:
            done = cmbench(*in_short(words[1:]))
            allowed = {USAGE} if is_refused else {0}
            allowed |= {CONFLICT} if words[1] in OF_A_LIVE_RUN else set()
            allowed |= {FAILED} if "--fail-if" in words else set()
            assert done.code in allowed, (words, done)


@pytest.mark.trains
@all_pages
def test_the_python_of_a_page_runs(page, home, put_back):
    if page == CONTRIBUTING:
        pytest.skip("its blocks are files of one example: see below")
    for text in blocks(page, "python"):
        fewer = ", ".join(repr(setting) for setting in SHORT[1:])
        text = re.sub(r'\["train\.steps=\d+"\]', f'["train.steps=4", {fewer}]', text)
        exec(compile(text, page_name(page), "exec"), {"__name__": "__main__"})


@pytest.mark.trains
def test_the_example_of_contributing_is_an_objective_that_trains(cmbench, home):
    """Its files stand in the working directory, as a custom class, in place of the package."""
    objective, test = (text for text in blocks(CONTRIBUTING, "python") if "import" in text)
    (home / "own_mine.py").write_text(objective, encoding="utf-8")
    (text,) = blocks(CONTRIBUTING, "toml")
    (home / "mine_edm.toml").write_text(text.replace('kind = "mine"', 'kind = "own_mine:Objective"'), encoding="utf-8")
    assert cmbench("recipe", "check", "mine_edm.toml").code == 0
    assert cmbench(*in_short(["run", "mine_edm.toml"])).code == 0
    (home / "test_own_mine.py").write_text(
        test.replace("from cmbench.objectives import mine", "import own_mine as mine"), encoding="utf-8"
    )
    options = ["-p", "no:cacheprovider", "-n", "0", "-q", "--rootdir", str(home), "-p", "conftest", "test_own_mine.py"]
    command = [sys.executable, "-m", "pytest", *options]
    paths = os.pathsep.join([str(home), str(ROOT / "tests" / "objectives"), str(ROOT)])
    done = subprocess.run(command, cwd=home, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@all_pages
def test_the_toml_of_a_page_is_a_recipe_or_settings(page, tmp_path):
    for text in blocks(page, "toml"):
        tables = tomli.loads(text)
        if page != CONTRIBUTING and ({"name", "extends"} & {*tables}):
            (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
            recipes.load(tmp_path / "mine.toml")


@all_pages
def test_every_block_says_what_it_is(page):
    """So that none escapes the tests above."""
    known = {"bash", "console", "python", "toml", "text", "json"}  # bash: tests/cli/test_queues.py
    assert {named for _, named, _ in BLOCK.findall(page.read_text(encoding="utf-8"))} <= known


@all_pages
def test_links_lead_somewhere(page):
    for found in LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        target = found[0] or found[1]
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_every_page_has_its_place_in_the_site():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = [page for page in (ROOT / "docs").rglob("*.md") if str(page.relative_to(ROOT / "docs")) not in site]
    assert missing == []


def pinned(package: str) -> bool:
    """Whether the tested version of a package is here: others word a help or a schema in their own way."""
    return f"{package}=={importlib.metadata.version(package)}" in (ROOT / "constraints.txt").read_text()


@pytest.mark.skipif(not (pinned("typer") and pinned("pydantic")), reason="other versions than the tested ones")
@pytest.mark.parametrize("name", ["recipes.md", "commands.md"])
def test_reference_pages_are_what_the_code_says(name):
    """`make docs` writes them."""
    assert (reference.PAGES / name).read_text(encoding="utf-8") == reference.pages()[name]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="mkdocstrings for Python 3.10 lags behind its highlighter")
@pytest.mark.skipif(not pinned("zensical"), reason="another version than the tested one")
@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("paths: [.]", f"paths: [{ROOT}]")
    (tmp_path / "mkdocs.yml").write_text(config, encoding="utf-8")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "quickstart" / "index.html").exists()
