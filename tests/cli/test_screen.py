"""What reaches a screen: every command in front of hostile text, at a terminal and in a pipe; and outputs that fail."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer.main
from live_runs import add, event, live_run, metrics
from rich.table import Table
from rich.text import Text
from typer import core

from cmbench import recipe as recipes
from cmbench.cli import _options, _screen, main
from cmbench.rundir import annotations, status
from cmbench.rundir.files import read_json, to_json
from cmbench.rundir.layout import RunDir
from cmbench.rundir.select import address
from cmbench.text import brief, json_escaped, plain, toml_escaped

INVISIBLE = "\u034f\u115f\u1160\u17b4\u180b\u3164\uffa0\ufe0f\U000e0100"
ACTING = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)) in ("Cc", "Cf", "Zl", "Zp")]
# A title, a cleared screen, a colour that is none of ours, a link, a line that others did not write.
SEQUENCES = "\x1b]0;owned\x07\x1b[2J\x1b[7;35;45m\x1b]8;;http://x\x1b\\\x9b31m\x90\r\ncmbench: all is well\u2028\u202e"
HOSTILE = f"{SEQUENCES}{''.join(ACTING[1:])}{INVISIBLE}[red]x[/red]"  # [1:]: no argument holds a zero
NAME = "a\x1b[7;35;45m\n\r\t\x07\x7f\x85\x9b2J\u202e\u200b\u2028\ufeff\ud800"[:-1] + "[red]x"


def acting(text: str) -> list[str]:
    """Return the characters that should not have left; line feeds and half pairs of the decoder aside."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [c for c in text if (unicodedata.category(c) in kinds or c in INVISIBLE) and c != "\n"]


# Follows what a command printed. A terminal that closes at once may lose its last characters: Linux promises nothing.
END = "<all is read>"

# Colours, the cursor, erased lines: what Rich sends.
OWN = re.compile(r"\x1b\[(?!7;35;45m)[\d;]*m|\x1b\[\?25[lh]|\x1b\[[12]?[AK]|\r(?=\x1b\[)")


class Printed:
    """A command in this process, whose output reaches terminals or pipes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
        self._patch, self.terminal = monkeypatch, terminal
        monkeypatch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return the exit code and what left by stdout and stderr; fail where something acts."""
        ends = [pty.openpty() if self.terminal else os.pipe() for _ in range(2)]
        texts, readers = [b"", b""], []
        for i, (reading, writing) in enumerate(ends):
            if not self.terminal:
                writing, reading = writing, reading
            readers.append(threading.Thread(target=self._read, args=(reading, texts, i)))
            readers[-1].start()
        streams = [open(writing, "w", encoding="utf-8", errors="surrogateescape") for _, writing in ends]  # noqa: PTH123, SIM115
        with self._patch.context() as patch:
            patch.setattr(sys, "argv", ["cmbench", *arguments])
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            try:
                code = main.exit_code()
            finally:
                for stream in streams:
                    stream.write(END)
                    stream.flush()
                for reader in readers:
                    reader.join()
                for stream in streams:
                    stream.close()
        out, err = (text.decode("utf-8", "surrogateescape").replace("\r\n", "\n") for text in texts)
        for text in (out, err):
            assert acting(OWN.sub("", text) if self.terminal else text) == [], (arguments, text)
            assert "\ncmbench: all is well" not in text
        return code, out, err

    @staticmethod
    def _read(end: int, texts: list[bytes], i: int) -> None:
        while not texts[i].endswith(END.encode()):
            texts[i] += os.read(end, 1 << 16)
        texts[i] = texts[i].removesuffix(END.encode())
        os.close(end)


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def printed(request, home, put_back, monkeypatch) -> Printed:
    return Printed(monkeypatch, request.param)


@pytest.fixture
def hostile(trained) -> RunDir:
    """A finished run that holds hostile text wherever a run holds text."""
    run = RunDir(trained.path.rename(trained.path.with_name(NAME)))
    run.recipe.write_text(run.recipe.read_text().replace("[data]", f"[data]\nown = {json_string(HOSTILE)}"))
    annotations.annotate(run, note=HOSTILE, tags=[HOSTILE])
    now = status.read(run)
    last = {**now["last"], HOSTILE: 1.0, "loss" + HOSTILE: 2.0}
    run.status.write_bytes(to_json({**now, "last": last, "host": HOSTILE, "best": {**now["best"], HOSTILE: None}}))
    run.meta.write_bytes(to_json({**(read_json(run.meta) or {}), "device": HOSTILE, "host": HOSTILE, HOSTILE: HOSTILE}))
    add(run.metrics, metrics(12, **{HOSTILE: 1.0, "loss" + HOSTILE: 2.0, "nonfinite": {HOSTILE: HOSTILE}}))
    add(
        run.events,
        event(12, "warning", text=HOSTILE),
        event(12, HOSTILE),
        event(12, "failed", error=HOSTILE * 50),
        event(12, "checkpoint", folder=HOSTILE),
        event(12, "snapshot", files=[HOSTILE]),
        event(12, "request", action=HOSTILE, result=HOSTILE, settings={HOSTILE: HOSTILE}, id=HOSTILE),
    )
    run.console.write_text(HOSTILE)
    (run.checkpoints / NAME).mkdir()
    (run.snapshots / f"0{NAME}.png").write_bytes(b"")
    return run


def json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def all_commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command of the application."""

    def walk(command: core.TyperCommand | core.TyperGroup, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(command, core.TyperGroup):
            for name, inner in command.commands.items():
                yield from walk(inner, (*words, name))
        else:
            yield words

    yield from walk(typer.main.get_command(main.app), ())


# What each command is called with, beside what all are called with; RUN is the hostile run.
CALLS = {
    ("run",): [["bad.toml"], ["tiny.toml", "--set", f"name={HOSTILE}"], ["tiny.toml", "--runs-dir", "tiny.toml/x"]],
    ("resume",): [["RUN"], ["RUN", "--set", HOSTILE], ["RUN", "--checkpoint", HOSTILE]],
    ("watch",): [["RUN"], ["RUN", "--plain", "-n", "50"], ["RUN", "--json", "-n", "50"], ["RUN", "--ascii"]],
    ("serve",): [[HOSTILE, "--port", HOSTILE]],
    ("ls",): [[], ["--json"], ["--runs-dir", NAME]],
    ("show",): [["RUN"], ["RUN", "--json"], ["a"], ["@latest:" + HOSTILE]],
    ("compare",): [
        *(["RUN", "live", option] for option in ("--plain", "--json", "--csv=-")),
        ["RUN", "live", "--html", "page.html"],
        ["RUN", "live", "--fail-if", f"'{HOSTILE}' > 0"],
        ["RUN", "--fail-if", HOSTILE],
        ["--filter", HOSTILE],
        ["RUN", "--metric", HOSTILE],
        ["RUN", "--reach", f"{HOSTILE}=1"],
    ],
    ("edit",): [
        ["RUN", "--n", "4", "--steps", "2", "--out", f"{NAME}.png"],
        *(["RUN", option, HOSTILE] for option in ("--task", "--picture", "--mask", "--sigmas", "--label", "--ema")),
        ["RUN", "--task", "denoise", "--json"],
    ],
    ("export",): [
        ["RUN", "--as", "torch", "--out", f"{NAME}.out"],
        ["RUN", "--metrics", "csv", "--out", f"{NAME}.csv"],
        ["RUN", "--metrics", "csv", "--out", f"{NAME}.json", "--json"],
        ["RUN", "--as", HOSTILE, "--out", "x"],
        ["RUN", "--as", "torch", "--ema", HOSTILE, "--out", HOSTILE],
    ],
    ("ema",): [["RUN"], ["RUN", "--lengths", HOSTILE], ["RUN", "--kept", HOSTILE, "--json"]],
    ("sigma-mid",): [["RUN", "--measure", HOSTILE], ["RUN", "--ema", HOSTILE], ["RUN", "--set", HOSTILE]],
    ("sample",): [
        *(["RUN", "--n", "4", "--out", out] for out in (f"{NAME}.png", NAME)),
        ["RUN", "--ema", HOSTILE],
        ["RUN", "--sigmas", HOSTILE],
    ],
    ("eval",): [
        *(["RUN", option, HOSTILE] for option in ("--reference", "--ema", "--checkpoint")),
        ["RUN", "--metrics", HOSTILE],
        ["RUN", "--features", HOSTILE],
        ["RUN", "--markdown", "page.md"],
    ],
    ("reference",): [
        *([what, "--out", "x.npz", "--features", "pixels"] for what in ("bad.toml", f"{NAME}.npy")),
        ["tiny.toml", "--out", HOSTILE],
        ["tiny.toml", "--out", "x.npz", "--features", HOSTILE],
        ["tiny.toml", "--out", "x.npz", "--inception-weights", f"{NAME}.pth"],
    ],
    ("classifier",): [["bad.toml", "--out", f"{NAME}.safetensors"], ["tiny.toml", "--out", HOSTILE]],
    ("import",): [
        *(["bad.pt", "--network", "tiny.toml", *more] for more in (["--out", HOSTILE], ["--list"])),
        ["bad.pt", "--network", "tiny.toml", "--list", "--json"],
        ["bad.pt", "--network", HOSTILE, "--out", "a", "--weights", HOSTILE, "--function", HOSTILE],
        ["bad.pt", "--network", "tiny.toml", "--out", "a", "--allow-missing", "*", "--licence", HOSTILE],
        ["bad.toml", "--network", "tiny.toml", "--out", "a"],
    ],
    ("stop",): [["RUN"], ["RUN", "--timeout", HOSTILE], ["live", "--timeout", "0"]],
    ("pause",): [["RUN"], ["live", "--timeout", "0"], ["live", "--timeout", "0", "--json"]],
    ("continue",): [["RUN"], ["live", "--timeout", "0"]],
    ("checkpoint",): [["RUN"], ["live", "--timeout", "0"]],
    ("snapshot",): [["RUN"], ["live", "--timeout", "0"]],
    ("set",): [["RUN", HOSTILE], ["RUN", f"{HOSTILE}=1"], ["live", "log.every=1", "--timeout", "0"]],
    ("sweep",): [["bad.toml"], ["tiny.toml", "--set", f"seed=1,{HOSTILE}"], ["tiny.toml", "--name", HOSTILE]],
    ("ablate",): [["bad.toml"], ["tiny.toml", "--drop", HOSTILE], ["tiny.toml", "--list", "--name", HOSTILE]],
    ("doctor",): [["RUN"], ["bad.toml"]],
    ("bench",): [["bad.toml"], ["tiny.toml", "--set", f"name={HOSTILE}"], ["tiny.toml", "--compare-with", HOSTILE]],
    ("lab",): [[], ["all", "--markdown", f"{NAME}/x"]],
    ("data", "describe"): [["tiny.toml"], ["bad.toml"], [f"{NAME}.npy"], ["tiny.toml", "--set", HOSTILE]],
    ("recipe", "list"): [[], ["--json"]],
    ("recipe", "show"): [["good.toml"], ["good.toml", "--json"], ["good.toml", "--schedules"], ["bad.toml"]],
    ("recipe", "check"): [["good.toml", "bad.toml", NAME]],
    ("recipe", "schema"): [[]],
}  # fmt: skip


def test_every_command_is_called():
    assert set(all_commands()) == CALLS.keys()


@pytest.mark.parametrize("command", CALLS, ids=" ".join)
def test_nothing_that_a_command_prints_acts_on_a_terminal(printed, hostile, home, command):
    live_run(home / "runs", f"live{NAME}").events.write_bytes(b"")
    (home / "recipes").mkdir()
    (home / "recipes" / f"{NAME}.toml").write_text(f"name = {json_string(HOSTILE)}")
    teacher = f'[teacher]\nkind = "run"\nrun = {json_string("@latest:" + HOSTILE)}'
    (home / "good.toml").write_text((home / "tiny.toml").read_text())
    torch.save({"ema": {f"{HOSTILE}.input.weight": torch.ones(16, 2), HOSTILE: torch.ones(3)}}, home / "bad.pt")
    (home / "bad.toml").write_text(f"{(home / 'tiny.toml').read_text()}\n{json_string(HOSTILE)} = 1\n{teacher}")
    for given in (*CALLS[command], [HOSTILE], [f"--{HOSTILE}"], [HOSTILE, HOSTILE, HOSTILE], ["--help"]):
        arguments = [str(hostile.path) if word == "RUN" else word for word in given]
        code, out, err = printed(*command, *arguments)
        assert code in (0, 1, 2, 3, 4, 5, 75), err
        assert "Traceback" not in err
        complaints = [line for line in err.splitlines() if line.startswith("cmbench: ")]
        assert all(len(line) < 500 for line in complaints)
        if "--json" in arguments and out:
            assert all(json.loads(line) for line in out.splitlines())
    for page in home.glob("page.*"):
        assert acting(page.read_text(encoding="utf-8")) == []


def test_what_is_computed_of_a_run_of_such_a_name(printed, trained, home):
    run = trained.path.rename(trained.path.with_name(f"{NAME}|`b"))
    asked = ["--metrics", "sliced_wasserstein", "--repeats", "2", "--markdown", "page.md"]
    for arguments in (
        ["eval", str(run), *asked],
        ["eval", str(run), *asked, "--json"],
        ["sample", str(run), "-n", "4"],
    ):
        code, _, err = printed(*arguments)
        assert code == 0, err
    page = (home / "page.md").read_text(encoding="utf-8")
    assert acting(page) == []
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")} == {4}


def test_what_others_print_and_a_debugged_error_are_harmless_as_well(printed, monkeypatch):
    monkeypatch.setenv("CMBENCH_DEBUG", "1")

    def fail(*_: object) -> None:
        text = HOSTILE.replace("\n", "")  # what others print may have lines
        print(text, file=sys.stderr)
        typer.echo(text)
        raise ValueError(text)

    monkeypatch.setattr("cmbench.recipe.find", fail)
    code, out, err = printed("run", "tiny.toml")
    assert (code, err.count("ValueError: ")) == (1, 2)
    assert "owned" in out


def test_colours_are_our_own_and_those_of_a_terminal(printed, trained):
    for command in (["ls"], ["watch"], ["sample", "--n", "4"], ["recipe", "show", "tiny.toml", "--schedules"]):
        code, out, err = printed(*command)
        assert (code, err) == (0, "")
        assert ("\x1b[" in out) == (printed.terminal and command[0] != "sample")  # points have no colours


def test_a_console_prints_texts_and_no_sequences(printed, monkeypatch):
    def show(*_: object) -> None:
        text = HOSTILE.replace("\n", "")  # which Rich's layout needs
        table = Table("a", title=text)
        table.add_row(text, Text(text, style="red"))
        _screen.console().print(table, text)
        with _screen.waiting(HOSTILE):
            raise _screen.CmbenchError("after all")

    monkeypatch.setattr("cmbench.recipe.find", show)
    _, out, err = printed("run", "tiny.toml")
    assert "owned" in out
    assert err.endswith("cmbench: after all\n")


def test_data_stays_data(cmbench, hostile):
    shown = json.loads(cmbench("show", str(hostile.path), "--json").out)
    assert shown["recipe"]["data"]["own"] == HOSTILE
    assert shown["name"] == NAME
    assert json.loads(json_escaped(json_string(HOSTILE))) == HOSTILE
    toml = cmbench("show", str(hostile.path)).out.partition(f"\n{plain(NAME)}: ")[0]  # the recipe comes first
    assert recipes.tomli.loads(toml)["data"]["own"] == HOSTILE
    assert recipes.tomli.loads(toml_escaped(f"a = {json_string(HOSTILE)}"))["a"] == HOSTILE


def test_names_that_are_no_utf8_are_told_in_json(cmbench, trained):
    name = os.fsdecode(b"a\xffb")
    trained.path.rename(trained.path.with_name(name))
    (about,) = json.loads(cmbench("ls", "--json").out)["runs"]
    assert about["name"] == "a\\udcffb"
    assert cmbench("ls").out.splitlines()[1].split()[0] == "a\ufffdb"


def test_everything_that_acts_or_hides_has_a_sign():
    acts = {chr(c) for c in range(sys.maxunicode + 1) if acting(chr(c))} | {"\n"}
    assert {c for c in map(chr, range(sys.maxunicode + 1)) if plain(c) != c} >= acts
    assert acting(plain("".join(acts))) == []
    assert plain("größe 数 ⠿ ▀ é") == "größe 数 ⠿ ▀ é"
    assert acting(json_escaped("".join(acts - {"\n"}))) == acting(toml_escaped("".join(acts - {"\n"}))) == []


@pytest.mark.parametrize("value", ["x" * 179_000, "x y " * 45_000, "\n" * 179_000, "'" * 179_000, "\x1b" * 179_000])
def test_a_message_is_bounded_and_keeps_both_ends(value):
    said = brief(f"tiny.toml: data.name: found '{value}', allowed: ring or grid; did you mean 'ring'?")
    assert len(said) <= 480
    assert said.startswith("tiny.toml: data.name: found '")
    assert said.endswith("allowed: ring or grid; did you mean 'ring'?")
    assert "\n" not in said


@pytest.mark.parametrize("words", ["x" * 100_000, "x y " * 25_000, "\n x" * 25_000])
def test_long_values_are_cut_in_the_journal(cmbench, trained, words):
    add(trained.events, event(12, "warning", text=words), event(12, words))
    said = cmbench("watch", trained.name, "--plain", "-n", "99").out.splitlines()
    assert sum("  step 12 " in line and "…" in line for line in said) == 2
    assert max(map(len, said)) <= len("2026-11-29 12:00:00  ") + 480


@pytest.mark.parametrize("words", ["x" * 100_000, "x y " * 25_000, "\n x" * 25_000])
def test_long_values_are_cut_in_every_complaint(cmbench, home, trained, words):
    (home / "long.toml").write_text((home / "tiny.toml").read_text().replace('"ring"', json.dumps(words)))
    for arguments in (
        ["run", "long.toml"],
        ["run", "tiny.toml", "--set", f"name={words}"],
        ["run", "tiny.toml", "--set", f"{words}=1"],
        ["run", "tiny.toml", "--set", words],
        ["run", words],
        ["show", words],
        ["compare", words],
        ["compare", trained.name, "--fail-if", words],
        ["sample", "--sigmas", words],
        ["sample", "--n", words],
        ["eval", "--metrics", words],
        ["set", trained.name, words],
        ["lab", words],
        ["ls", f"--{words}"],
        [words],
    ):
        said = cmbench(*arguments)
        assert said.code in (1, 2, 4), said
        assert said.out == ""
        assert said.err.startswith("cmbench: ")
        assert said.err.count("\n") == 1
        assert len(said.err) <= 500


def test_a_pipe_gets_every_row_whole(cmbench, trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = trained.path.rename(trained.path.with_name("a" * 200))
    rows = cmbench("ls").out.splitlines()
    assert rows[1].split()[:3] == [long.name, "finished", "12/12"]
    assert f"path {long}" in " ".join(cmbench("watch").out.split())
    assert str(long) in cmbench("show").out
    assert long.name in cmbench("compare", long.name, "--plain").out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_the_letters_shows_them_all_the_same(trained, encoding):
    trained.path.rename(trained.path.with_name("größe数"))
    done = run_shell('"$@"', "ls", env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u6570" in done.stdout


def run_shell(script: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of bash's in which "$@" is the command."""
    command = ["bash", "-c", f"set -o pipefail; {script}", "bash", sys.executable, "-m", "cmbench", *arguments]
    environment = {**buffered(), **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, errors="replace", check=False)


def buffered() -> dict[str, str]:
    """Return an environment in which a part of what is printed may be left when the interpreter ends."""
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**usual, "PYTHONPATH": str(Path(main.__file__).parents[2])}


@pytest.mark.parametrize(
    ("redirected", "code", "err"),
    [
        ("> /dev/full", 1, "cmbench: stdout: cannot be written: No space left on device\n"),
        ("> /dev/full 2> /dev/full", 1, ""),
        ("> /dev/full 2>&-", 1, ""),
        ("1< /dev/null", 1, "cmbench: stdout: cannot be written: Bad file descriptor\n"),
        (">&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        ("2> /dev/full", 0, ""),
    ],
)
def test_an_output_that_takes_nothing(trained, redirected, code, err):
    others = [["show", "--json"], ["--help"]] if redirected in ("> /dev/full", ">&-") else []
    for arguments in (["ls"], *others):
        done = run_shell(f'"$@" {redirected}', *arguments)
        assert (done.returncode, done.stderr) == (code, err), arguments


@pytest.mark.parametrize("arguments", [["ls"], ["show", "--json"], ["--help"], ["watch", "--plain"]])
def test_a_reader_that_has_left_ends_it_in_silence(trained, arguments):
    """The reader is gone before the first byte: the pipe's other end is closed before the command begins."""
    for streams in (["stdout"], ["stdout", "stderr"]):
        reading, writing = os.pipe()
        os.close(reading)
        given = dict.fromkeys(streams, writing)
        done = subprocess.run(
            [sys.executable, "-m", "cmbench", *arguments],
            **({"stderr": subprocess.PIPE} | given),
            env=buffered(),
            check=False,
        )
        os.close(writing)
        assert (done.returncode, done.stderr or b"") == (141, b"")


@pytest.mark.parametrize("redirected", ["2> /dev/full", "2>&-", ">&- 2>&-"])
def test_a_complaint_that_cannot_be_written_keeps_its_exit_code(home, redirected):
    done = run_shell(f'"$@" {redirected}', "show", "nobody")
    assert (done.returncode, done.stdout, done.stderr) == (4, "", "")


def test_files_of_ours_never_become_a_stream_that_was_closed():
    """A file that took the place of stderr would get what other programs say there."""
    program = "import os; from cmbench.cli import main; main.exit_code = lambda: os.open('/dev/null', 0); main.main()"
    command = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", program]
    assert subprocess.run(command, env=buffered(), check=False).returncode > 2


def test_a_verdict_is_given_though_its_reader_has_left(trained):
    done = run_shell('"$@" | true', "compare", trained.name, trained.name, "--plain", "--fail-if", "loss > 0")
    assert done.returncode in (1, 141)


def test_help_doubles_no_brackets(cmbench):
    for command in all_commands():
        text = cmbench(*command, "--help").out
        usage = text.split("\n\n")[0]
        assert not re.search(r"\.\.\.[\]}]*\.\.\.|\[\[|\{\{", usage), usage


def test_completion_offers_no_name_that_a_shell_would_take_apart(home):
    for name in ("good", "$(touch owned)", "a b", "x\n", "'", "\x1b[2J", "größe"):
        live_run(home / "runs", name)
    assert _options.complete_runs("") == ["@latest", "good"]


def test_a_suggestion_can_be_pasted(home):
    assert address(live_run(home / "runs", "plain-1")) == "plain-1"
    assert address(live_run(home / "runs", "$(touch owned)")) == "'$(touch owned)'"


def test_nothing_is_printed_beside_the_screen():
    """Of all that prints, only _screen.py may: what a console draws into a file of its own reaches no screen."""
    for path in sorted(Path(main.__file__).parent.glob("*.py")):
        if path.name != "_screen.py":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\b(typer|click)\.(s?echo)|(?<![\w.])print\(|\.stdout\.(write|buffer)", text), path
            assert all("file=io." in found for found in re.findall(r"\bConsole\(.*", text)), path
