"""The claims of this folder, each named like its file. Only `measure` imports torch, reading the texts does not."""

import ast
import importlib
import re
from dataclasses import dataclass
from pathlib import Path

from cmbench.errors import UsageError, did_you_mean
from cmbench.lab._finding import Finding

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Claim:
    """A claim: its name, where it is made, its statement, and the problem that measures it."""

    name: str
    source: str
    statement: str
    setting: str


def all_claims() -> list[Claim]:
    """Return every claim, the oldest paper first."""
    found = [_read(path) for path in sorted(FOLDER.glob("[!_]*.py"))]
    return sorted(found, key=lambda claim: (re.findall(r"\d{4}", claim.source), claim.source))


def chosen(names: list[str]) -> list[Claim]:
    """Return the claims of these names, each once, the oldest paper first; "all" means all claims.

    Raises:
        UsageError: a name is unknown.
    """
    every = all_claims()
    known = [claim.name for claim in every]
    for name in names:
        if name not in (*known, "all"):
            raise UsageError(f"claim: found '{name}', allowed: all, {', '.join(known)}{did_you_mean(name, known)}")
    return [claim for claim in every if claim.name in names or "all" in names]


def measure(claim: Claim) -> Finding:
    """Measure one claim at its full size."""
    return importlib.import_module(f"cmbench.lab.{claim.name}").measure()


def _read(path: Path) -> Claim:
    """Read the constants SOURCE, CLAIM and SETTING of a file without running it."""
    texts: dict[str, str] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("SOURCE", "CLAIM", "SETTING"):
                texts[name] = ast.literal_eval(node.value)
    return Claim(path.stem, texts["SOURCE"], texts["CLAIM"], texts["SETTING"])
