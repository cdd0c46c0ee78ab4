"""Answers of `cmbench eval`, one file per question, so that repeating a question costs nothing. No torch."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmbench.errors import refusing_write_errors
from cmbench.rundir.fields import number_list, table
from cmbench.rundir.files import make_folder, read_json, remove_temporaries, to_json, write_atomically
from cmbench.rundir.layout import SCHEMA, RunDir

_MORE_NUMBERS = ("floor_spread", "floor_draws", "floor_from", "label", "samples", "real", "at_sigma_max")

Question = Mapping[str, Any]  # everything that the answer depends on, including "metric"
Answer = dict[str, Any]


def read(run: RunDir, question: Question) -> Answer | None:
    """Return the answer to a question, or None if the question is new or its file is broken."""
    stored = read_json(_path(run, question)) or {}
    answer = stored.get("answer")
    return answer if stored.get("question") == question and _is_whole(answer) else None


def write(run: RunDir, question: Question, answer: Answer) -> None:
    """Store an answer.

    Raises:
        UsageError: the run directory cannot be written.
    """
    with refusing_write_errors(run.evaluations):
        make_folder(run.evaluations)
        remove_temporaries(run.evaluations, r"[a-z_]+-[0-9a-f]{16}\.json", shared=True)
        content = {"schema": SCHEMA, "question": question, "answer": answer}
        write_atomically(_path(run, question), to_json(content, indent=True))


def all_of(run: RunDir) -> Iterator[tuple[dict[str, Any], Answer]]:
    """Yield every question with its answer, in the order of the files' names; damaged files are passed over."""
    for path in sorted(run.evaluations.glob("*-*.json")):
        stored = read_json(path) or {}
        question, answer = stored.get("question"), stored.get("answer")
        if isinstance(question, dict) and isinstance(question.get("metric"), str) and _is_whole(answer):
            yield question, table(answer)


def _is_whole(answer: object) -> bool:
    """Return whether an object is an answer: numbers (null if not finite), or the reason why there are none."""
    if not isinstance(answer, dict):
        return False
    classes = answer.get("classes", [])
    parts = [answer, *classes] if isinstance(classes, list) and all(isinstance(own, dict) for own in classes) else [{}]
    numbers = [part.get(key, "missing") for part in parts for key in ("value", "spread", "floor")]
    numbers += [part.get(key) for part in parts for key in _MORE_NUMBERS]
    sound = all(isinstance(n, int | float | None) for n in numbers) and isinstance(answer.get("why", ""), str)
    notes = answer.get("notes", [])
    sound = sound and isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    over = answer.get("over", [])
    sound = sound and (not answer.get("partial") or (len(number_list(over)) == 2))
    return isinstance(answer.get("why_not"), str) or sound


def _path(run: RunDir, question: Question) -> Path:
    digest = hashlib.sha256(to_json(question, in_order=True)).hexdigest()
    return run.evaluations / f"{question['metric']}-{digest[:16]}.json"
