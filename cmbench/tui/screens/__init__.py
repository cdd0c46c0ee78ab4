"""One screen a file."""

from textual.screen import Screen


def all_screens() -> list[type[Screen[None]]]:
    """List the screens that keys can be given to."""
    from cmbench.tui.screens.compare import CompareScreen
    from cmbench.tui.screens.dashboard import DashboardScreen
    from cmbench.tui.screens.profile import ProfileScreen
    from cmbench.tui.screens.recipe import RecipeScreen
    from cmbench.tui.screens.runs import RunsScreen
    from cmbench.tui.screens.snapshots import SnapshotsScreen

    return [DashboardScreen, ProfileScreen, SnapshotsScreen, RunsScreen, CompareScreen, RecipeScreen]
