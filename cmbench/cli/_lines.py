"""Rows of a run directory as plain lines of text."""

from collections.abc import Callable

from cmbench.measures import OF_SAMPLES
from cmbench.rundir.fields import number_of
from cmbench.rundir.log import Row
from cmbench.text import brief
from cmbench.tui.signs import clock, date_and_clock, four_digits

_SHOWN = ("loss", "tangent_norm", "grad_norm", "N", "stage", "true_error", *(f"{m.key}_" for m in OF_SAMPLES.values()))


class Stamps:
    """Tells when each line of a log was: the time of day, and the day in front where it is another than before."""

    def __init__(self) -> None:
        self._day = ""

    def of(self, row: Row, line: str) -> str:
        """Return a row's line with its time in front."""
        day, hour = date_and_clock(row.get("time"))
        before = f"{day} " if day and day != self._day else ""
        self._day = day or self._day
        return f"{before}{hour}  {line}"


def metrics_line(row: Row, of: int, batch_size: int) -> str:
    """One row of metrics.jsonl, e.g. `step 200/4000  loss 0.0231  grad_norm 0.61  912 images/s  eta 0:42`.

    What has not the type that we write is left out.
    """
    step = row["step"]
    parts = [f"step {step}/{of}"]
    parts += [
        f"{key} {four_digits(v)}" for key, v in row.items() if key.startswith(_SHOWN) and isinstance(v, int | float)
    ]
    nonfinite = row.get("nonfinite")
    parts += [f"{key} {kind}" for key, kind in nonfinite.items()] if isinstance(nonfinite, dict) else []
    if (rate := number_of(row.get("images_per_s"))) and isinstance(step, int):
        parts += [f"{rate:,.0f} images/s", f"eta {clock((of - step) * batch_size / rate)}"]
    return "  ".join(parts)


def event_line(row: Row) -> str:
    """One row of the journal, e.g. `step 1000  checkpoint checkpoints/00001000`; what is long is cut."""
    say: dict[str, Callable[[Row], str]] = {
        "started": lambda r: "started",
        "forked": lambda r: f"forked from {r.get('parent')}",
        "warning": lambda r: f"warning: {r['text']}",
        "data": lambda r: f"data: {r['text']}",
        "initialised": lambda r: (
            f"first weights from {r['source']['recipe']}, step {r['source']['step']}, ema {r['source']['ema']}; "
            f"{denoiser_differs(r['error'])}"
        ),
        "resumed": lambda r: f"resumed after step {r['step']}{_with_places(r)}{abandoned(r)}",
        "checkpoint": lambda r: f"checkpoint {r['folder']}{' (best)' if r.get('best') else ''}",
        "snapshot": lambda r: "snapshot " + ", ".join(f"snapshots/{name}" for name in r["files"]),
        "request": _request,
        "diverged": lambda r: f"diverged: the {r['what']} of the next step is not finite",
        "stopped": lambda r: f"stopped ({r['reason']}) with{'out' if r.get('saved') is False else ''} a checkpoint",
        "failed": lambda r: f"failed: {r['error']}",
        "finished": lambda r: "finished",
    }
    kind = str(row.get("kind", "?"))
    try:
        text = say.get(kind, lambda r: kind)(row)
    except (KeyError, TypeError, AttributeError, ValueError):  # not as we write it
        text = kind
    return brief(f"step {row.get('step', '?')}  {text}")


def _request(row: Row) -> str:
    """What was asked for and what came of it, e.g. `request set optimizer.lr=0.0001: done`."""
    changes = [f" {key}={value}" for key, value in (row.get("settings") or {}).items()]
    again = " again" if row.get("replayed") else ""
    files = [f" {name}" for name in row.get("files", [])]
    return f"request {row['action']}{''.join(changes)}{again}: {row['result']}{''.join(files)}"


def _with_places(row: Row) -> str:
    """What a resume named anew, e.g. ` with data.root=/new`; empty where nothing."""
    places = row.get("places")
    named = " ".join(f"{key}={value}" for key, value in places.items()) if isinstance(places, dict) else ""
    return f" with {named}" if named else ""


def abandoned(row: Row) -> str:
    """What was set aside where a run was taken up from a chosen checkpoint; empty where it was not."""
    steps = row.get("abandoned")
    if row.get("chosen") is not True or not isinstance(steps, list):
        return ""
    kept = f", checkpoints {', '.join(map(str, steps))} kept in checkpoints/abandoned" if steps else ""
    return f" by choice; what lies past it is abandoned{kept}"


def denoiser_differs(error: float) -> str:
    """What became of the source's denoiser where its weights were taken over."""
    return f"output differs by {four_digits(100 * error)}%"
