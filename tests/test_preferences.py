import math

import pytest

from cmbench import settings
from cmbench.errors import UsageError
from cmbench.settings import LARGEST, Settings, check_names, load


@pytest.fixture
def config(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    monkeypatch.setenv("CMBENCH_CONFIG", str(path))
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    return path


def test_without_a_file_there_are_defaults(config):
    assert load() == Settings()


def test_what_is_in_the_file(config):
    config.write_text('theme = "nord"\nrate = 0.25\nascii = true\n[keys]\n"app.quit" = "ctrl+q"\n')
    found = load()
    assert (found.theme, found.ascii, found.keys) == ("nord", True, {"app.quit": "ctrl+q"})
    assert found.poll_seconds == 4.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('them = "nord"', "did you mean 'theme'?"),
        ("rate = -1", "rate: found -1"),
        ("rate = 5", "rate: found 5"),
        ("rate = nan", "rate: found nan"),
        ('rate = "fast"', "rate: found 'fast'"),
        ("ascii = 3", "ascii: found 3"),
        ("[keys]\n'app.quit' = 3", "keys.app.quit: found 3"),
        ("keys = 1", "keys: found 1"),
        ("theme = nord", "line 1"),
        ("theme = 'a'\ntheme = 'b'", ""),
        ("\x00", ""),
        (b"\xff\xfe", "utf-8"),
        (b"#" * (LARGEST + 1), "allowed: at most"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(config, text, says):
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        load()
    message = str(caught.value)
    assert message.startswith(f"{config}: ")
    assert says in message
    assert "\n" not in message


def test_a_folder_in_its_place_is_one_line(config):
    config.mkdir()
    with pytest.raises(UsageError, match=r"config\.toml: .*irectory"):
        load()


def test_names_that_do_not_exist(config):
    names, actions = ["nord", "textual-dark"], ["app.quit", "chart.scale"]
    check_names(Settings(theme="nord", keys={"chart.scale": "g"}), names, lambda: actions)
    with pytest.raises(UsageError, match=r"theme: found 'nrod', allowed: nord, textual-dark; did you mean 'nord'\?"):
        check_names(Settings(theme="nrod"), names, lambda: actions)
    with pytest.raises(UsageError, match=r"keys: found 'app.qiut'.*; did you mean 'app.quit'\?"):
        check_names(Settings(keys={"app.qiut": "x"}), names, lambda: actions)


def test_without_keys_the_actions_are_not_asked_for(config):
    check_names(Settings(), [], lambda: pytest.fail("they import every screen"))


def test_the_rate(config, monkeypatch):
    assert Settings().poll_seconds == 0.5
    assert math.isclose(Settings(rate=4).poll_seconds, 0.25)
    monkeypatch.setenv("SSH_CONNECTION", "a b c d")
    assert Settings().poll_seconds == 1.0
    assert Settings(rate=4).poll_seconds == 0.25


def test_where_the_file_is(tmp_path, monkeypatch):
    monkeypatch.delenv("CMBENCH_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings.path() == tmp_path / "cmbench/config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.path() == tmp_path / ".config/cmbench/config.toml"
    monkeypatch.setenv("CMBENCH_CONFIG", "~/x.toml")
    assert settings.path() == tmp_path / "x.toml"
