"""Rows of a run directory as lines of text."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from cmbench.measures import OF_SAMPLES
from cmbench.rundir.fields import number_of
from cmbench.rundir.log import Row
from cmbench.text import brief
from cmbench.words.numbers import four_digits
from cmbench.words.times import duration

_SHORT = 12  # characters of a SHA-256
_SHOWN = ("loss", "tangent_norm", "grad_norm", "N", "stage", "true_error", *(f"{m.key}_" for m in OF_SAMPLES.values()))


def counted(names: Iterable[str]) -> str:
    """Return names, each once with how often it comes: `8 x NVIDIA H200`."""
    return ", ".join(name if n == 1 else f"{n} x {name}" for name, n in Counter(names).items())


def metrics_line(row: Row, of: int, batch_size: int) -> str:
    """One row of metrics.jsonl, e.g. `step 200/4000  loss 0.0231  grad_norm 0.61  912 images/s  eta 42s`.

    Values of an unexpected type are left out.
    """
    step = row["step"]
    parts = [f"step {step}/{of}"]
    parts += [
        f"{key} {four_digits(v)}" for key, v in row.items() if key.startswith(_SHOWN) and isinstance(v, int | float)
    ]
    nonfinite = row.get("nonfinite")
    parts += [f"{key} {kind}" for key, kind in nonfinite.items()] if isinstance(nonfinite, dict) else []
    if (rate := number_of(row.get("images_per_s"))) and isinstance(step, int):
        parts += [f"{rate:,.0f} images/s", f"eta {duration((of - step) * batch_size / rate)}"]
    return "  ".join(parts)


def event_line(row: Row) -> str:
    """One row of the journal with its step, e.g. `step 1000  checkpoint 00001000`; long text is cut."""
    return brief(f"step {row.get('step', '?')}  {said(row)}")


def said(row: Row) -> str:
    """Return the text of a journal row; only its kind if the row is malformed."""
    kind = str(row.get("kind", "?"))
    try:
        return _SAY.get(kind, lambda row: kind)(row)
    except (KeyError, TypeError, AttributeError, ValueError):
        return kind


def denoiser_differs(error: float) -> str:
    """Return how much the output differs from that of the source's denoiser whose weights were taken over."""
    return f"output differs by {four_digits(100 * error)}%"


def _initialised(row: Row) -> str:
    source = row["source"]
    return (
        f"first weights from {source['recipe']}, step {source['step']}, ema {source['ema']}{of_file(source)}; "
        f"{denoiser_differs(row['error'])}"
    )


def of_file(source: Mapping[str, Any]) -> str:
    """Return the file that weights come from, in brackets with a space before them; empty for those of a run."""
    if not isinstance(source.get("file"), str):
        return ""
    which = f", weights {source['weights']}" if isinstance(source.get("weights"), str) else ""
    more = [f", {key} {source[key]}" for key in ("licence", "converted") if isinstance(source.get(key), str)]
    return f" ({source['file']}{which}, sha256 {str(source.get('sha256', '?'))[:_SHORT]}{''.join(more)})"


def _imported(row: Row) -> str:
    return f"imported{of_file(row)}"


def _request(row: Row) -> str:
    """The request and its result; the settings come last, because they may be cut off."""
    again = " again" if row.get("replayed") else ""
    files = "".join(f" {name}" for name in row.get("files", []))
    settings = " ".join(f"{key}={value}" for key, value in (row.get("settings") or {}).items())
    return f"{row['action']}{again}: {row['result']}{files}" + (f" ({settings})" if settings else "")


def _lengthened(row: Row) -> str:
    """The new end, and what follows it, e.g. `... N, mu and the learning rate follow 2,000 steps from here on`."""
    names = ["the learning rate" if name == "lr" else str(name) for name in row["follow"]]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    verb = "follow" if len(names) > 1 else "follows"
    after = f"; {listed} {verb} {row['steps']:,} steps from here on" if names else ""
    return f"trains to step {row['steps']:,}{after}"


def _resumed(row: Row) -> str:
    return f"resumed after step {row['step']}{_with_places(row)}{_abandoned(row)}"


def _with_places(row: Row) -> str:
    """The new places that a resume named, e.g. ` with data.root=/new`; empty if none."""
    places = row.get("places")
    named = " ".join(f"{key}={value}" for key, value in places.items()) if isinstance(places, dict) else ""
    return f" with {named}" if named else ""


def _abandoned(row: Row) -> str:
    """What was set aside when a run was resumed from a chosen checkpoint; empty if it was not."""
    steps = row.get("abandoned")
    if row.get("chosen") is not True or not isinstance(steps, list):
        return ""
    kept = f", checkpoints {', '.join(map(str, steps))} kept in checkpoints/abandoned" if steps else ""
    return f" by choice; later steps are abandoned{kept}"


_SAY: dict[str, Callable[[Row], str]] = {
    "forked": lambda row: f"forked from {row.get('parent')}",
    "warning": lambda row: f"warning: {row['text']}",
    "data": lambda row: f"data: {row['text']}",
    "initialised": _initialised,
    "imported": _imported,
    "resumed": _resumed,
    "lengthened": _lengthened,
    "ranks": lambda row: f"{row['number']} ranks by {row['backend']}: {counted(row['devices'])}",
    "compiling": lambda row: "compiling: the first step takes longer",
    "compiled": lambda row: f"compiled in {duration(row['seconds'])}: {counted(row['passes'])}",
    "checkpoint": lambda row: f"checkpoint {PurePath(row['folder']).name}{' (best)' if row.get('best') else ''}",
    "snapshot": lambda row: "snapshot " + ", ".join(row["files"]),
    "request": _request,
    "diverged": lambda row: f"diverged: the {row['what']} of the next step is not finite",
    "stopped": lambda row: f"stopped ({row['reason']}) with{'out' if row.get('saved') is False else ''} a checkpoint",
    "failed": lambda row: f"failed: {row['error']}",
}
