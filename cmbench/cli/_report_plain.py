"""A comparison as tables on the terminal."""

import typer

from cmbench.cli._tables import table
from cmbench.comparison.compare import Comparison
from cmbench.tui.comparison_tables import report


def show(found: Comparison, ascii_only: bool = False) -> None:
    """Print a comparison."""
    for section in report(found, ascii_only):
        typer.echo(f"\n{section.title}")
        if section.rows:
            table(section.headers, section.rows, section.spare)
        else:
            typer.echo(section.otherwise)
