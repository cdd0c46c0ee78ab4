"""What people write about a run: a note and tags. The trainer neither reads nor writes them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cmbench.errors import refusing_write_errors
from cmbench.rundir.files import read_json, to_json, write_atomically
from cmbench.rundir.layout import SCHEMA, RunDir


@dataclass(frozen=True)
class Annotations:
    """Note and tags of one run."""

    note: str = ""
    tags: tuple[str, ...] = ()


def read(run: RunDir) -> Annotations:
    """Return a run's note and tags; missing or damaged ones are empty."""
    found = read_json(run.annotations) or {}
    note, tags = found.get("note"), found.get("tags")
    return Annotations(
        note if isinstance(note, str) else "",
        clean_tags(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
    )


def annotate(run: RunDir, note: str | None = None, tags: Iterable[str] | None = None) -> Annotations:
    """Replace a run's note, its tags, or both, and return its annotations.

    Raises:
        UsageError: they cannot be written.
    """
    now = read(run)
    now = now if note is None else replace(now, note=note.strip())
    now = now if tags is None else replace(now, tags=clean_tags(tags))
    with refusing_write_errors(run.annotations):
        row = {"schema": SCHEMA, "note": now.note, "tags": list(now.tags)}
        write_atomically(run.annotations, to_json(row, indent=True) + b"\n")
    return now


def clean_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags in order, without duplicates, each made one word so that a filter of words can name it."""
    return tuple(dict.fromkeys(word for tag in tags if (word := "-".join(tag.split()))))
