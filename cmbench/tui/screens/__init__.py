"""The screens, one per file."""

from typing import Any

from textual.screen import Screen
from textual.widget import Widget


def all_screens() -> dict[type[Screen[Any]], list[type[Widget]]]:
    """Return the screens whose keys can be set, each with its focusable widgets that have keys of their own."""
    from cmbench.tui.screens.compare import CompareScreen
    from cmbench.tui.screens.compare_report import CompareReportScreen
    from cmbench.tui.screens.confirm import Ask, Confirm, TypedConfirm
    from cmbench.tui.screens.dashboard import DashboardScreen
    from cmbench.tui.screens.journal import JournalScreen
    from cmbench.tui.screens.profile import ProfileScreen
    from cmbench.tui.screens.recipe import RecipeScreen
    from cmbench.tui.screens.runs import RunsScreen
    from cmbench.tui.screens.snapshots import SnapshotsScreen
    from cmbench.tui.screens.spike import SpikeScreen
    from cmbench.tui.screens.starting import StartingScreen
    from cmbench.tui.widgets.chart import Chart
    from cmbench.tui.widgets.metric_filter import MetricFilter
    from cmbench.tui.widgets.run_filter import FilterBar
    from cmbench.tui.widgets.run_table import RunTable
    from cmbench.tui.widgets.waterfall import Waterfall

    return {
        StartingScreen: [],
        DashboardScreen: [Chart, Waterfall, MetricFilter],
        ProfileScreen: [Chart, Waterfall],
        JournalScreen: [],
        SnapshotsScreen: [],
        RunsScreen: [RunTable, FilterBar],
        CompareScreen: [Chart],
        CompareReportScreen: [],
        RecipeScreen: [],
        SpikeScreen: [],
        Confirm: [],
        Ask: [],
        TypedConfirm: [],
    }
