"""`cmbench show`."""

import time
from typing import Any

from cmbench import recipe as recipes
from cmbench.cli import _screen
from cmbench.cli._app import app
from cmbench.cli._options import Json, Run, RunsDir
from cmbench.rundir import fingerprints, floors, places, settings, status
from cmbench.rundir.fields import moment, number_list, number_of, table, text, whole
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.rundir.select import runs_folder, select
from cmbench.text import toml_escaped
from cmbench.words.journal import counted, denoiser_differs, of_file
from cmbench.words.numbers import four_digits
from cmbench.words.times import EXACT, age, date, duration

_LISTED = 40  # classes on a line
_OF_TRAINING = ("trained", "last sign", "device", "teacher", "first weights", "changed", "snapshots")


@app.command("show")
def show(run: Run = "@latest", runs_dir: RunsDir = None, json: Json = False) -> None:
    """Show one run: its recipe, then its state, checkpoints, snapshots and metrics."""
    chosen = select(run, runs_folder(runs_dir))
    about = _about(chosen)
    if json:
        _screen.data(about)
        return
    now, meta = about["status"], about["meta"]
    # the summary comes last, because the recipe alone may fill the screen
    _screen.text(toml_escaped(recipes.dumps(recipes.load(chosen.recipe))).rstrip() + "\n")
    is_imported = now["state"] == status.IMPORTED
    reached = "" if is_imported else f" at step {now['step']} of {now.get('of', '?')}"
    _screen.line(f"{about['name']}: {now['state']}{reached}")
    facts = [
        ("path", chosen.path),
        *_source(meta),
        ("data", _data(about)),
        ("classes", _classes(about)),
        ("started", _moment(meta.get("created"))),
        ("trained", _trained(now)),
        ("last sign", _moment(now.get("heartbeat"))),
        ("device", _device(about)),
        ("parameters", f"{whole(meta.get('parameters')) or 0:,}"),
        ("teacher", _teacher(about)),
        ("first weights", _first_weights(about)),
        ("changed", _changed(about)),
        ("checkpoints", ", ".join(map(str, about["checkpoints"])) or "none yet"),
        ("snapshots", f"{len(about['snapshots'])} in {chosen.snapshots}"),
    ]
    _screen.table(["", ""], [fact for fact in facts if not is_imported or fact[0] not in _OF_TRAINING])
    known = floors.of_meta(meta)
    rows = [
        (
            key,
            _marked(value, known, key),
            _best(now, known, key),
            floors.in_words(floors.of_row(known, key), four_digits),
        )
        for key, value in now.get("last", {}).items()
    ]
    if rows:
        _screen.table(["metric", "last", "best", "floor"], rows)
    if any(floors.is_within(known, key, value) for key, value in _figures(now)):
        _screen.line(floors.legend())


def _about(run: RunDir) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": run.name,
        "path": str(run.path),
        "status": status.read(run),
        "meta": read_json(run.meta) or {},
        "checkpoints": steps_of_checkpoints(run),
        "snapshots": sorted(path.name for path in run.snapshots.glob("[0-9]*.png")),
        "settings": settings.in_force(settings.read(run)),
        "data": fingerprints.recorded(run),
        "recipe": places.in_force(run, recipes.load(run.recipe).tables()),
    }


def _moment(value: object) -> str:
    """Return a date with its time, and how long ago that is."""
    known = moment(value)
    if known is None:
        return "-"
    ago = age(time.time() - known)
    return f"{date(known)} ({ago if ago == 'now' else f'{ago} ago'})"


def _trained(now: dict[str, Any]) -> str:
    """Return how long the run has trained, without pauses and gaps between its segments."""
    seconds = moment(now.get("train_s"))
    return "-" if seconds is None else duration(seconds, EXACT)


def _device(about: dict[str, Any]) -> str:
    """Return the devices on which the run trains, or trained last."""
    device, ranks = text(about["meta"].get("device")) or "-", whole(about["status"].get("ranks")) or 1
    given = about["status"].get("devices")
    names = [name for name in given if isinstance(name, str)] if isinstance(given, list) else []
    return device if ranks == 1 else f"{ranks} ranks: {counted(names) or device}"


def _data(about: dict[str, Any]) -> str:
    """Return a line about the run's data, from its newest checkpoint."""
    found, own = about["data"], about["recipe"]["data"]
    what = " ".join(str(own[key]) for key in ("kind", "name") if key in own)
    count, held_out = whole(found.get("count")), whole(found.get("held_out"))
    sizes = "" if count is None or held_out is None else f", {count:,} samples, {held_out:,} held out"
    shape = found.get("shape") or about["meta"].get("shape")
    root = f" at {own['root']}" if "root" in own else ""
    return f"{what}{sizes}, of shape {shape}{root}" if shape else f"{what}{sizes}{root}"


def _classes(about: dict[str, Any]) -> str:
    """Return the classes in the order of their labels, with the number of pictures of each, if known."""
    found, names = about["data"], fingerprints.names(about["data"])
    counts = number_list(found.get("counts"))
    if not names:
        return str(whole(found.get("classes")) or whole(about["meta"].get("classes")) or "-")
    each = (
        [f"{name} ({n:,.0f})" for name, n in zip(names, counts, strict=False)] if len(counts) == len(names) else names
    )
    more = f", … ({len(names) - _LISTED} more: --json)" if len(names) > _LISTED else ""
    return f"{len(names)}: {', '.join(each[:_LISTED])}{more}"


def _changed(about: dict[str, Any]) -> str:
    """Return the current values of the settings that were changed during training."""
    return "  ".join(f"{key}={value}" for key, value in about["settings"].items()) or "nothing since it began"


def _teacher(about: dict[str, Any]) -> str:
    teacher, trained = about["recipe"].get("teacher"), table(about["meta"].get("teacher"))
    if teacher is None:
        return "none"
    return _checkpoint(teacher, trained) if trained else str(teacher["kind"])


def _first_weights(about: dict[str, Any]) -> str:
    source = table(about["meta"].get("start"))
    if not source:
        return "drawn from the seed"
    run, error = about["recipe"].get("start") or about["recipe"].get("teacher") or {}, number_of(source.get("error"))
    return _checkpoint(run, source) + ("" if error is None else f"; {denoiser_differs(error)}")


def _checkpoint(run: dict[str, Any], source: dict[str, Any]) -> str:
    """Return which weights were used: the run or file from the recipe, the rest from meta.json."""
    if text(run.get("file")):
        return f"file{of_file(source)}"
    return f"{run.get('run', '?')}, step {source.get('step', '?')}, ema {source.get('ema', '?')}{of_file(source)}"


def _source(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """Return where imported weights come from."""
    source = table(meta.get("source"))
    told = [("imported from", "file"), ("sha256", "sha256"), ("weights", "weights"), ("licence", "licence")]
    return [(name, own) for name, key in told if (own := text(source.get(key)))]


def _best(now: dict[str, Any], known: floors.Floors, key: str) -> str:
    best = now.get("best", {}).get(key)
    step = "?" if best is None or best["step"] is None else best["step"]
    return f"{_marked(best['value'], known, key)} at step {step}" if best else "-"


def _marked(value: float, known: floors.Floors, key: str) -> str:
    return floors.marked(four_digits(value), floors.is_within(known, key, value))


def _figures(now: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the last and the best of all metrics."""
    return [*now.get("last", {}).items(), *((key, best["value"]) for key, best in now.get("best", {}).items())]
