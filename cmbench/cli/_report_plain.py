"""A comparison as tables on the terminal."""

import numpy as np
import typer

from cmbench.cli._report_sections import Section, figures, overview
from cmbench.cli._tables import table
from cmbench.comparison.compare import Comparison
from cmbench.rundir.columns import Floats
from cmbench.tui.signs import number, sparkline
from cmbench.tui.text import plain

_WIDTH = 32  # characters of a profile


def show(found: Comparison, ascii_only: bool = False) -> None:
    """Print a comparison."""
    for section in [*overview(found), *figures(found), *_profiles(found, ascii_only), *_pictures(found)]:
        typer.echo(f"\n{section.title}")
        if section.rows:
            table(section.headers, section.rows)
        else:
            typer.echo(section.otherwise)


def _profiles(found: Comparison, ascii_only: bool) -> list[Section]:
    """Return a table for each quantity: the newest profile of each run as a line of blocks, early times on the left."""
    return [
        Section(
            f"profile of {plain(name)} over time",
            ["run", "step", "lowest", "", "highest"],
            [
                [member.letter, str(profile[0]), *_course(profile[1], ascii_only)]
                for member, profile in zip(found.members, profiles, strict=True)
                if profile and np.isfinite(profile[1]).any()
            ],
            "no values",
        )
        for name, profiles in found.profiles.items()
    ]


def _course(bins: Floats, ascii_only: bool) -> list[str]:
    parts = [part[np.isfinite(part)] for part in np.array_split(bins, min(_WIDTH, len(bins)))]
    means = [float(part.mean()) if len(part) else None for part in parts]
    return [number(float(np.nanmin(bins))), sparkline(means, ascii_only), number(float(np.nanmax(bins)))]


def _pictures(found: Comparison) -> list[Section]:
    return [
        Section(
            f"snapshots in {row.sampler_steps} step{'s' * (row.sampler_steps > 1)}, from the same latents",
            ["run", "step", "file"],
            [[found.members[i].letter, str(shown.step), plain(shown.path)] for i, shown in row.pictures.items()],
        )
        for row in found.pictures
    ]
