"""One widget a file."""

from textual.widget import Widget


def all_widgets() -> list[type[Widget]]:
    """List the widgets that have keys of their own."""
    from cmbench.tui.widgets.chart import Chart
    from cmbench.tui.widgets.metric_filter import MetricFilter
    from cmbench.tui.widgets.run_filter import FilterBar
    from cmbench.tui.widgets.run_table import RunTable
    from cmbench.tui.widgets.waterfall import Waterfall

    return [Chart, Waterfall, MetricFilter, RunTable, FilterBar]
