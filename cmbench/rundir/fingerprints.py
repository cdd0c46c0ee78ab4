"""The fingerprint of a run's data: in meta.json, in each checkpoint and answer of `cmbench eval`. No torch.

A fingerprint is {"count", "held_out", "shape", "classes", "names", "counts", "content"}. The first two are the numbers
of training and held-out samples, null for endless draws; `shape` is that of one sample. Classes with names also have
`names` and `counts` of pictures. Numbers of a file that were changed have `shift` and `scale`: samples are
(x - shift) scale, with a shift for each channel, or none. `content` is a text that identifies the content, or "recipe"
if the content follows from the recipe alone. Older runs have no fingerprint.
"""

from collections.abc import Callable, Mapping
from typing import Any

from cmbench.rundir import checkpoints
from cmbench.rundir.fields import number_of, table, text, whole
from cmbench.rundir.files import read_json
from cmbench.rundir.layout import RunDir, steps_of_checkpoints
from cmbench.text import shown

Fingerprint = dict[str, Any]
_SHOWN = 6  # names of classes in a message


def recorded(run: RunDir, step: int | None = None) -> Fingerprint:
    """Return the fingerprint of the data that a checkpoint was trained on; empty if unknown.

    Args:
        run: the run.
        step: of the checkpoint; None takes the newest that has a fingerprint. Without any, meta.json is used.
    """
    for each in reversed(steps_of_checkpoints(run)) if step is None else (step,):
        found, why = checkpoints.state(run, each)
        if not why and (data := sound_parts(found.get("data"))):
            return data
    return sound_parts((read_json(run.meta) or {}).get("data"))


def of_meta(meta: Mapping[str, Any]) -> Fingerprint:
    """Return shape and classes, which meta.json has had in all versions."""
    return sound_parts({key: meta.get(key) for key in ("shape", "classes")})


def sound_parts(found: object) -> Fingerprint:
    """Return the fields that have the right type: files may be damaged."""
    types: dict[str, Callable[[object], Any]] = {"count": whole, "held_out": whole, "classes": whole, "content": text}
    types |= {"shape": _wholes, "counts": _wholes, "names": _texts, "shift": _numbers, "scale": number_of}
    return {key: own for key, value in table(found).items() if key in types and (own := types[key](value)) is not None}


def _wholes(value: object) -> list[int] | None:
    return value if isinstance(value, list) and all(whole(each) is not None for each in value) else None


def _numbers(value: object) -> list[float] | None:
    return value if isinstance(value, list) and all(number_of(each) is not None for each in value) else None


def _texts(value: object) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else None


def names(found: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes, in the order of their labels; an empty list if they have none."""
    return found.get("names") or []


def difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe how the data now differ from those then; empty if they do not, or if nothing is known."""
    if names(then) != names(now) and "names" in then and "names" in now:
        return f"its classes were {_listed(names(then))}, and are {_listed(names(now))}"
    for key, what in (("classes", "classes"), ("shape", "as shape of a sample")):
        if key in then and key in now and then[key] != now[key]:
            return f"they had {shown(then[key])} {what}, and have {shown(now[key])}"
    if _size(then) != _size(now) and None not in (_size(then), _size(now)):
        return f"they were {_size(then):,} samples, and are {_size(now):,}"
    if differs(text(then.get("content")), text(now.get("content"))):
        return "they are as many as before, of other content"
    return ""


def of_files(then: Mapping[str, Any], content: str, samples: int | None, classes: list[str] | None) -> Fingerprint:
    """Return the fingerprint that can be derived from the data's files alone, comparable with an earlier one."""
    held_out, found = whole(then.get("held_out")), {"content": content}
    sizes = {} if samples is None or held_out is None else {"count": samples - held_out, "held_out": held_out}
    return {**found, **sizes, **({} if classes is None else {"names": classes})}


def differs(then: str | None, now: str | None) -> bool:
    """Return whether two contents surely differ: computed by the same method, with different results."""
    if not then or not now or then.partition(":")[0] != now.partition(":")[0]:
        return False
    return then != now


def _size(found: Mapping[str, Any]) -> int | None:
    count, held_out = whole(found.get("count")), whole(found.get("held_out"))
    return None if count is None or held_out is None else count + held_out


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{len(found)} ({', '.join(found[:_SHOWN])}{more})" if found else "without names"
