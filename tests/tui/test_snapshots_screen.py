import shutil

import numpy as np
import pytest
from live_runs import RECIPE, live_run
from snapshot_runs import (
    SnapshotsApp,
    add_picture,
    add_points,
    captions,
    colour,
    colours,
    drive,
    make_run,
    pictures,
    screen_text,
)
from tui_host import comes_to_rest, until

from cmbench.rundir.layout import RunDir
from cmbench.rundir.log import Log
from cmbench.tui.screens.snapshots import SnapshotsScreen
from cmbench.tui.widgets.picture import Picture

SIZES = [(160, 45), (80, 24)]
STEPS = list(range(10, 160, 10))  # fifteen


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, "digits-20261122-221503-a3f9", STEPS)


@pytest.fixture
def other(tmp_path):
    return make_run(tmp_path, "other-20261122-221503-77c2", [s + 1 for s in STEPS])


def shows(pilot, *expected):
    """Whether the pictures are those of (step, sampler steps), by their colours."""
    return lambda: colours(pilot) == [colour(step, k) for step, k in expected]


async def start(pilot, step=150):
    await until(pilot, lambda: pictures(pilot) and colours(pilot)[0] == colour(step, 1))


def test_side_by_side_where_there_is_room(run):
    async def steps(pilot):
        await until(pilot, shows(pilot, (150, 1), (150, 2), (150, 4)))
        assert captions(pilot)[1] == "2-step · 150 · sw 0.006579★"
        assert len({picture.size for picture in pictures(pilot)}) == 1
        text = screen_text(pilot)
        assert "digits·a3f9" in text
        assert "150  15/15  following" in text
        assert "150 1·2·4   0.006623★" in text

    drive(SnapshotsApp(run), steps)


@pytest.mark.parametrize("size", SIZES)
def test_scrubbing(run, size):
    moves = [("left", 140), ("up", 130), ("right", 140), ("shift+left", 40), ("down", 50), ("shift+left", 10)]
    moves += [("left", 10), ("shift+right", 110), ("home", 10), ("end", 150), ("right", 150)]

    async def steps(pilot):
        await start(pilot)
        for key, step in moves:
            await pilot.press(key)
            await until(pilot, lambda step=step: colours(pilot)[0] == colour(step, 1))
            assert f"{step}  {step // 10}/15" in screen_text(pilot)

    drive(SnapshotsApp(run), steps, size)


@pytest.mark.parametrize("size", SIZES)
def test_one_number_of_sampler_steps_alone(run, size):
    async def steps(pilot):
        await start(pilot)
        before = colours(pilot)
        for key, k in (("4", 4), ("tab", 1), ("shift+tab", 4), ("2", 2), ("3", 2)):
            await pilot.press(key)
            await until(pilot, shows(pilot, (150, k)))
        await pilot.press("0")
        await until(pilot, lambda: colours(pilot) == before)

    drive(SnapshotsApp(run), steps, size)


def test_tab_shows_the_next_where_not_all_have_room(run):
    async def steps(pilot):
        await until(pilot, shows(pilot, (150, 1)))
        for key, k in (("tab", 2), ("tab", 4), ("tab", 1), ("shift+tab", 4)):
            await pilot.press(key)
            await until(pilot, shows(pilot, (150, k)))
        await pilot.resize_terminal(120, 30)
        await until(pilot, shows(pilot, (150, 4), (150, 1)))
        await pilot.resize_terminal(160, 45)
        await until(pilot, shows(pilot, (150, 1), (150, 2), (150, 4)))
        await pilot.resize_terminal(30, 8)
        await until(pilot, shows(pilot, (150, 4)))

    drive(SnapshotsApp(run), steps, (80, 24))


@pytest.mark.parametrize("size", SIZES)
def test_blinking_with_a_pinned_step(run, size):
    async def steps(pilot):
        await start(pilot)
        await pilot.press("B")
        await until(pilot, lambda: "m at another step" in screen_text(pilot))
        await pilot.press("home", "m", "end", "B")
        for both in [(colour(10, 1), "B 1-step"), (colour(150, 1), "A 1-step")] * 2:
            await until(pilot, lambda both=both: (colours(pilot)[0], captions(pilot)[0][:8]) == both)
        assert "blink" in screen_text(pilot).splitlines()[0]
        await pilot.press("B")
        await start(pilot)
        await pilot.pause(0.7)
        assert colours(pilot)[0] == colour(150, 1)
        assert "B = 10" in screen_text(pilot)
        await pilot.press("home", "m")
        await until(pilot, lambda: "B = " not in screen_text(pilot))

    drive(SnapshotsApp(run), steps, size)


@pytest.mark.parametrize(("poll", "expected"), [(0.05, 0.5), (1.0, 1.0)])
def test_blinking_is_no_faster_than_the_files_are_looked_at(run, poll, expected):
    async def steps(pilot):
        await start(pilot)
        assert pilot.app.screen._blinker._interval == expected

    app = SnapshotsApp(run)
    app.poll_seconds = poll
    drive(app, steps)


def test_blinking_with_the_other_run(run, other):
    async def steps(pilot):
        await start(pilot)
        await pilot.press("left", "left", "B")
        await until(pilot, lambda: colours(pilot)[0] == colour(141, 1))
        assert captions(pilot)[0].startswith("B 1-step · 141")
        await until(pilot, lambda: colours(pilot)[0] == colour(140, 1))
        await pilot.press("J")
        await until(pilot, shows(pilot, (140, 1), (140, 2), (140, 4), (141, 1), (141, 2), (141, 4)))
        assert not pilot.app.screen.blinking

    drive(SnapshotsApp(run, other), steps)


@pytest.mark.parametrize("size", SIZES)
def test_of_several_runs_the_first_two_that_have_snapshots_are_seen_and_a_key_away_the_others(tmp_path, size):
    told = {"empty": [], "b": [10, 20], "c": [30], "d": [40], "late": []}
    runs = [make_run(tmp_path, name, steps, [1]) for name, steps in told.items()]

    def seen(title, *expected):
        def holds():
            return screen_text(pilots[0]).splitlines()[0].startswith(f" {title} ") and shows(pilots[0], *expected)()

        return holds

    pilots = []

    async def steps(pilot):
        pilots.append(pilot)
        await until(pilot, seen("B b | C c", (20, 1)))
        await pilot.press("J")
        await until(pilot, seen("B b | C c", (20, 1), (30, 1)))
        assert [caption[:1] for caption in captions(pilot)] == ["B", "C"]
        for key, title, expected in (
            ("]", "B b | D d", [(20, 1), (40, 1)]),
            ("]", "B b | C c", [(20, 1), (30, 1)]),
            ("[", "D d | C c", [(40, 1), (30, 1)]),
            ("home", "D d | C c", [(40, 1), (30, 1)]),
        ):
            await pilot.press(key)
            await until(pilot, seen(title, *expected))
        await pilot.press("end")
        add_picture(runs[4], 50, 1)
        await until(pilot, lambda: 4 in pilot.app.screen.view.having)
        await pilot.press("right_square_bracket")
        await until(pilot, seen("D d | E late", (40, 1), (50, 1)))

    drive(SnapshotsApp(*runs), steps, size)


def test_steps_are_those_of_both_runs(tmp_path):
    runs = [make_run(tmp_path, "a", [10, 20], [1]), make_run(tmp_path, "b", [20, 30], [1])]

    async def steps(pilot):
        await until(pilot, shows(pilot, (20, 1)))
        assert "30  3/3  following" in screen_text(pilot)
        await pilot.press("J")
        for key, expected in (("end", (20, 30)), ("left", (20, 20)), ("left", (10, 20))):
            await pilot.press(key)
            await until(pilot, shows(pilot, *((step, 1) for step in expected)))

    drive(SnapshotsApp(*runs), steps)


def test_other_runs_are_offered_where_there_are_some(run, other, tmp_path):
    async def two(pilot):
        await start(pilot)
        assert "other run" not in screen_text(pilot)

    async def three(pilot):
        await start(pilot)
        assert "] other run" in screen_text(pilot)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: "no other run has snapshots" in screen_text(pilot))

    drive(SnapshotsApp(run, other), two)
    drive(SnapshotsApp(run, other, make_run(tmp_path, "none", [])), three)


@pytest.mark.parametrize("size", SIZES)
def test_runs_one_above_the_other(run, other, size):
    async def steps(pilot):
        await start(pilot)
        count = len(pictures(pilot))
        await pilot.press("J")
        await until(pilot, lambda: len(pictures(pilot)) == 2 * count)
        await until(pilot, lambda: colours(pilot)[count] == colour(151, 1))
        assert captions(pilot)[count].startswith("B 1-step · 151")
        upper, lower = pictures(pilot)[0], pictures(pilot)[count]
        assert upper.region.bottom <= lower.region.y
        assert upper.size == lower.size
        await pilot.press("J")
        await until(pilot, lambda: len(pictures(pilot)) == count)

    drive(SnapshotsApp(run, other), steps, size)


def test_a_link_wants_two_runs(run):
    async def steps(pilot):
        await start(pilot)
        await pilot.press("J")
        assert not pilot.app.screen.view.linked

    drive(SnapshotsApp(run), steps)


@pytest.mark.parametrize("size", SIZES)
def test_the_path_can_be_shown(run, size):
    async def steps(pilot):
        await start(pilot)
        path = str(run.snapshots / "00000150_1step.png")
        await pilot.press("F")
        await until(pilot, lambda: path in "".join(line.strip() for line in screen_text(pilot).splitlines()))
        await pilot.press("F")
        await until(pilot, lambda: "00000150_1step.png" not in screen_text(pilot))

    drive(SnapshotsApp(run), steps, size)


def test_escape_goes_back(run):
    async def steps(pilot):
        await start(pilot)
        await pilot.press("escape")
        assert not isinstance(pilot.app.screen, SnapshotsScreen)

    drive(SnapshotsApp(run), steps)


def test_keys_can_be_given_to_other_keys(run):
    async def steps(pilot):
        pilot.app.set_keymap({"snapshots.earlier": "comma"})
        await start(pilot)
        await pilot.press("comma")
        await until(pilot, lambda: colours(pilot)[0] == colour(140, 1))

    drive(SnapshotsApp(run), steps)


def test_new_snapshots_are_followed_from_the_newest_step_only(run):
    async def steps(pilot):
        await start(pilot)
        add_picture(run, 160, 1)
        await until(pilot, lambda: colours(pilot)[0] == colour(160, 1))
        await pilot.press("left")
        await start(pilot)
        add_picture(run, 170, 1)
        await until(pilot, lambda: "150  15/17" in screen_text(pilot))
        assert colours(pilot)[0] == colour(150, 1)

    drive(SnapshotsApp(run), steps)


def test_a_run_without_snapshots_says_so_until_the_first_comes(tmp_path):
    run = make_run(tmp_path, "empty", [])

    async def steps(pilot):
        await until(pilot, lambda: "no snapshots yet" in screen_text(pilot))
        await pilot.press("left", "end", "tab", "m", "B", "F", "0", "3", "home")
        add_picture(run, 500, 1)
        await until(pilot, shows(pilot, (500, 1)))
        assert "no snapshots yet" not in screen_text(pilot)
        shutil.rmtree(run.snapshots)
        await until(pilot, lambda: "no snapshots yet" in screen_text(pilot))

    drive(SnapshotsApp(run), steps, (80, 24))
    drive(SnapshotsApp(RunDir(tmp_path / "nowhere"), run), lambda pilot: until(pilot, lambda: True))


@pytest.mark.parametrize(
    ("every", "status", "said"),
    [
        (1000, {"state": "running", "step": 369}, "no snapshots yet: the first comes at step 1,000"),
        (1000, {"state": "paused", "step": 1000}, "the first comes at step 2,000"),
        (9000, {"state": "running", "step": 369}, "the first comes at step 5,000"),  # the last step has one
        (0, {"state": "running", "step": 369}, "no snapshots: snapshot.every is 0; n on the dashboard draws one"),
        (1000, {"state": "finished", "step": 369}, "no snapshots: the run ended before the first"),
    ],
)
def test_a_run_tells_when_its_first_snapshot_comes(tmp_path, every, status, said):
    run = live_run(tmp_path, rows=0, **{"of": 5000, **status})
    run.recipe.write_text(f"{RECIPE}\n[snapshot]\nevery = {every}\n".replace("steps = 1000", "steps = 5000"))
    drive(SnapshotsApp(run), lambda pilot: until(pilot, lambda: said in screen_text(pilot)), (80, 24))


def test_missing_and_damaged_files_have_one_line_in_their_place(run):
    (run.snapshots / "00000150_2step.png").write_bytes(b"torn")
    (run.snapshots / "00000150_4step.png").unlink()

    async def steps(pilot):
        await until(pilot, lambda: "00000150_2step.png is not a PNG" in screen_text(pilot))
        assert "00000150_4step.png is missing" in screen_text(pilot)
        add_picture(run, 150, 2)
        await until(pilot, lambda: "is not a PNG" not in screen_text(pilot))

    drive(SnapshotsApp(run), steps)


def test_a_hostile_name_is_shown_and_not_obeyed(tmp_path):
    name = "[red]\x1b]0;title\x07[@click=app.quit]x"
    run, other = make_run(tmp_path, name, [10, 20]), make_run(tmp_path, name + "2", [10, 20])

    async def steps(pilot):
        await start(pilot, 20)
        await pilot.press("J", "F", "m", "left")
        await until(pilot, lambda: "[red]␛]0;title␇[@click=app.quit]x" in screen_text(pilot).splitlines()[0])
        text = screen_text(pilot)
        assert "\x1b" not in text
        assert "\x07" not in text

    drive(SnapshotsApp(run, other), steps, (160, 45))


def test_points_keep_their_limits_over_the_steps(tmp_path):
    run = make_run(tmp_path, "ring", [])
    wide, narrow = np.full((50, 2), 2.0), np.full((50, 2), 0.5)
    for step, xy in ((10, narrow), (20, wide), (30, narrow)):
        add_points(run, step, 1, xy)

    async def steps(pilot):
        for key, limit in (("end", "±0.8"), ("left", "±2"), ("left", "±2"), ("end", "±2")):
            await pilot.press(key)
            await until(pilot, lambda limit=limit: captions(pilot)[0:] and captions(pilot)[0].endswith(limit))

    drive(SnapshotsApp(run), steps)


def test_plain_characters_in_ascii_mode(run):
    async def steps(pilot):
        await until(pilot, lambda: "1-step, 150, sw 0.006623*" in screen_text(pilot))
        below = "\n".join(screen_text(pilot).splitlines()[1:-1])
        assert below.isascii(), [c for c in below if not c.isascii()]

    drive(SnapshotsApp(run, ascii=True), steps)


def test_nothing_is_painted_and_no_picture_drawn_again_when_nothing_changed(run, monkeypatch):
    changes = []

    async def steps(pilot):
        await until(pilot, shows(pilot, (150, 1), (150, 2), (150, 4)))
        display, draw = pilot.app._display, Picture._draw
        monkeypatch.setattr(pilot.app, "_display", lambda *a: (changes.append("painted"), display(*a)))
        monkeypatch.setattr(Picture, "_draw", lambda *a: (changes.append("drawn"), draw(*a))[1])
        await comes_to_rest(pilot, changes)
        log = Log(run.metrics)
        log.open_segment(2, 1000)
        log.close()
        await pilot.pause(0.3)
        assert changes == []
        await pilot.press("left")
        await until(pilot, lambda: {"painted", "drawn"} <= set(changes))

    drive(SnapshotsApp(run), steps)


def test_a_click_on_a_step_goes_there(run):
    async def steps(pilot):
        await start(pilot)
        await pilot.click("StepList", offset=(5, 2))
        await until(pilot, lambda: colours(pilot)[0] == colour(30, 1))

    drive(SnapshotsApp(run), steps)
