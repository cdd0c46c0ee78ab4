"""Averages of weights that a file keeps without their names: in a list, or under names without dots.

torch_ema and diffusers' EMAModel keep a list, `shadow_params`, in the order of the parameters. The state dict that the
same code saved beside it has the same order: PyTorch walks parameters and state dicts alike. The list then gets that
state dict's names. LitEma (latent-diffusion) takes the dots out of the names: `model_ema.netenc0weight`.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cmbench.statedicts.files import Entry

_WORDS = {"ema", "emas", "shadow", "avg", "swa", "average", "averages", "averaged"}
_SHARE = 0.5  # of the network's tensors: a list of as many may be its averages, whatever it is called


@dataclass(frozen=True)
class Averages:
    """The lists of a file that may be averages of a network's weights.

    Attributes:
        entries: the file's tensors; those of lists that fit have names.
        fitting: the keys of lists that fit, each with whether its keys say that it holds averages.
        misfits: the keys of the others, each with why it does not fit.
    """

    entries: Sequence[Entry]
    fitting: Mapping[str, bool] = field(default_factory=dict)
    misfits: Mapping[str, str] = field(default_factory=dict)


def named(entries: Sequence[Entry], raw: Sequence[Sequence[Entry]], own: Mapping[str, tuple[int, ...]]) -> Averages:
    """Give names to lists of averages.

    Args:
        entries: of the file.
        raw: ways to read the state dict beside them as parameters, in its order; none if there is no such dict.
        own: the network's parameters, whose order is that of the file's code; empty if this is not known.
    """
    lists: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.listed:
            lists[entry.group].append(entry)
    most = max([len(own), *map(len, raw)])
    names: dict[str, str] = {}
    fitting, misfits = {}, {}
    for group, found in lists.items():
        told = says_averages(group)
        if not (told or len(found) >= _SHARE * most) or not group:
            continue
        orders = _orders(found, raw, own)
        if len(orders) == 1:
            fitting[group] = told
            names |= {entry.name: f"{group}.{name}" for entry, name in zip(found, orders.pop(), strict=True)}
        elif told:
            misfits[group] = _why(found, raw, own, len(orders))
    given = [replace(e, name=names[e.name], listed=False) if e.name in names else e for e in entries]
    return Averages(given, fitting, misfits)


def dotted(entries: Sequence[Entry]) -> list[Entry]:
    """Give names without dots back those of the weights beside them, where one name fits alone."""
    ends: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        parts = entry.name.split(".")
        for i in range(len(parts)):
            ends["".join(parts[i:])].add(".".join(parts[i:]))

    def whole(entry: Entry) -> Entry:
        before, _, last = entry.name.rpartition(".")
        meant = ends[last] - {last}
        if not says_averages(before) or len(meant) != 1:
            return entry
        return replace(entry, name=f"{before}.{meant.pop()}")

    return [whole(entry) for entry in entries]


def says_averages(group: str) -> bool:
    """Tell whether the keys that lead to a list say that it holds averages."""
    return bool(_WORDS & {*re.split(r"[\W_]+", group.lower())})


def parameters(beside: Sequence[Entry], prefix: str, buffers: Collection[str]) -> list[list[Entry]]:
    """Return the ways to read a state dict as parameters: all, or those of a prefix; with its buffers or without."""
    within = [e for e in beside if f".{e.name}".startswith(f".{prefix}")]
    ways = [part for whole in (beside, within) for part in (whole, [e for e in whole if e.name not in buffers])]
    return [list(way) for way in ways if way]


def _orders(
    found: Sequence[Entry], raw: Sequence[Sequence[Entry]], own: Mapping[str, tuple[int, ...]]
) -> set[tuple[str, ...]]:
    """Return the names that a list may have, in its order."""
    shapes = [entry.shape for entry in found]
    if not raw:
        return {tuple(own)} if own and shapes == list(own.values()) else set()
    return {tuple(_inner(e) for e in way) for way in raw if shapes == [e.shape for e in way]}


def _inner(entry: Entry) -> str:
    return entry.name.removeprefix(f"{entry.group}.") if entry.group else entry.name


def _why(
    found: Sequence[Entry], raw: Sequence[Sequence[Entry]], own: Mapping[str, tuple[int, ...]], orders: int
) -> str:
    if orders:
        return "whose order is not clear"
    if not raw and not own:
        return f"{len(found)} tensors without names, whose order only the state dict of the same code would tell"
    shapes = [tuple(entry.shape for entry in way) for way in raw] or [tuple(own.values())]
    if all(len(way) != len(found) for way in shapes):
        counts = sorted({len(way) for way in shapes})
        return f"{len(found)} tensors without names, where the weights are {' or '.join(map(str, counts))}"
    way = next(way for way in shapes if len(way) == len(found))
    at = next(i for i, (a, b) in enumerate(zip(found, way, strict=True)) if a.shape != b)
    return f"whose tensor {at} has shape {list(found[at].shape)}, where the weights have {list(way[at])}"
