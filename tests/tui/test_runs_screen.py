"""The browser, key by key, over run directories that are only files."""

import json
import unicodedata
from pathlib import Path

import pytest
from fake_runs import fake_run, write_status
from textual.widgets import Input, Static
from tui_host import SIZES, comes_to_rest, drive, shown, until

from cmbench.rundir import annotations, launch
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, point_latest
from cmbench.tui.screens import _run_actions
from cmbench.tui.screens.confirm import Ask, Confirm, TypedConfirm
from cmbench.tui.screens.recipe import RecipeScreen
from cmbench.tui.screens.runs import RunsScreen
from cmbench.tui.widgets.run_table import RunTable

STAMP = "20261122-221503"
HOSTILE = "[bold]x[/] \x1b[2J\x07 \u202e\u200f [@click=app.quit]y"
at_both_sizes = pytest.mark.parametrize("size", SIZES)


@pytest.fixture
def runs(tmp_path) -> dict[str, RunDir]:
    """Five runs, the newest last; by age the table shows them as edcba."""
    told = {
        "a": {"state": "finished", "loss": 0.5, "sw": 0.5, "note": "warm-up"},
        "b": {"state": "stopped", "loss": 0.4, "sw": 0.1, "step": 5, "tags": ["lr"]},
        "c": {"state": "diverged", "loss": None, "sw": None, "step": 7},
        "d": {"state": "finished", "loss": 0.2, "sw": 0.3},
        "e": {"state": "running", "loss": 0.1, "sw": 0.2, "step": 50},
    }
    ages = {"a": 4000, "b": 3000, "c": 2000, "d": 1000, "e": 0}
    return {
        name: fake_run(tmp_path / "runs", f"run_{name}-{STAMP}-000{name}", age=ages[name], rows=20, **fields)
        for name, fields in told.items()
    }


def letters(app) -> str:
    """The runs of the table from top to bottom."""
    return "".join(name[4] for name in app.screen_stack[1].query_one(RunTable).order)


def under_cursor(app) -> str:
    return (app.screen_stack[1].query_one(RunTable).current or "run_-")[4]


def cells(app, name: str) -> dict[str, str]:
    table = app.screen_stack[1].query_one(RunTable)
    key = next(key for key in table.order if key.startswith(f"run_{name}"))
    return {str(column.value): table.get_cell(key, column).plain.strip() for column in table.columns}


def browse(runs, steps, size=SIZES[0], **options):
    folder = runs if isinstance(runs, Path) else next(iter(runs.values())).path.parent

    async def begin(app, pilot):
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count)
        await pilot.pause()
        await steps(app, pilot)

    return drive(lambda: RunsScreen(folder), begin, size, **options)


def question(app, kind) -> bool:
    return isinstance(app.screen, kind)


@at_both_sizes
def test_it_shows_every_run_the_newest_first(runs, size):
    async def steps(app, pilot):
        assert letters(app) == "edcba"
        await until(pilot, lambda: "█" in cells(app, "a")["spark"])
        text = shown(app)
        assert all(f"run_{name}·000{name}" in text for name in runs)
        assert "5 runs · by age" in text
        row = cells(app, "b")
        assert (row["step"], row["loss"], row["quality"]) == ("5/100", "0.4", "0.1")
        assert row["state"] == ("■ stopped" if size[0] > 100 else "■")
        assert (cells(app, "c")["loss"], cells(app, "c")["quality"]) == ("", "")
        assert row["age"] == "50 m"
        if size[0] > 140:
            assert row["tags"] == "lr"
        else:  # no name, and no other cell, is folded
            assert "run_b·000b" in text
            assert not app.screen.query_one(RunTable).show_horizontal_scrollbar

    browse(runs, steps, size)


def test_a_plain_terminal_gets_plain_signs(runs):
    async def steps(app, pilot):
        await until(pilot, lambda: "#" in cells(app, "a")["spark"])
        await pilot.press("space")
        assert cells(app, "e") | {"spark": ""} == cells(app, "e") | {"mark": "*", "state": "* running", "spark": ""}
        assert all(text.isascii() for name in runs for text in cells(app, name).values())

    browse(runs, steps, ascii=True)


def test_an_empty_folder_says_what_to_do(tmp_path):
    async def steps(app, pilot):
        await until(pilot, lambda: "no runs in" in shown(app))
        await pilot.press("enter", "space", "C", "o", "R", "r", "S", "N", "t", "D", "v")
        assert "cmbench run recipes/ct_edm.toml" in shown(app).replace("\n", "")
        fake_run(tmp_path, "new")
        app.screen.wake()
        await until(pilot, lambda: "new" in shown(app))

    app = drive(lambda: RunsScreen(tmp_path), steps)
    assert (app.opened, app.compared) == ([], [])


@at_both_sizes
def test_enter_opens_the_run_under_the_cursor(runs, size):
    async def steps(app, pilot):
        await pilot.press("down", "j", "k", "enter")
        await until(pilot, lambda: app.opened)

    assert browse(runs, steps, size).opened == [runs["d"]]


@at_both_sizes
def test_marked_runs_are_compared(runs, size):
    async def steps(app, pilot):
        await pilot.press("C")
        assert app.said[-1] == "0 marked, at least 2 needed: space marks a run"
        await pilot.press("space")
        assert (cells(app, "e")["mark"], under_cursor(app)) == ("★", "d")
        await pilot.press("C")
        assert app.said[-1] == "1 marked, at least 2 needed: space marks a run"
        await pilot.press("j", "space", "space", "k", "space", "C")
        assert "2 marked" in shown(app)

    assert browse(runs, steps, size).compared == [[runs["e"], runs["c"]]]


@at_both_sizes
def test_marks_filter_and_order_survive_a_refresh(runs, size):
    async def steps(app, pilot):
        await pilot.press("space", *"/run_", "enter", "o", "o", "R")
        assert letters(app) == "edcba"
        assert under_cursor(app) == "d"
        write_status(runs["d"], state="running", step=77)
        app.screen.wake()
        await until(pilot, lambda: cells(app, "d")["step"] == "77/100")
        assert (letters(app), under_cursor(app), cells(app, "e")["mark"]) == ("edcba", "d", "★")
        assert "1 marked · by run, reversed · filter: run_" in shown(app)

    browse(runs, steps, size)


@at_both_sizes
def test_a_filter_works_as_it_is_typed(runs, size):
    async def steps(app, pilot):
        await pilot.press("slash", *"state:fin")
        assert letters(app) == "da"
        await pilot.press(*" loss<0.")
        assert letters(app) == ""
        await pilot.press("3", "enter")
        assert letters(app) == "d"
        assert "1 of 5 runs · by age · filter: state:fin loss<0.3" in shown(app)
        await pilot.press("ctrl+f")
        assert letters(app) == "edcba"
        assert "filter:" not in shown(app)
        await pilot.press("f", *"tag:lr", "escape", "enter")
        assert app.opened == [runs["b"]]

    browse(runs, steps, size)


@at_both_sizes
def test_a_word_that_says_nothing_keeps_the_last_good_filter(runs, size):
    async def steps(app, pilot):
        await pilot.press("f", *"run_b")
        app.screen.query_one(Input).value += " colour:red"
        await pilot.press("end")
        assert letters(app) == "b"
        assert "found 'colour:red', allowed: state:WORD, tag:WORD" in shown(app)
        assert "filter: run_b" in shown(app)
        await pilot.press(*["backspace"] * 10)
        assert "colour" not in shown(app)

    browse(runs, steps, size)


@at_both_sizes
def test_a_filter_is_cleared_while_it_is_typed(runs, size):
    async def steps(app, pilot):
        await pilot.press("f", *"run_b")
        assert letters(app) == "b"
        await pilot.press("ctrl+f")
        assert (letters(app), app.screen.query_one(Input).value) == ("edcba", "")

    browse(runs, steps, size)


@at_both_sizes
def test_it_is_sorted_by_one_column_after_the_other(runs, size):
    async def steps(app, pilot):
        orders, wide = [], size[0] > 140
        for _ in range(7 if wide else 6):
            await pilot.press("o")
            orders.append((app.kept.runs.sorted_by, letters(app)))
        expected = [("state", "cdaeb"), ("run", "abcde"), ("tags", "bedca"), ("step", "bceda"), ("loss", "edbac")]
        expected += [("quality", "bedac"), ("age", "edcba")]
        assert orders == [pair for pair in expected if wide or pair[0] != "tags"]
        assert "age▲" in shown(app)
        await pilot.press("R")
        assert letters(app) == "abcde"
        assert "age▼" in shown(app)

    browse(runs, steps, size)


def test_a_click_on_a_header_sorts_and_a_second_reverses(runs):
    async def steps(app, pilot):
        header = shown(app).split("\n")[1]
        place = (header.index("quality") + 2, 0)
        await pilot.click(RunTable, offset=place)
        assert letters(app) == "bedac"
        await pilot.click(RunTable, offset=place)
        assert letters(app) == "adebc"
        await pilot.click(RunTable, offset=(header.index("curve"), 0))
        assert letters(app) == "adebc"

    browse(runs, steps)


def test_the_cursor_stays_on_its_run_when_rows_move(runs):
    async def steps(app, pilot):
        for _ in range(4):
            await pilot.press("o")  # by step
        await pilot.press("home")
        assert (letters(app), under_cursor(app)) == ("bceda", "b")
        write_status(runs["b"], state="running", step=99)
        app.screen.wake()
        await until(pilot, lambda: letters(app) == "cebda")
        table = app.screen.query_one(RunTable)
        assert (under_cursor(app), table.cursor_row) == ("b", 2)
        assert table.get_row_index(table.current) == table.cursor_row

    browse(runs, steps)


def test_nothing_is_touched_where_nothing_changed_and_one_row_where_one_did(runs, monkeypatch):
    touched: list[str] = []
    update, repaint = RunTable.update_cell, RunTable.refresh

    def updated(self, name, key, value, **options):
        touched.append(f"{name[4]}.{key}")
        return update(self, name, key, value, **options)

    def repainted(self, *regions, **options):
        if not self._is_quiet:
            touched.append(f"{[region.height for region in regions]}")
        return repaint(self, *regions, **options)

    async def steps(app, pilot):
        await until(pilot, lambda: all(cells(app, name)["spark"] for name in runs))
        monkeypatch.setattr(RunTable, "update_cell", updated)
        monkeypatch.setattr(RunTable, "refresh", repainted)
        for name in ("add_row", "clear", "sort"):
            monkeypatch.setattr(RunTable, name, None)
        app.screen._next_ages = 0
        await comes_to_rest(pilot, touched)
        write_status(runs["e"], state="running", step=50, loss=0.3, sw=0.2)
        app.screen.wake()
        await until(pilot, lambda: cells(app, "e")["loss"] == "0.3")
        await until(pilot, lambda: len(touched) > 1)
        await pilot.pause(0.2)
        assert touched == ["e.loss", "[1]"]

    browse(runs, steps)


def test_runs_come_and_go(runs, tmp_path):
    async def steps(app, pilot):
        await pilot.press("j", "j", "space", "k")
        assert under_cursor(app) == "c"
        fake_run(tmp_path / "runs", f"run_f-{STAMP}-000f", age=-100)
        app.screen.wake()
        await until(pilot, lambda: letters(app) == "fedcba")
        assert under_cursor(app) == "c"
        for name in ("c", "e"):
            runs[name].path.rename(tmp_path / name)
        app.screen.wake()
        await until(pilot, lambda: letters(app) == "fdba")
        assert "marked" not in shown(app)
        assert under_cursor(app) == "b"

    browse(runs, steps)


@pytest.mark.parametrize("gpus", [None, "0-3"])
@at_both_sizes
def test_a_run_that_stopped_is_resumed(runs, size, gpus, monkeypatch):
    started = []
    told = read_json(runs["b"].status)
    runs["b"].status.write_text(json.dumps({**told, "gpus": gpus}))
    monkeypatch.setattr(launch, "start_detached", lambda words: started.append(words) or runs["b"])

    async def steps(app, pilot):
        await pilot.press(*"jjjr")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert started == []
        await pilot.press("n", "r")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: started and app.said[-1] == "run_b·000b: resumed")

    browse(runs, steps, size)
    path = runs["b"].path
    on_as_many = ["--gpus", gpus] if gpus else []
    assert started == [["resume", str(path), "--runs-dir", str(path.parent), *on_as_many]]


def test_a_resume_that_is_refused_says_why(runs, monkeypatch):
    def refuse(words):
        raise launch.RefusedError("no [bold]checkpoint\x1b[2J", 4)

    monkeypatch.setattr(launch, "start_detached", refuse)

    async def steps(app, pilot):
        await pilot.press("r")
        assert app.said == ["run_e·000e: is live (running)"]
        await pilot.press("j", "r")
        assert app.said[-1] == "run_d·000d: already finished (finished)"
        await pilot.press("j", "r")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: app.said[-1] == "no [bold]checkpoint␛[2J")

    browse(runs, steps)


@at_both_sizes
def test_a_live_run_is_stopped_after_a_yes(runs, size):
    def requests():
        control = runs["e"].control
        return [read_json(path)["action"] for path in control.iterdir()] if control.exists() else []

    async def steps(app, pilot):
        runs["e"].control.mkdir()
        await pilot.press("S")
        await until(pilot, lambda: question(app, Confirm))
        await pilot.press("n")
        await until(pilot, lambda: question(app, RunsScreen))
        assert requests() == []
        await pilot.press("S")
        await until(pilot, lambda: question(app, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: app.said)
        assert (app.said, requests()) == (["run_e·000e: asked to stop"], ["stop"])
        await pilot.press("j", "S")
        await until(pilot, lambda: len(app.said) == 2)
        assert app.said[-1] == "run_d·000d: is not live (finished)"

    browse(runs, steps, size)


def test_a_run_that_ended_while_the_question_stood_is_not_asked(runs):
    runs["e"].control.mkdir()

    async def steps(app, pilot):
        await pilot.press("S")
        await until(pilot, lambda: question(app, Confirm))
        write_status(runs["e"], state="finished")
        await pilot.press("y")
        await until(pilot, lambda: app.said)

    assert browse(runs, steps).said == [f"{runs['e'].name}: is not live (finished)"]
    assert list(runs["e"].control.iterdir()) == []


@at_both_sizes
def test_a_note_is_written(runs, size):
    async def steps(app, pilot):
        await pilot.press("G", "N")
        await until(pilot, lambda: question(app, Ask))
        await pilot.press(*" ok", "enter")
        await until(pilot, lambda: annotations.read(runs["a"]).note == "warm-up ok")
        await until(pilot, lambda: size[0] < 140 or "warm-up ok" in shown(app))
        await pilot.press("N")
        await until(pilot, lambda: question(app, Ask))
        await pilot.press("x", "escape")
        await until(pilot, lambda: question(app, RunsScreen))
        assert annotations.read(runs["a"]).note == "warm-up ok"

    browse(runs, steps, size)


@at_both_sizes
def test_tags_are_written(runs, size):
    async def steps(app, pilot):
        await pilot.press("G", "k", "t")
        await until(pilot, lambda: question(app, Ask))
        await pilot.press(*", two words,,lr", "enter")
        await until(pilot, lambda: annotations.read(runs["b"]).tags == ("lr", "two-words"))
        await pilot.press("f", *"tag:two-words")
        await until(pilot, lambda: letters(app) == "b")

    browse(runs, steps, size)


@at_both_sizes
def test_a_run_is_trashed_once_its_last_four_characters_are_typed(runs, size):
    point_latest(runs["d"])

    async def steps(app, pilot):
        await pilot.press("D")
        assert app.said == ["run_e·000e: is live (running): stop it first"]
        await pilot.press("j", "D")
        await until(pilot, lambda: question(app, TypedConfirm))
        await pilot.press(*"000e", "enter")
        assert question(app, TypedConfirm)
        assert runs["d"].path.exists()
        await pilot.press(*["backspace"] * 4, *"000d", "enter")
        await until(pilot, lambda: letters(app) == "ecba")
        assert under_cursor(app) == "c"

    browse(runs, steps, size)
    folder = runs["d"].path.parent
    assert [path.name for path in (folder / ".trash").iterdir()] == [runs["d"].name]
    assert (folder / "latest").resolve() == runs["e"].path


def test_a_run_that_came_alive_while_the_question_stood_stays(runs):
    async def steps(app, pilot):
        await pilot.press("j", "D")
        await until(pilot, lambda: question(app, TypedConfirm))
        write_status(runs["d"], state="running")
        await pilot.press(*"000d", "enter")
        await until(pilot, lambda: len(app.said) == 1)

    assert "is live (running)" in browse(runs, steps).said[0]
    assert runs["d"].path.exists()


@at_both_sizes
def test_the_recipe_is_shown(runs, size):
    async def steps(app, pilot):
        await pilot.press("v")
        await until(pilot, lambda: question(app, RecipeScreen) and "seed = 0" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: question(app, RunsScreen))

    browse(runs, steps, size)


def test_keys_can_be_given_other_names():
    ids = [binding.id for binding in [*RunsScreen.BINDINGS, *RunTable.BINDINGS]]
    assert all(str(identity).startswith("runs.") for identity in ids)
    assert len(set(ids)) == len(ids)


def test_a_key_that_was_given_another_place_works_there(runs):
    async def steps(app, pilot):
        app.set_keymap({"runs.open": "o", "runs.mark": "x"})
        await pilot.press("o", "x")
        await until(pilot, lambda: app.opened)
        assert cells(app, "e")["mark"] == "★"

    browse(runs, steps)


def test_the_preview_tells_what_the_table_has_no_room_for(runs):
    runs["e"].meta.write_text(
        '{"argv": ["m", "run", "recipes/ct_edm.toml", "--set", "train.steps=7"], "host": "[b]h[/]", "device": "cpu",'
        ' "git": {"commit": "0123456789abcdef", "dirty": true}, "versions": {"torch": "2.13"}, "seed": 3,'
        ' "teacher": {"recipe": "dm_edm", "step": 1688}, "parent": 7, "parameters": 173217, "created": 1795410883.4}'
    )
    expected = ["ct_edm.toml", "train.steps=7", "[b]h[/] cpu", "012345678 + changes", "2.13", "dm_edm step 1688"]

    async def steps(app, pilot):
        await until(pilot, lambda: all(text in shown(app) for text in [*expected, "sw_1step 0.2", "173,217"]))
        await pilot.press("G")
        await until(pilot, lambda: "warm-up" in shown(app) and "dm_edm" not in shown(app))
        await pilot.press("f", *"nothing")
        await until(pilot, lambda: not str(app.screen.query_one("RunPreview Static", Static).content))

    browse(runs, steps)


@pytest.mark.parametrize("meta", ["", "[]", '{"argv": {}, "git": [], "versions": 3, "created": "x", "teacher": "t"}'])
def test_a_damaged_meta_and_status_are_shown_as_far_as_they_go(runs, meta):
    runs["e"].meta.write_text(meta)
    runs["e"].status.write_text('{"state": 7, "last": [], "best": {"sw_1step": 3}}')
    runs["d"].annotations.write_text("{")

    async def steps(app, pilot):
        await until(pilot, lambda: "starting" in shown(app))
        assert cells(app, "e")["step"] == "0"
        assert letters(app) == "edcba"

    browse(runs, steps)


@at_both_sizes
def test_what_others_wrote_is_shown_and_never_obeyed(tmp_path, size):
    names = [f"{HOSTILE}-{STAMP}-00\x1bx", "n" * 200, "\u202e" * 9, "数" * 60, "[red]"]
    for i, name in enumerate(names):
        run = fake_run(tmp_path, name, age=i, note=HOSTILE * 9, tags=[HOSTILE, "t" * 99], state=HOSTILE)
        run.meta.write_text('{"argv": ["", "", "[bold]\\u001b[2J"], "host": "\\u202e"}')

    async def steps(app, pilot):
        for _ in names:
            await until(pilot, lambda: "[red]" in shown(app))
            text = shown(app)
            assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
            await pilot.press("j")
        for key in ("N", "t", "D", "v"):
            await pilot.press("home", key)
            await until(pilot, lambda: not question(app, RunsScreen))
            await pilot.pause()
            text = shown(app)
            assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")]
            await pilot.press("escape")
            await until(pilot, lambda: question(app, RunsScreen))

    browse(tmp_path, steps, size)


@at_both_sizes
def test_a_thousand_runs(tmp_path, size):
    for i in range(1000):
        fake_run(tmp_path, f"run_{i:04}-{STAMP}-{i:04x}", age=1000 - i, step=i, tags=["x"] if i % 500 == 0 else [])

    async def steps(app, pilot):
        table = app.screen.query_one(RunTable)
        await until(pilot, lambda: table.row_count == 1000)
        await pilot.press("end")
        await until(pilot, lambda: "run_0000" in shown(app))
        await pilot.press("f", *"tag:x", "enter")
        await until(pilot, lambda: table.row_count == 2)
        await pilot.press("ctrl+f")
        await until(pilot, lambda: table.row_count == 1000)
        assert table.current == f"run_0000-{STAMP}-0000"
        await pilot.press("home")
        await until(pilot, lambda: "run_0999" in shown(app))

    browse(tmp_path, steps, size)


def test_a_resize_keeps_run_and_marks(runs):
    async def steps(app, pilot):
        await pilot.press("j", "space")
        for width in (80, 120, 60, 160):
            await pilot.resize_terminal(width, 24)
            await until(
                pilot,
                lambda width=width: app.screen.size.width == width and ("run_c·000c" in shown(app) or width == 60),
            )
            assert (letters(app), under_cursor(app), cells(app, "d")["mark"]) == ("edcba", "c", "★")

    browse(runs, steps)


def test_actions_have_names():
    assert set(_run_actions.ACTIONS) == {"resume", "stop", "note", "tags", "delete"}


def test_it_is_sorted_by_any_figure_that_runs_have(runs):
    async def steps(app, pilot):
        await pilot.press("M")
        await until(pilot, lambda: question(app, Ask))
        app.screen.query_one(Input).value = "best.sw_2step"
        await pilot.press("enter")
        await until(pilot, lambda: question(app, Ask) and "mean 'best.sw_1step'?" in shown(app))
        assert app.screen.query_one(Input).value == "best.sw_2step"  # as it was typed
        app.screen.query_one(Input).value = "best.sw_1step"
        await pilot.press("enter")
        await until(pilot, lambda: letters(app) == "bedac")
        assert cells(app, "d")["best.sw_1step"] == "0.3"
        await pilot.press("R")
        await until(pilot, lambda: letters(app) == "adebc")

    browse(runs, steps)
