"""A comparison as tables on the terminal."""

from cmbench.cli import _screen
from cmbench.cli._tables import table
from cmbench.comparison.compare import Comparison
from cmbench.tui.comparison_tables import report


def show(found: Comparison, ascii_only: bool = False) -> None:
    """Print a comparison."""
    for section in report(found, ascii_only):
        _screen.line("")
        _screen.line(section.title)
        if section.rows:
            table(section.headers, section.rows, section.spare)
        else:
            _screen.line(section.otherwise)
