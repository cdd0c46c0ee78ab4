"""The rate that the header tells is a mean over some seconds, whenever it is asked for."""

import time
from types import SimpleNamespace

import pytest

from cmbench.tui.traffic import Traffic


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: now.seconds)
    return now


def test_bytes_are_counted_as_they_are_sent():
    driver = SimpleNamespace(write=lambda data: None)
    traffic = Traffic()
    traffic.watch(SimpleNamespace(_driver=driver))
    driver.write("é●")
    assert traffic.total == 5


@pytest.mark.parametrize("every", [0.1, 1.0, 30.0])
def test_a_steady_rate_is_told_however_often_it_is_asked(clock, every):
    traffic, told = Traffic(), 0.0
    for _ in range(int(60 / every)):
        clock.seconds += every
        traffic.total += int(1000 * every)
        told = traffic.rate()
    assert told == pytest.approx(1000, rel=0.01)


def test_a_screen_drawn_at_once_is_soon_forgotten(clock):
    traffic = Traffic()
    traffic.total = 20_000
    clock.seconds += 0.1
    assert traffic.rate() < 5000
    clock.seconds += 30
    assert traffic.rate() < 10
