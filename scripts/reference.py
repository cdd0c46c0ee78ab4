"""Write docs/reference/recipes.md and docs/reference/commands.md from the code itself.

`make docs` calls it, and a test compares the pages with what it writes. Keys, types, ranges and defaults come from the
schema; sources are the comments of the shipped recipes; commands and options are those that `--help` shows.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli
import typer

from cmbench.cli.main import app
from cmbench.config import Config
from cmbench.engine import build
from cmbench.recipe import COMPONENTS, Recipe, component_names
from cmbench.tables import TABLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"number": "float", "integer": "int", "string": "text", "boolean": "true or false", "array": "list"}
_WIDTH = 100  # columns of a help text
_KEY = re.compile(r"^(\w+)\s*=\s*(\"[^\"]*\"|[^#]*)(?:#\s*(.*))?$")
_SOURCE = re.compile(r"\d{4}|published")

Sources = dict[tuple[str, str, str], list[str]]  # by table, kind and key


def main() -> None:
    """Write both pages."""
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {"recipes.md": recipes_page(), "commands.md": commands_page()}


def recipes_page() -> str:
    """Return the page of every key of a recipe."""
    sources = recipe_sources()
    lines = [_RECIPES_HEAD, "## Top level", "", *_table(Recipe, "", "", sources, skip={*TABLES, *COMPONENTS})]
    for table, folder in COMPONENTS.items():
        lines += ["", f"## [{table}]", "", _INTRODUCTIONS[table]]
        for kind in component_names(folder):
            config = build.component(table, kind)[1]
            lines += ["", f'### [{table}] kind = "{kind}"', "", *_table(config, table, kind, sources)]
    for table, config in TABLES.items():
        lines += ["", f"## [{table}]", "", *_table(config, table, "", sources)]
    return "\n".join(lines) + "\n"


_RECIPES_HEAD = """\
# Recipe keys

A recipe is a TOML file. This page lists every key: its meaning, type, range, default, and where published values come
from. `cmbench recipe show NAME` prints a recipe with every key written out, and `cmbench recipe check FILE` checks one.
Unknown keys are refused. `cmbench recipe schema` prints the same as a JSON schema, for editors.

A recipe may build on another: `extends = "ct_edm"` takes everything from a shipped recipe, or from a file beside it.
The keys below then replace what they name. Another `kind` drops the keys of the old one. On the command line,
`--set TABLE.KEY=VALUE` replaces a key. A key marked *live* can be changed while the run trains (`cmbench set`).
"""
_INTRODUCTIONS = {
    "data": "Where the batches come from: a file of `cmbench/data`, or a user-defined class, `module:Class`.",
    "network": "The network F_theta: a file of `cmbench/networks`, or a user-defined class, `module:Class`.",
    "objective": "The loss: a file of `cmbench/objectives`, or a user-defined class, `module:Class`.",
}


def _table(config: type[Config], table: str, kind: str, sources: Sources, skip: set[str] = frozenset()) -> list[str]:
    """Return a Markdown table of the keys of a configuration."""
    schema = config.model_json_schema()
    definitions = schema.get("$defs", {})
    rows = []
    for key, field in schema.get("properties", {}).items():
        if key in skip or (key == "kind" and kind):
            continue
        meaning = field.get("description", "") + (" (*live*)" if field.get("steerable") else "")
        default = "required" if key in schema.get("required", []) else f"`{json.dumps(field.get('default'))}`"
        found = sources.get((table, kind, key)) or sources.get((table, "", key)) or []
        rows.append([f"`{key}`", meaning, _allowed(field, definitions), default, "; ".join(found)])
    if not rows:
        return ["No keys."]
    head = ["key", "meaning", "allowed", "default", "published values and sources, from the recipes"]
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("<", "&lt;") for cell in cells) + " |"


def _allowed(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return type and range of a key."""
    if "$ref" in field:
        field = definitions[field["$ref"].rpartition("/")[2]] | field
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_allowed(part, definitions) for part in field["anyOf"]))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    name = _TYPES.get(field.get("type", ""), field.get("type", "table"))
    if name == "list" and isinstance(field.get("items"), dict):
        return f"list of {_allowed(field['items'], definitions)}"
    return " ".join([name, *(f"{sign} {field[bound]:g}" for bound, sign in _BOUNDS.items() if bound in field)])


def recipe_sources() -> Sources:
    """Return what the shipped recipes say of their values beyond the meaning of the key, where it names a source."""
    found: Sources = defaultdict(list)
    for path in sorted((ROOT / "recipes").rglob("*.toml")):
        kinds = {table: value.get("kind", "") for table, value in _tables(path).items() if isinstance(value, dict)}
        for table, key, value, remarks in _remarks(path.read_text(encoding="utf-8")):
            kind = kinds.get(table, "") if table in COMPONENTS else ""
            for remark in remarks:
                told = remark if remark.startswith("published") else f"{value}: {remark}"
                if _SOURCE.search(remark) and told not in found[table, kind, key]:
                    found[table, kind, key].append(told)
    return found


def _tables(path: Path) -> dict[str, Any]:
    return tomli.loads(path.read_text(encoding="utf-8"))


def _remarks(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield table, key and value of each line, and the parts of its comments that tell more than the key's meaning."""
    table, above = "", list[str]()
    for line in text.splitlines():
        if line.startswith("#"):
            above.append(line.lstrip("# "))
            continue
        if line.startswith("["):
            table = line.strip("[]")
        elif match := _KEY.match(line):
            key, value, comment = match[1], match[2].strip(), match[3] or ""
            told = [part.removeprefix(f"{key}: ") for part in above if part.startswith(f"{key}: ")]
            yield table, key, value, told + [part for part in comment.split("; ")[1:] if _SOURCE.search(part)]
        above = []


def commands_page() -> str:
    """Return the page of every command: its help."""
    lines = [_COMMANDS_HEAD]
    for name, command in _commands(typer.main.get_command(app), "cmbench"):
        with command.make_context(name, [], resilient_parsing=True, terminal_width=_WIDTH) as context:
            lines += ["", f"## {name}", "", "```text", command.get_help(context).rstrip(), "```"]
    return "\n".join(lines) + "\n"


_COMMANDS_HEAD = """\
# Commands

What `--help` says of each command. `--json` prints data to stdout where a command prints data; messages go to stderr.
A run is named by its path, a unique prefix of its name, its last four characters, `@latest`, or `@latest:PREFIX`.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed, or a condition of `--fail-if` holds |
| 2 | the command line or the recipe is wrong; nothing was written |
| 3 | the run diverged |
| 4 | no such run or checkpoint |
| 5 | conflict: the run is live or finished, or its data have changed |
| 75 | stopped with a checkpoint, can be resumed |
| 141 | the reader of its output has left |"""


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    for child, found in getattr(command, "commands", {}).items():
        if getattr(found, "commands", None):
            yield from _commands(found, f"{name} {child}")
        else:
            yield f"{name} {child}", found


if __name__ == "__main__":
    main()
