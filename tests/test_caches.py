"""One place for all that can be made again."""

from pathlib import Path

import pytest

from cmbench import caches


@pytest.mark.parametrize(
    ("given", "xdg", "expected"),
    [
        ("/there", "/xdg", "/there/pictures"),
        ("", "/xdg", "/xdg/cmbench/pictures"),
        ("", "relative", "/home/me/.cache/cmbench/pictures"),  # which the standard says to pass over
        ("", "", "/home/me/.cache/cmbench/pictures"),
        ("~/there", "", "/home/me/there/pictures"),
    ],
)
def test_the_place_is_the_users_choice(monkeypatch, given, xdg, expected):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("CMBENCH_CACHE_DIR", given)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    assert caches.folder("pictures") == Path(expected)
