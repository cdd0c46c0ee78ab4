"""How every screen looks at files: in a thread, not behind another screen, once more where it is woken."""

import threading

import pytest
from textual.screen import Screen
from tui_host import Host, drive, until
from waiting import PATIENCE

from cmbench.tui.screens.base import ReadingScreen


class Looking(ReadingScreen):
    """Looks when `gate` lets it."""

    def __init__(self):
        super().__init__()
        self.looks, self.shown, self.gate = [], [], threading.Event()

    def on_mount(self):
        self.follow()

    def read_piece(self):
        self.looks.append(threading.get_ident())
        assert self.gate.wait(PATIENCE)
        return lambda: self.shown.append(threading.get_ident())


@pytest.fixture(autouse=True)
def no_clock(monkeypatch):
    monkeypatch.setattr(Host, "poll_seconds", 3600.0)


def look(steps):
    screen = Looking()

    async def begin(app, pilot):
        await until(pilot, lambda: len(screen.looks) == 1)
        try:
            await steps(app, pilot, screen)
        finally:
            screen.gate.set()

    drive(lambda: screen, begin)
    return screen


def test_what_is_woken_while_it_looks_looks_once_more_and_what_is_polled_does_not():
    async def steps(app, pilot, screen):
        for _ in range(3):
            screen.wake()
            screen.poll()
        screen.gate.set()
        await until(pilot, lambda: len(screen.shown) == 2)
        await pilot.pause(0.1)
        assert len(screen.looks) == len(screen.shown) == 2
        screen.poll()
        await until(pilot, lambda: len(screen.shown) == 3)
        assert set(screen.shown) == {threading.get_ident()}
        assert threading.get_ident() not in screen.looks

    look(steps)


def test_while_it_rests_it_looks_only_where_it_is_woken(monkeypatch):
    async def steps(app, pilot, screen):
        screen.gate.set()
        await until(pilot, lambda: len(screen.shown) == 1)
        monkeypatch.setattr("cmbench.tui.screens.base._SELDOM", 3600.0)
        screen.rest()
        screen.tick()
        await pilot.pause(0.1)
        assert len(screen.looks) == 1
        screen.wake()
        await until(pilot, lambda: len(screen.shown) == 2)
        screen._rests_until = 0.0
        screen.tick()
        await until(pilot, lambda: len(screen.shown) == 3)

    look(steps)


def test_behind_another_screen_nothing_is_looked_at_until_it_goes():
    async def steps(app, pilot, screen):
        screen.gate.set()
        await until(pilot, lambda: len(screen.shown) == 1)
        app.push_screen(Screen())
        await pilot.pause()
        screen.wake()
        screen.tick()
        await pilot.pause(0.1)
        assert len(screen.looks) == 1
        app.pop_screen()
        await until(pilot, lambda: len(screen.shown) == 2)

    look(steps)


def test_nothing_is_shown_on_a_screen_that_was_left():
    async def steps(app, pilot, screen):
        app.pop_screen()
        await pilot.pause()
        screen.gate.set()
        await pilot.pause(0.1)

    assert look(steps).shown == []
