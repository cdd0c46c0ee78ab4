"""What every screen has: the application by its own type."""

from typing import TYPE_CHECKING, cast

from textual.screen import Screen

if TYPE_CHECKING:
    from cmbench.tui.app import CmbenchApp


class BenchScreen(Screen[None]):
    """A screen of the workbench."""

    @property
    def bench(self) -> "CmbenchApp":
        """The application: how often to look, which characters to use, where to go."""
        return cast("CmbenchApp", self.app)
