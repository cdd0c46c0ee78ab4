"""The application, which all screens share."""

import asyncio
import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from textual._compositor import CompositorUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.filter import LineFilter, Monochrome, NoColor
from textual.keys import format_key
from textual.screen import Screen

from cmbench.rundir.launch import RefusedError, Start
from cmbench.rundir.layout import RunDir
from cmbench.settings import Settings
from cmbench.tui import palette
from cmbench.tui.colours import ANSI, DARK, themes
from cmbench.tui.kept import Kept
from cmbench.tui.output import Ascii, lean
from cmbench.tui.screens.base import CanStepBack, close_help
from cmbench.tui.traffic import Traffic
from cmbench.views.lines import line_colours

if TYPE_CHECKING:
    from cmbench.tui.screens.runs import RunsScreen


class CmbenchApp(App[None], inherit_bindings=False):  # every key is listed below and can be reassigned
    """Screens over run directories. It reads them, leaves requests in them, and never trains.

    Args:
        runs_dir: the folder of the runs.
        runs: without runs the browser opens, with one run its dashboard, with several their comparison.
        settings: the user's settings; the names in them exist.
        pixels: how pictures are sent to the terminal: kitty, sixel, or empty for half blocks.
        kept: the view as the user left it. None: the default view, not saved after this session.
        start: a trainer that is starting; once it accepts, its run's dashboard opens.

    Attributes:
        refusal: the error with which the trainer refused to start.
        is_cancelled: whether the user cancelled the start.
    """

    CSS_PATH = Path(__file__).with_name("cmbench.tcss")
    TITLE = "cmbench"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (140, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (16, "-low"), (32, "-high")]
    BINDINGS = [
        Binding("q,ctrl+q", "quit", "Leave", tooltip="the run goes on", id="app.quit"),
        Binding("ctrl+c", "interrupt", "Leave", show=False, priority=True, id="app.interrupt"),
        Binding("escape", "back", "Back", id="app.back", show=False),
        Binding("question_mark,f1", "help", "Keys", id="app.help"),
        *(
            Binding(key, f"page_help({way})", f"Scroll the keys {word}", id=f"app.{key}", show=False, priority=True)
            for key, way, word in (("pageup", -1, "up"), ("pagedown", 1, "down"))
        ),
        Binding("T", "theme", "Theme", id="app.theme", show=False),
        Binding(
            "ctrl+p",
            "command_palette",
            "Palette",
            tooltip="all actions by name",
            id="app.palette",
            show=False,
            priority=True,  # works in an input line too
        ),
    ]

    def __init__(
        self,
        runs_dir: Path,
        runs: Sequence[RunDir] = (),
        settings: Settings | None = None,
        pixels: str = "",
        kept: Kept | None = None,
        start: Start | None = None,
    ) -> None:
        super().__init__()
        self.kept = kept or Kept()
        self.runs_dir, self.first_runs, self._start = runs_dir, runs, start
        self.refusal: RefusedError | None = None
        self.is_cancelled = False
        self.settings = settings or Settings()
        self.poll_seconds = self.settings.poll_seconds
        self.ascii = self.settings.ascii or not _speaks_unicode()
        self._last_filters = [*([NoColor()] if self.no_color else []), *([Ascii()] if self.ascii else [])]
        self.pixels = pixels
        self.traffic = Traffic()
        for theme in themes():
            self.register_theme(theme)
        self.theme = self.settings.theme or (DARK if _has_colours(self) else ANSI)
        self.set_keymap(self.settings.keys)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the colours of lines for themes that define none."""
        return line_colours(DARK, dark=True)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return the filters that every drawn line passes through.

        Textual's conversion to greys is left out: with the terminal's own colours it would give black on black.
        """
        return [*(each for each in super().get_line_filters() if not isinstance(each, Monochrome)), *self._last_filters]

    def on_mount(self) -> None:
        """Open the first screen."""
        self.traffic.watch(self)
        self.set_interval(1.0, self._look_for_terminal)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError):  # not the main thread, as in tests
                loop.add_signal_handler(number, self._leave, number)
        if self._start is not None:
            from cmbench.tui.screens.starting import StartingScreen

            self.push_screen(StartingScreen(self._start))
        elif len(self.first_runs) == 1:
            self.open_run(self.first_runs[0])
        elif self.first_runs:
            self.compare_runs(self.first_runs)
        else:
            self.push_screen(_browser()(self.runs_dir))

    def open_run(self, run: RunDir) -> None:
        """Show a run's dashboard."""
        from cmbench.tui.screens.dashboard import DashboardScreen

        self.push_screen(DashboardScreen(run))

    def started(self, run: RunDir) -> None:
        """Show the dashboard of the run whose trainer has accepted, unless the user cancelled the start."""
        if self.is_cancelled:
            return
        from cmbench.tui.screens.dashboard import DashboardScreen
        from cmbench.tui.screens.starting import StartingScreen

        self._start, self.runs_dir = None, run.path.parent
        while not isinstance(self.screen, StartingScreen) and len(self.screen_stack) > 1:  # the palette, themes
            self.pop_screen()
        self.switch_screen(DashboardScreen(run))

    def refuse(self, error: RefusedError) -> None:
        """Exit, because there is no trainer. The caller of the application reports the reason."""
        if not self.is_cancelled:
            self.refusal = error
            self.exit()

    def compare_runs(self, runs: Sequence[RunDir]) -> None:
        """Compare runs side by side."""
        from cmbench.tui.screens.compare import CompareScreen

        self.push_screen(CompareScreen(runs))

    async def action_back(self) -> None:
        """Close the help, a filter or an enlarged chart if one is open; otherwise return to the previous screen.

        The browser is below all other screens.
        """
        screen = self.screen
        if close_help(screen) or (isinstance(screen, CanStepBack) and screen.step_back()):
            return
        if len(self.screen_stack) > 2:
            self.pop_screen()
        elif not isinstance(self.screen, _browser()):
            self.switch_screen(_browser()(self.runs_dir))

    async def action_interrupt(self) -> None:
        """Exit, and cancel a trainer that is still starting."""
        if self._start is not None and not self._start.is_answered:
            self.is_cancelled = True
            await asyncio.to_thread(self._start.cancel)
        await self.action_quit()

    def action_help(self) -> None:
        """Show or hide the keys of the focused widget."""
        if not close_help(self.screen):
            self.action_show_help_panel()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the page keys to the focused widget unless the help is open."""
        return (
            bool(self.screen.query("HelpPanel")) if action == "page_help" else super().check_action(action, parameters)
        )

    def action_page_help(self, way: int) -> None:
        """Scroll the help by a page, upwards if `way` is -1."""
        panel = self.screen.query_one("HelpPanel KeyPanel")
        panel.scroll_relative(y=way * panel.size.height, animate=False)

    def action_theme(self) -> None:
        """Choose a theme."""
        self.search_themes()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Yield the commands of the palette: the actions that have keys, then Textual's own commands."""
        own = list(palette.commands(self, screen))
        names = {command.title for command in own}
        return [*own, *(command for command in super().get_system_commands(screen) if command.title not in names)]

    def get_key_display(self, binding: Binding) -> str:
        """Return how a key is displayed: by its name where the terminal cannot show its symbol."""
        shown, key = super().get_key_display(binding), binding.parse_key()[1]
        sign = format_key(key)
        return shown if binding.key_display or sign.isascii() or not self.ascii else shown.replace(sign, key)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Send Textual's updates in fewer bytes; see `output`."""
        super()._display(screen, lean(renderable) if isinstance(renderable, CompositorUpdate) else renderable)

    def _leave(self, number: int) -> None:
        """Exit. If the terminal is gone and the regular exit hangs, end the process after one second."""
        self.exit(return_code=128 + number)
        timer = threading.Timer(1.0, os._exit, [128 + number])
        timer.daemon = True  # does not delay the exit if the regular one succeeds
        timer.start()

    def _look_for_terminal(self) -> None:
        """Exit if the terminal is gone. If SIGHUP is ignored, nothing else reports that."""
        if not self.is_headless and self.is_web is False and not _terminal_is_there():
            os._exit(128 + signal.SIGHUP)


def _browser() -> "type[RunsScreen]":
    """Return the screen of all runs. It is imported on first use, so that a run's own screens open sooner."""
    from cmbench.tui.screens.runs import RunsScreen

    return RunsScreen


def _speaks_unicode() -> bool:
    charset = next((os.environ[k] for k in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(k)), "")
    console = os.environ.get("TERM") == "linux"  # its font has no braille
    return bool(re.search(r"utf-?8", charset, re.IGNORECASE)) and not console


def _has_colours(app: App[None]) -> bool:
    """Whether the terminal shows at least 256 colours and the user wants colours."""
    return app.console.color_system in ("truecolor", "256") and "NO_COLOR" not in os.environ


def _terminal_is_there() -> bool:
    try:
        with open(os.ctermid(), "rb", buffering=0) as terminal:  # noqa: PTH123 - a device, not one of our paths
            os.tcgetpgrp(terminal.fileno())
    except OSError:
        return False
    return True
