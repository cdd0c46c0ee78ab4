"""Finds a network's weights among the tensors of a file: which state dict, under which prefix, and what is left over.

Files nest: `{"ema": {...}, "net": {...}}`. All keys that lead to a tensor are joined by dots, so that a nested table
and a preconditioner's `model.` are the same thing: a prefix. The prefix under which most of the network's names are
found is the one meant. If another, with tensors of its own, has half as many, the user must say which.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from cmbench.errors import UsageError, did_you_mean
from cmbench.statedicts.averages import Averages, dotted, named, parameters
from cmbench.statedicts.files import Entry, File
from cmbench.statedicts.names import WRAPPERS, schemes, unwrapped
from cmbench.text import cut, shown

Shape = tuple[int, ...]
_RIVAL = 0.5  # of the most names: with as many, another state dict may be meant
_NAMED = 3  # names in a message
_LONGEST = 60  # characters of each


@dataclass(frozen=True)
class Match:
    """What a file has of a network.

    Attributes:
        weights: the prefix, without its last dot: which of the file's state dicts; empty if there is only one.
        pairs: the network's names, each with the tensor of its shape.
        missing: the network's names that the file lacks.
        reshaped: the network's names whose tensor has another shape, with both shapes, the file's first.
        unexpected: tensors of the same state dict that the network lacks.
        constants: the network's names of tensors that follow from its settings, each with one of the file's.
        aside: the file's other state dicts, with their numbers of tensors.
        author: whose names and layouts the file has, if they are not ours or EDM's; see `names.Scheme`.
    """

    weights: str
    pairs: Mapping[str, Entry]
    missing: Sequence[str]
    reshaped: Mapping[str, tuple[Shape, Shape]]
    unexpected: Sequence[str]
    constants: Sequence[tuple[str, Entry]] = ()
    aside: Mapping[str, int] = field(default_factory=dict)
    author: str = ""


@dataclass(frozen=True)
class _Candidate:
    """One way to read the file: the network's names by prefix, each with its tensor."""

    prefix: str
    label: str  # the prefix without what all of the network's names begin with
    found: Mapping[str, Entry]
    constants: Sequence[tuple[str, Entry]] = ()
    author: str = ""

    def shares(self, other: "_Candidate") -> bool:
        return bool({e.name for e in self.found.values()} & {e.name for e in other.found.values()})


def match(
    file: File,
    expected: Mapping[str, Shape],
    kind: str,
    weights: str = "",
    constants: Collection[str] = (),
    buffers: Collection[str] = (),
    ordered: bool = False,
) -> Match:
    """Find the tensors of a network in a file.

    Args:
        file: open.
        expected: the network's tensors by name.
        kind: of the network, which may have names of its own in published files.
        weights: which state dict: some parts of the prefix, such as "ema"; empty if there is only one.
        constants: names of tensors that the network builds from its settings; a file may have them.
        buffers: which of the expected tensors are no parameters.
        ordered: whether the network's parameters have the order of the file's code.

    Raises:
        UsageError: no name fits, several state dicts fit and `weights` does not say which, or averages in a list
            without names do not fit.
    """
    file = replace(file, entries=dotted(file.entries))
    candidates = _candidates(file.entries, expected, kind, constants)
    if any(entry.listed for entry in file.entries):
        own = {name: shape for name, shape in expected.items() if name not in buffers} if ordered else {}
        lists = named(file.entries, _parameters(file, candidates, buffers), own)
        weights = weights or _meant(file, lists)
        _refuse_misfit(file, lists, weights)
        file = replace(file, entries=lists.entries)
        candidates = _candidates(file.entries, expected, kind, constants)
    if weights:
        candidates = _chosen(file, candidates, weights)
    if not candidates:
        raise UsageError(_no_name(file, expected))
    best = candidates[0]
    enough = _RIVAL * len(best.found)
    rivals = [c for c in candidates[1:] if len(c.found) >= enough and not c.shares(best)]
    if rivals:
        names = _listed([best.label or "''", *dict.fromkeys(rival.label or "''" for rival in rivals)], 8)
        raise UsageError(f"{file.path}: found several state dicts for this network; allowed for weights: {names}")
    return _told(file, best, expected, weights)


def refuse_misfits(
    found: Match, where: str, allow_missing: Sequence[str] = (), allow_unexpected: Sequence[str] = ()
) -> None:
    """Refuse what does not match, unless a pattern such as "logvar*" allows it.

    Raises:
        UsageError: something is missing, unexpected or of another shape; messages name `where`.
    """
    missing = _not_allowed(found.missing, allow_missing)
    unexpected = _not_allowed(found.unexpected, allow_unexpected)
    shapes = [f"{cut(name, _LONGEST)} {list(a)} there, {list(b)} here" for name, (a, b) in found.reshaped.items()]
    told = [
        f"{len(names)} {what} ({_listed(names, most)})"
        for names, what, most in (
            (shapes, "of another shape", 1),
            (missing, "missing", _NAMED),
            (unexpected, "unexpected", _NAMED),
        )
        if names
    ]
    if told:
        keys = [key for key, names in (("missing", missing), ("unexpected", unexpected)) if names]
        by = "" if shapes else f", or {' and '.join(f'allow_{key}' for key in keys)}"
        raise UsageError(f"{where}: its tensors do not fit the network: {'; '.join(told)}; allowed: all of them{by}")


def _parameters(file: File, candidates: Sequence[_Candidate], buffers: Collection[str]) -> list[list[Entry]]:
    """Return the ways to read the best state dict as parameters; see `averages.parameters`."""
    if not candidates:
        return []
    best = candidates[0]
    groups = {entry.group for entry in best.found.values()}
    aside = {entry.name for name, entry in best.found.items() if name in buffers}
    aside |= {entry.name for _, entry in best.constants}
    beside = [entry for entry in file.entries if entry.group in groups and not entry.listed]
    return parameters(beside, best.prefix, aside)


def _meant(file: File, lists: Averages) -> str:
    """Return the list that is meant where the user names no state dict: the only one, if its keys say averages.

    Raises:
        UsageError: it is not clear which.
    """
    told = [group for group, says in lists.fitting.items() if says]
    if len(told) == 1 and len(lists.fitting) == 1:
        return told[0]
    if lists.fitting:
        names = _listed([*lists.fitting], 8)
        raise UsageError(
            f"{file.path}: found lists that may be averages of the weights; allowed for weights: {names}, or the key "
            "of the weights themselves"
        )
    return ""


def _refuse_misfit(file: File, lists: Averages, weights: str) -> None:
    """Refuse averages that do not fit, unless the user has named other weights.

    Raises:
        UsageError: there are some.
    """
    for group, why in lists.misfits.items():
        if not weights or f".{weights.strip('.')}." in f".{group}.":
            raise UsageError(
                f"{file.path}: {cut(group, _LONGEST)}: found averages, {why}; allowed: as many in the order of the "
                "weights, or weights with the key of another state dict"
            )


def _candidates(
    entries: Sequence[Entry], expected: Mapping[str, Shape], kind: str, constants: Collection[str]
) -> list[_Candidate]:
    """Return all ways to read a file in which a name fits, those of most names first."""
    root = _root(expected)
    ours = {name.removeprefix(root): name for name in expected}
    built = {name.removeprefix(root): name for name in constants}
    stripped = str if any(WRAPPERS & {*name.split(".")} for name in ours) else unwrapped
    found: list[_Candidate] = []
    for scheme in schemes(kind, list(expected)):
        by_prefix: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        constant: defaultdict[str, list[tuple[str, Entry]]] = defaultdict(list)
        for entry in entries:
            parts = scheme.ours(stripped(entry.name)).split(".")
            for i in range(len(parts)):
                own, prefix = ".".join(parts[i:]), ".".join(parts[:i])
                if own in ours:
                    by_prefix[prefix].setdefault(ours[own], scheme.fitted(entry, ours[own]))
                elif own in built:
                    constant[prefix].append((built[own], entry))
        found += [
            _Candidate(p, _label(p, root), names, constant.get(p, ()), scheme.author) for p, names in by_prefix.items()
        ]
    return sorted(found, key=lambda c: (-len(c.found), -_of_shape(c, expected), -len(c.constants), len(c.prefix)))


def _root(expected: Mapping[str, Shape]) -> str:
    """Return the parts with which all of a network's names begin: a file may lack them."""
    parts = [name.split(".")[:-1] for name in expected]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return "".join(f"{part}." for part in shared)


def _label(prefix: str, root: str) -> str:
    return f".{prefix}.".removesuffix(f".{root}").strip(".")


def _of_shape(candidate: _Candidate, expected: Mapping[str, Shape]) -> int:
    return sum(entry.shape == expected[name] for name, entry in candidate.found.items())


def _chosen(file: File, candidates: Sequence[_Candidate], weights: str) -> list[_Candidate]:
    """Return the candidates whose prefix has these parts, next to each other."""
    wanted = f".{weights.strip('.')}."
    chosen = [c for c in candidates if wanted in f".{c.prefix}." or wanted in f".{_group_of(c)}."]
    if not chosen:
        names = list(dict.fromkeys(c.label for c in candidates if c.label))
        allowed = _listed(names, 8) or "none: the file has one state dict"
        hint = did_you_mean(weights, {*names, *(part for name in names for part in name.split("."))})
        raise UsageError(f"{file.path}: weights: found {shown(weights)}, allowed: {allowed}{hint}")
    return chosen


def _group_of(candidate: _Candidate) -> str:
    """Return the tables around a candidate's tensors, as the file names them."""
    return next(iter(candidate.found.values())).group


def _told(file: File, best: _Candidate, expected: Mapping[str, Shape], weights: str) -> Match:
    """Return a match with everything that is left over."""
    pairs = {name: best.found[name] for name in expected if name in best.found}
    reshaped = {name: (e.shape, expected[name]) for name, e in pairs.items() if e.shape != expected[name]}
    used = {e.name for e in (*best.found.values(), *(entry for _, entry in best.constants))}
    groups = {e.group for e in pairs.values()}
    within = _within(best.prefix, weights)
    left = [e for e in file.entries if e.name not in used]
    ours = [e for e in left if e.group in groups and f"{unwrapped(e.name)}.".startswith(within)]
    others = {id(e) for e in ours}
    return Match(
        best.label,
        {name: entry for name, entry in pairs.items() if name not in reshaped},
        [name for name in expected if name not in pairs],
        reshaped,
        [e.name for e in ours],
        best.constants,
        dict(Counter(e.group or e.name.partition(".")[0] for e in left if id(e) not in others)),
        best.author,
    )


def _within(prefix: str, weights: str) -> str:
    """Return the prefix of the tensors among which none may be left over: up to what the user named."""
    wanted = f".{weights.strip('.')}." if weights else ""
    before, at, _ = f".{prefix}.".partition(wanted) if wanted else ("", "", "")
    return f"{before}{at}".removeprefix(".") if at else ""


def _no_name(file: File, expected: Mapping[str, Shape]) -> str:
    theirs, ours = (shown(next(iter(names)), _LONGEST) for names in ((e.name for e in file.entries), expected))
    return f"{file.path}: of another network: it has {theirs} and the like, this one has {ours}"


def _not_allowed(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]


def _listed(names: Sequence[str], most: int) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name if " " in name else cut(name, _LONGEST) for name in names[:most]) + more
