"""What each screen looks like as a whole, character by character, beside pictures that somebody has looked at.

`pytest tests/tui/test_pictures.py --snapshot-update -n 0` draws them anew, as text files; look at what changed.
"""

import re
import time

import pytest
from bench import settle, use
from live_runs import CREATED, RECIPE, add, live_run, metrics, write_status
from snapshot_runs import add_answers, add_picture
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode
from textual.strip import Strip
from textual.widgets import Footer
from tui_host import SIZES, shown
from waiting import soon

from cmbench.tui.screens.base import ReadingScreen
from cmbench.tui.screens.confirm import Confirm, TypedConfirm
from cmbench.tui.system import Load, System
from cmbench.tui.traffic import Traffic

SCREENS = {  # the keys that lead there, and what is seen last of it
    "dashboard": ([], "checkpoint 20 (best)"),
    "dashboard_enlarged": (["enter"], "0.1"),
    "dashboard_keys": (["question_mark"], "Zoom in"),
    "dashboard_setting": (["e"], "optimizer.lr=0.0002"),
    "profile": (["p"], "0.209"),
    "journal": (["L"], "30 warning: the loss is high"),
    "snapshots": (["i"], "▀"),
    "film": (["i", "V"], "sigma 80"),
    "latent_plane": (["i", "V", "V"], "the exact map"),
    "recipe": (["v"], "batch_size"),
    "runs": (["b"], "█▃"),
}
READERS = {"read", "courses", "preview", "pictures"}  # groups of workers that come to an end


class TextFile(SingleFileSnapshotExtension):
    """A text file for each picture."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"

    def serialize(self, data, **options):
        return data


@pytest.fixture
def picture(snapshot):
    return snapshot.use_extension(TextFile)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of equal names whenever they are made, one terminal, and figures of the machine that never change."""
    for name in ("NO_COLOR", "LC_ALL", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", "TZ": "UTC"}.items():
        monkeypatch.setenv(name, value)
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: CREATED + 100)
    monkeypatch.setattr(System, "look", lambda self, gpu_ids=None: [Load("CPU", 0.25, 2**30, 2**32)])
    monkeypatch.setattr(Traffic, "rate", lambda self: 0.0)
    made = [live_run(tmp_path / "runs", f"live-20260101-000000-000{letter}") for letter in "ab"]
    made[1].recipe.write_text(RECIPE.replace("2e-4", "1e-4"))
    add(made[1].metrics, metrics(50, loss=0.03125))
    for run in made:
        write_status(run)
        for step in (20, 40):
            for k in (1, 2):
                add_picture(run, step, k)
            add_answers(run, step, wrong=2)
    yield made
    monkeypatch.undo()
    time.tzset()


def seen(app) -> str:
    """Return what is on the screen without the footer, which is Textual's and tested by its keys."""
    screen = app.screen_stack[-2] if app.screen.is_modal else app.screen
    below = sum(footer.region.height for footer in screen.query(Footer))
    lines = [line.rstrip() for line in shown(app).split("\n")]
    return "\n".join(lines[: len(lines) - below]) + "\n"


def styled(app, wanted) -> list[str]:
    """Return what has a style, row by row, as it is sent to the terminal: after all filters."""
    found = []
    for line in app.screen._compositor.render_strips():
        for each in app.get_line_filters():
            line = Strip(line).apply_filter(each, app.screen.background_colors[1])
        found.append("".join(text for text, style, _ in line if style and wanted(style)))
    return [text for text in found if text.strip()]


async def at_rest(app, pilot, last: str) -> str:
    """Return what is on the screen once nothing has been read or changed for a while."""
    await settle(app, pilot)

    async def is_seen() -> bool:
        """On a slow machine the first look may come before the screen has its size: look again, as time would."""
        if last not in shown(app):
            if isinstance(app.screen, ReadingScreen):
                app.screen.wake()
            await pilot.pause(0.1)
        return last in shown(app)

    await soon(is_seen, lambda: shown(app))
    before, unchanged = "", 0
    while unchanged < 5:
        await pilot.pause(0.05)
        now = seen(app)
        busy = any(not worker.is_finished for worker in app.workers if worker.group in READERS)
        unchanged = 0 if busy or now != before else unchanged + 1
        before = now
    return before


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
@pytest.mark.parametrize("name", SCREENS)
def test_a_run(runs, picture, name, size):
    async def steps(app, pilot):
        keys, last = SCREENS[name]
        await at_rest(app, pilot, SCREENS["dashboard"][1])  # it may stay behind what the keys open
        for key in keys:
            await pilot.press(key)
            await settle(app, pilot)
        assert await at_rest(app, pilot, last) == picture

    use(runs[:1], steps, size)


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
def test_plain_characters(runs, picture, size):
    async def steps(app, pilot):
        assert await at_rest(app, pilot, "checkpoint 20 (best)") == picture

    use(runs[:1], steps, size, ascii=True)


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
def test_no_colours(runs, picture, size, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def steps(app, pilot):
        assert await at_rest(app, pilot, "checkpoint 20 (best)") == picture
        assert not styled(app, lambda style: not (style.color.is_default and style.bgcolor.is_default))

    use(runs[:1], steps, size)


@pytest.mark.parametrize("keys", ["iV", "iVV"], ids=["film", "latent_plane"])
def test_no_colours_in_what_f_answers(runs, picture, keys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def steps(app, pilot):
        for key in keys:
            await pilot.press(key)
            await settle(app, pilot)
        assert await at_rest(app, pilot, "the exact map" if keys == "iVV" else "sigma 80") == picture

    use(runs[:1], steps, (80, 24))


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
def test_without_colours_the_cursor_of_the_browser_is_reversed(runs, size, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def steps(app, pilot):
        await pilot.press("b")
        await at_rest(app, pilot, "█▃")
        reversed_rows = styled(app, lambda style: style.reverse)
        assert len(reversed_rows) == 1
        assert "live·000b" in reversed_rows[0]

    use(runs[:1], steps, size)


QUESTIONS = {
    "confirm": lambda: Confirm("Stop live-20260101-000000-000a with a checkpoint? It can be resumed.", "Stop"),
    "typed": lambda: TypedConfirm("Move live-20260101-000000-000a to .trash? Nothing in it is deleted.", "000a"),
}


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question(runs, picture, name, size):
    async def steps(app, pilot):
        app.push_screen(QUESTIONS[name]())
        assert await at_rest(app, pilot, "live-20260101-000000-000a") == picture

    use(runs[:1], steps, size)


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
def test_runs_compared(runs, picture, size):
    async def steps(app, pilot):
        last = "grad_norm" if size[0] > 100 else "loss"  # of the tables where there is room for them, else of a chart
        assert await at_rest(app, pilot, last) == picture

    use(runs, steps, size)


@pytest.mark.parametrize("size", SIZES, ids=["160x45", "80x24"])
def test_the_report_of_a_comparison(runs, picture, size):
    async def steps(app, pilot):
        await pilot.press("L")
        text = await at_rest(app, pilot, "apart from a")
        # the lower bar's length depends on the longest path of a picture, and so on the temporary folder
        assert "\n".join(re.sub("^ +[▏▎▍▌▋▊▉] *$", "", line) for line in text.split("\n")) == picture

    use(runs, steps, size)
