"""One screen a file."""

from typing import Any

from textual.screen import Screen


def all_screens() -> list[type[Screen[Any]]]:
    """List the screens that keys can be given to."""
    from cmbench.tui.screens.compare import CompareScreen
    from cmbench.tui.screens.confirm import Ask, Confirm, TypedConfirm
    from cmbench.tui.screens.dashboard import DashboardScreen
    from cmbench.tui.screens.profile import ProfileScreen
    from cmbench.tui.screens.recipe import RecipeScreen
    from cmbench.tui.screens.runs import RunsScreen
    from cmbench.tui.screens.snapshots import SnapshotsScreen

    screens: list[type[Screen[Any]]] = [DashboardScreen, ProfileScreen, SnapshotsScreen, RunsScreen, CompareScreen]
    return [*screens, RecipeScreen, Confirm, Ask, TypedConfirm]
