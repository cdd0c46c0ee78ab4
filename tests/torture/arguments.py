"""Mutated arguments of commands: names, numbers, steps, filters, conditions, overrides."""

from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from torture import _commands, _generated, _runs
from torture._attack import Attack, replaced

# X is mutated; RUN is a finished run.
COMMANDS = (
    ("show", "X"),
    ("show", "RUN", "--runs-dir", "X"),
    ("ls", "--runs-dir", "X"),
    ("ls", "X"),
    ("X",),
    ("X", "X"),
    ("recipe", "X"),
    ("recipe", "show", "tiny.toml", "--set", "X"),
    ("recipe", "show", "tiny.toml", "--set", "train.steps=X"),
    ("recipe", "show", "tiny.toml", "--set", "network.width=X"),
    ("recipe", "show", "tiny.toml", "--set", "X=1"),
    ("recipe", "check", "X"),
    ("recipe", "check", "tiny.toml", "--set", "optimizer.lr=X"),
    ("run", "X", "--foreground"),
    ("run", "tiny.toml", "--foreground", "--set", "name=X", "--set", "train.steps=0"),
    ("resume", "RUN", "--foreground", "--set", "X"),
    ("resume", "RUN", "--foreground", "--checkpoint", "X"),
    ("resume", "X", "--foreground"),
    ("sample", "RUN", "--steps", "X", "--n", "2"),
    ("sample", "RUN", "--seed", "X", "--n", "2"),
    ("sample", "RUN", "--sigmas", "X", "--n", "2"),
    ("sample", "RUN", "--ema", "X", "--n", "2"),
    ("sample", "RUN", "--checkpoint", "X", "--n", "2"),
    ("sample", "RUN", "--label", "X", "--n", "2"),
    ("sample", "RUN", "--device", "X", "--n", "2"),
    ("eval", "RUN", "--steps", "X", "--n", "32"),
    ("eval", "RUN", "--measures", "X", "--n", "32", "--steps", "1"),
    ("eval", "RUN", "--seed", "X", "--n", "32", "--steps", "1"),
    ("eval", "RUN", "--features", "X", "--n", "32", "--steps", "1"),
    ("compare", "RUN", "X", "--plain"),
    ("compare", "RUN", "RUN", "--fail-if", "X"),
    ("compare", "RUN", "RUN", "--fail-if", "loss > X"),
    ("compare", "RUN", "RUN", "--reach", "loss=X", "--json"),
    ("compare", "RUN", "RUN", "--metric", "X", "--json"),
    ("compare", "--filter", "X", "--json"),
    ("compare", "--filter", "loss<X", "--json"),
    ("watch", "RUN", "--plain", "--past", "X"),
    ("watch", "X", "--plain"),
    ("stop", "X", "--timeout", "0"),
    ("stop", "RUN", "--timeout", "X"),
    ("set", "RUN", "X"),
    ("pause", "X"),
    ("snapshot", "RUN", "--timeout", "X"),
    ("ablate", "tiny.toml", "--drop", "X", "--seeds", "1"),
    ("lab", "X"),
    ("doctor", "X"),
    ("bench", "X"),
    ("bench", "tiny.toml", "--compare-with", "X"),
    ("serve", "--port", "X", "nobody"),
    ("serve", "X"),
)
BOUNDED = ("X", "n", "steps")


class Call(NamedTuple):
    """A command with what was put in the place of X."""

    template: int
    value: str


def cases(count: int, seed: int) -> list[Call]:
    numbers = st.one_of(
        st.integers(), st.integers(-(2**80), 2**80), st.floats(), st.sampled_from([10**20, 2**63, 2**64, 10**400])
    )
    texts = st.one_of(
        numbers.map(str),
        _generated.TEXTS,
        st.sampled_from(["9" * 4301, "1e999", "1," * 3000, "(" * 3000, "*" * 999, "[" * 500]),
    )
    texts = st.one_of(texts, st.lists(numbers.map(str), max_size=5).map(",".join), st.sampled_from(_NEAR))
    values = [
        value.replace("\x00", "?").encode("utf-8", "replace").decode() for value in _generated.drawn(texts, count, seed)
    ]
    return [Call(i % len(COMMANDS), value) for i, value in enumerate(values)]


_NEAR = [
    "tiny",
    "tin",
    "0000",
    "@latest",
    "@latest:tiny",
    "runs",
    "runs/latest",
    ".",
    "..",
    "/",
    "RUN/recipe.toml",
    "latest",
]
_NEAR += [
    "train.steps=5",
    "optimizer.lr=1e-3",
    "a.loss > 1",
    "sw1 > 1.05 * a.sw1",
    "state:finished",
    "loss",
    "sw1",
    "--json",
]


def check(case: Call) -> str:
    arguments = [part.replace("X", case.value) for part in COMMANDS[case.template]]
    if _is_long(arguments):
        return ""
    with _commands.workplace(_runs.templates() / "finished") as folder, _commands.inside(folder):
        before = _listed(folder)
        arguments = [part.replace("RUN", f"runs/{_runs.RUN}") if part == "RUN" else part for part in arguments]
        ended = _commands.captured(arguments)
        codes = (0, 1, 2, 3, 4, 5, 75) if arguments[0] in ("compare", "lab", "doctor") else _commands.CODES
        if wrong := _commands.complaint(ended, codes):
            return wrong
        if ended.code in (2, 4, 5) and (made := _listed(folder) - before):
            return f"exit code {ended.code}, and it left {', '.join(sorted(made))[:200]}"
    return ""


def _is_long(arguments: list[str]) -> bool:
    """Return whether a value is in order and asks for more work than an attack has time for, or for a server."""
    plain = [a for a in arguments if a.lstrip("-").replace("_", "").isascii() and a.replace("_", "").isdigit()]
    if arguments[0] in ("lab", "doctor", "serve", "ablate") and arguments[-1] in ("", "all", ".", "--json"):
        return True
    if arguments[:2] == ["serve", "--port"] or arguments[0] == "serve":
        return arguments[-1] in ("@latest", "tiny", "tin", "0000", "runs/latest", "@latest:tiny", "@latest:")
    return arguments[0] in ("sample", "eval") and any(64 < int(text) <= 10**7 for text in plain if len(text) < 9)


def _listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


def spoilt():
    """Let what is refused end as what was not foreseen."""
    from cmbench.cli import main

    run = main.main

    def wrong() -> None:
        try:
            run()
        except SystemExit as end:
            raise SystemExit(end.code and 1) from None

    return replaced(main, "main", wrong)


ATTACK = Attack(
    "arguments",
    "A wrong argument is one line and a documented exit code, and leaves nothing behind.",
    tries=2_000,
    short=96,
    cases=cases,
    check=check,
    spoilt=spoilt,
    tells="exit code 1",
    together=True,
    seconds=120.0,
)
