"""Options of one meaning have one name over all commands, one name has one meaning, and former names go on working."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
import typer
from typer import core

from cmbench.cli import main

FORMER = [  # command, as it was typed before, as it is typed now
    (["run"], ["--plain"], ["--foreground"]),
    (["resume"], ["--plain"], ["--foreground"]),
    (["watch"], ["-n", "20"], ["--past", "20"]),
    (["watch"], ["-n20"], ["--past=20"]),
    (["sample"], ["--save", "x"], ["--safetensors", "x"]),
    (["sample"], ["--save=-n=1"], ["--safetensors=-n=1"]),
    (["eval"], ["--metrics", "recall"], ["--measures", "recall"]),
    (["classifier"], ["--out", "x", "--steps", "5"], ["--out", "x", "--train-steps", "5"]),
    (["lab"], ["--png", "x"], ["--out", "x"]),
]
ARGUMENTS = {"run": ["RECIPE"], "resume": ["RUN"], "classifier": ["RECIPE"]}


def commands() -> Iterator[tuple[str, core.TyperCommand]]:
    def walk(command, words):
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*words, name])
        yield " ".join(words), command

    yield from walk(typer.main.get_command(main.app), ["cmbench"])


def options() -> Iterator[tuple[str, core.TyperOption]]:
    for name, command in commands():
        yield from ((name, p) for p in command.params if p.param_type_name == "option")


def meaning(option: core.TyperOption) -> str:
    """What an option says of itself: the words with which its help begins, for what follows is the command's own."""
    return " ".join(option.help.split()[:2]).rstrip(",.;:")


def test_one_name_has_one_meaning():
    meanings = defaultdict(dict)
    for command, option in options():
        for name in option.opts:
            meanings[name].setdefault(meaning(option), command)
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


def test_one_meaning_has_one_name():
    names = defaultdict(dict)
    for command, option in options():
        names[option.help].setdefault(tuple(option.opts), command)
    assert {text: found for text, found in names.items() if len(found) > 1} == {}


def test_options_of_one_name_take_values_of_one_kind():
    kinds = defaultdict(dict)
    for command, option in options():
        for name in option.opts:
            kinds[name].setdefault((option.is_flag, option.multiple), command)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_an_option_has_one_long_name_and_says_what_it_is():
    for command, option in options():
        assert len([name for name in option.opts if name.startswith("--")]) == 1, (command, option.opts)
        assert option.help, (command, option.opts)


def test_options_that_mean_a_file_say_so():
    for command, option in options():
        if any(word in option.help for word in ("Write", "write")) and not option.is_flag:
            assert option.metavar in ("FILE", "FILE.csv", "FOLDER", "FILE|FOLDER"), (command, option.opts)


@pytest.mark.parametrize(("words", "before", "now"), FORMER)
def test_former_names_go_on_working_and_are_not_listed(words, before, now):
    command = dict(commands())[" ".join(["cmbench", *words])]
    given = ARGUMENTS.get(words[0], [])
    parsed = [command.make_context(words[0], [*given, *options]).params for options in (before, now)]
    assert parsed[0] == parsed[1]
    former = before[-2] if len(before) > 1 else before[0].partition("=")[0][: 2 if words == ["watch"] else None]
    assert former not in [name for p in command.params for name in p.opts]


def test_a_former_name_behind_two_dashes_is_an_argument():
    command = dict(commands())["cmbench lab"]
    assert command.make_context("lab", ["--", "--png"]).params["names"] == ["--png"]
