"""The user's preferences: ~/.config/cmbench/config.toml."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import tomli
from pydantic import Field, field_validator

from cmbench import regular
from cmbench.config import Config, Strings, check
from cmbench.errors import UsageError, did_you_mean

LARGEST = 1 << 20  # bytes of config.toml


class Alert(Config):
    """A command or an address for events of a run. It is only in the user's own settings, never in a recipe."""

    command: Strings = Field((), description="a program and its arguments; no shell is asked")
    url: str = Field("", pattern="^(https?://.+)?$", description="an http or https address that JSON is sent to")
    on: Strings = Field(("diverged", "spike", "end"), description="diverged, spike, end")

    @field_validator("on")
    @classmethod
    def _kinds_exist(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            if kind not in ("diverged", "spike", "end"):
                raise ValueError(f"on: found '{kind}', allowed: diverged, spike, end")
        return kinds


class Settings(Config):
    """config.toml.

    Example:
        theme = "colour-blind"
        rate = 0.5
        [keys]
        "app.quit" = "ctrl+q"
    """

    theme: str = Field("", description="a name that the command palette lists; empty: what the terminal can show")
    rate: float = Field(0.0, ge=0, le=4, description="looks at the files a second; 0: 1 over SSH, 2 elsewhere")
    ascii: bool = Field(False, description="plain characters alone")
    keys: dict[str, str] = Field(default_factory=dict, description="keys of actions, with commas between")

    alert: Alert = Field(Alert(), description="what is run when a run diverges, has a spike, or ends")

    @property
    def poll_seconds(self) -> float:
        """Seconds between looks at the files."""
        return 1 / (self.rate or (1.0 if os.environ.get("SSH_CONNECTION") else 2.0))


def path() -> Path:
    """Return the path of the settings: CMBENCH_CONFIG, or cmbench/config.toml in XDG_CONFIG_HOME or ~/.config."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(os.environ.get("CMBENCH_CONFIG") or f"{base}/cmbench/config.toml").expanduser()


def load() -> Settings:
    """Read the settings; without a file, return the defaults.

    Raises:
        UsageError: something in the file is not allowed.
    """
    where = path()
    try:
        table = tomli.loads(regular.read(where, LARGEST, links=True).decode())
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        raise UsageError(f"{where}: {error}") from None
    return check(Settings, table, str(where))


def check_names(settings: Settings, themes: list[str], actions: Callable[[], Iterable[str]]) -> None:
    """Refuse themes and actions that do not exist.

    Raises:
        UsageError: a theme or an action does not exist.
    """
    if settings.theme and settings.theme not in themes:
        hint = did_you_mean(settings.theme, themes)
        raise UsageError(f"{path()}: theme: found '{settings.theme}', allowed: {', '.join(sorted(themes))}{hint}")
    if not settings.keys:  # finding the actions imports every screen
        return
    known = sorted(set(actions()))
    for name in settings.keys:
        if name not in known:
            raise UsageError(f"{path()}: keys: found '{name}', allowed: {', '.join(known)}{did_you_mean(name, known)}")
