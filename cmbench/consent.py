"""Which classes may be imported: those of a recipe that the user named, and those that the user consented to.

`kind = "module:Class"` in a run directory is a request by the author of the run. It is granted if the class's files
are trusted as they are now: because this user started a run with them, or by --trust. No module is imported to find
its file. Of source files, exactly the bytes that were checked are imported. The system loads a compiled extension from
its path after its bytes were checked; the same holds for modules that a user's own import hook finds. Bytecode without
its source is never trusted for another user's recipe. A module in an archive is never trusted, because it cannot be
checked. Modules that a module imports in turn are not checked.
"""

import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import spec_from_file_location
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any
from zipimport import zipimporter

from cmbench import reach, regular
from cmbench import recipe as recipes
from cmbench.errors import UsageError, prefixing
from cmbench.recipe import COMPONENTS, Given, Recipe
from cmbench.tables import is_own_class
from cmbench.trusted import Trusted

_LARGEST = 2**28  # bytes of a module's file, which may be a compiled one
_WRITTEN = ("meta.json", "status.json", "events.jsonl", "metrics.jsonl")  # beside a run's recipe
_OF_A_RUN = (*_WRITTEN, "checkpoints", "control", "lock")


class _Consent:
    """What this process may import. `named`: the kinds of recipes that the user named; `trusting`: --trust."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.granted: dict[str, Found] = {}
        self.trusting = False


@dataclass(frozen=True)
class Found:
    """A module that was found and not imported.

    Attributes:
        module: its full name.
        specs: of its packages and of itself, from outside in.
        contents: of the file of each; empty if it has none.
        place: the working directory, if the module is found nowhere else.
    """

    module: str
    specs: Sequence[ModuleSpec]
    contents: Sequence[bytes]
    place: str = ""

    @property
    def files(self) -> list[str]:
        """The files that would run, or the name of a part of Python."""
        return [str(spec.origin) if spec.has_location else f"{spec.name} of Python" for spec in self._running()]

    def trusted(self, kind: str) -> Trusted:
        """Return the consent to a class of the module, which ends when any of the files changes."""
        return Trusted([kind.encode(), *map(os.fsencode, self.files)], self.contents)

    def load(self) -> ModuleType:
        """Import the module from exactly the contents that were checked, and ignore older bytecode beside them."""
        if self.place and self.place not in sys.path:
            sys.path.append(self.place)  # for its own imports
        finder = _AsFound(self)
        sys.meta_path.insert(0, finder)
        try:
            return importlib.import_module(self.module)
        finally:
            sys.meta_path.remove(finder)

    def _running(self) -> Iterator[ModuleSpec]:
        yield from (spec for spec in self.specs if spec.has_location or spec.submodule_search_locations is None)


_consent = _Consent()


def trust(wanted: bool) -> bool:
    """Set whether requests of run directories are granted from now on: --trust. Return `wanted`."""
    _consent.trusting = wanted
    return wanted


def forget() -> None:
    """Forget what this process may import; consent that is kept on disk stays."""
    _consent.__init__()  # type: ignore[misc]
    reach.forget()


def typed(overrides: Sequence[str]) -> None:
    """Allow this process the classes and data of overrides `table.key=value`, whatever recipe they belong to."""
    tables = recipes.parse_overrides(overrides)
    _consent.named |= set(kinds(tables).values())
    reach.typed(tables)


def named(path: Path, overrides: Sequence[str] = ()) -> Given:
    """Read a recipe file that the user named, with overrides, and allow this process its classes and data.

    If the file, or one that it extends, lies in a run directory, only those of the overrides are allowed: another user
    may have written the rest. Raises as `recipe.read`.
    """
    given = recipes.read(path, overrides)
    typed(overrides)
    if not any(_is_of_a_run(file) for file in given.files):
        tables = given.recipe.tables()
        _consent.named |= set(kinds(tables).values())
        reach.named(tables)
    return given


def ours(kind: str) -> None:
    """Allow this process one of cmbench's own classes, which replaces a class that a recipe names."""
    _consent.named.add(kind)


def kinds(tables: Mapping[str, Any], among: Sequence[str] = (*COMPONENTS, "teacher")) -> dict[str, str]:
    """Return the custom classes that a recipe's tables name, such as {"network.kind": "module:Class"}."""
    of_files = [(f"{table}.network", _table(tables, table).get("network")) for table in ("teacher", "start")]
    named = [*((table, tables.get(table)) for table in among), *(of_files if "teacher" in among else ())]
    found = {}
    for name, value in named:
        kind = value.get("kind") if isinstance(value, Mapping) else None
        if isinstance(kind, str) and is_own_class(kind):
            found[f"{name}.kind"] = kind
    return found


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return value if isinstance(value := tables.get(name), Mapping) else {}


def ask(wanted: Mapping[str, str], where: str, folder: Path | None = None) -> None:
    """Grant or refuse `kinds` before any of them is imported.

    Args:
        wanted: as `kinds` returns them.
        where: named in messages.
        folder: the last place to look for a module; None for the working directory.

    Raises:
        UsageError: a class is neither named, nor trusted as it is, nor granted by --trust; or it does not exist.
    """
    with prefixing(where):
        for key, kind in wanted.items():
            granted(key, kind, folder)


def granted(key: str, kind: str, folder: Path | None = None) -> Found:
    """Return the module of `module:Class` if it may be imported. `key` names it in messages.

    Raises:
        UsageError: as in `ask`, or there is no such module, or its file cannot be read.
    """
    if kind in _consent.granted:
        return _consent.granted[kind]
    try:
        found = _find(kind.partition(":")[0], folder or Path.cwd())
    except (ImportError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{key}: found '{kind}', which cannot be imported: {reason}") from None
    if kind not in _consent.named and not (trusted := found.trusted(kind)).is_kept():
        shown = _listed(found.files)
        if any(isinstance(spec.loader, SourcelessFileLoader) for spec in found.specs):
            raise UsageError(f"{key}: found '{kind}', a class of {shown}, which is bytecode without its source")
        if not _consent.trusting:
            why = "has changed since it was trusted" if trusted.was_kept() else "is not trusted"
            raise UsageError(
                f"{key}: found '{kind}', a class of {shown}, which {why}; check it, then give --trust to import it "
                "(remembered until it changes)"
            )
        print(f"cmbench: trusting '{kind}', a class of {shown}", file=sys.stderr, flush=True)
        trusted.keep(f"{kind} {', '.join(found.files)}")
    _consent.granted[kind] = found
    return found


def data(table: Mapping[str, Any], default: object) -> dict[str, Any]:
    """Return replacements for settings of a complete recipe's [data], as `reach.granted` does.

    Args:
        table: the recipe's [data].
        default: of its root; anything but a text if it has no default.

    Raises:
        UsageError: there is no consent to its root.
    """
    if not isinstance(table.get("root"), str) or default is None:
        return {}
    return reach.granted(table, default if isinstance(default, str) else None, _consent.trusting)


def moved(places: Mapping[str, str]) -> None:
    """Allow this process the current place of the data that the user names: {"data.root": "/new"}."""
    reach.typed({"data": {"root": places.get("data.root")}})


def may_look(table: Mapping[str, Any], default: str | None) -> bool:
    """Return whether the files that a run's [data] names may be read without asking."""
    return not isinstance(table.get("root"), str) or _consent.trusting or reach.allows(table, default)


def _listed(files: Sequence[str]) -> str:
    """Return files as one line; several files show their common folder once."""
    folder = os.path.commonpath(files) if len(files) > 1 and all(map(os.path.isabs, files)) else ""
    text = ", ".join(os.path.relpath(file, folder) if folder else file for file in files)
    text += f" in {folder}" if folder else ""
    return text if text.isprintable() else repr(text)


def remember(recipe: Recipe) -> None:
    """Trust a recipe's data from now on, and those of its classes that this process imported: the run is the user's."""
    reach.remember(recipe.tables())
    for kind in kinds(recipe.tables()).values():
        if (found := _consent.granted.get(kind)) is not None:
            found.trusted(kind).keep(f"{kind} {', '.join(found.files)}")


def _is_of_a_run(file: Path) -> bool:
    """Return whether a file lies in a run directory, at any depth, or beside files of a run."""
    folder, *above = file.absolute().parents
    return _has(folder, _WRITTEN) or any(
        _has(run, ["recipe.toml"]) and _has(run, _OF_A_RUN) for run in (folder, *above)
    )


def _has(folder: Path, names: Sequence[str]) -> bool:
    return any(os.path.lexists(folder / name) for name in names)


def _find(module: str, folder: Path) -> Found:
    """Find a module as an import would, but without importing its packages, which would run them."""
    importlib.invalidate_caches()
    specs: list[ModuleSpec] = []
    place = ""
    for name in accumulate(module.split("."), lambda package, part: f"{package}.{part}"):
        spec = _loaded(name) if name in sys.modules else _inside(name, specs[-1]) if specs else _outermost(name)
        if spec is None and not specs and (spec := PathFinder.find_spec(name, [str(folder)])):
            place = str(folder)
        if spec is None:
            raise ModuleNotFoundError(f"No module named '{name}'")
        specs.append(spec)
        if isinstance(spec.loader, zipimporter):
            raise ImportError(f"{name} lies in the archive {spec.loader.archive}; allowed: a file of its own")
    contents = [regular.read(str(spec.origin), _LARGEST, links=True) if spec.has_location else b"" for spec in specs]
    return Found(module, specs, contents, place)


def _loaded(name: str) -> ModuleSpec | None:
    module = sys.modules[name]
    if module is None or (spec := module.__spec__) is not None:
        return spec if module else None
    spec = ModuleSpec(name, None, origin=getattr(module, "__file__", None))  # __main__ of a script or a notebook
    spec.has_location = spec.origin is not None
    return spec


def _outermost(name: str) -> ModuleSpec | None:
    finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for finder in finders if (spec := finder.find_spec(name, None))), None)


def _inside(name: str, package: ModuleSpec) -> ModuleSpec | None:
    """Find a module of a package that may not be imported yet."""
    portions: list[str] = []
    for entry in package.submodule_search_locations or ():
        finder = pkgutil.get_importer(entry)
        spec = finder.find_spec(name) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or ()) if spec is not None else ()
    if not portions:
        return None
    spec = ModuleSpec(name, None, is_package=True)  # folders without an __init__.py
    spec.submodule_search_locations = portions
    return spec


class _AsFound(MetaPathFinder):
    """Lets an import find source files as they were when they were checked."""

    def __init__(self, found: Found) -> None:
        pairs = zip(found.specs, found.contents, strict=True)
        self._found = {spec.name: (spec, content) for spec, content in pairs if type(spec.loader) is SourceFileLoader}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the module's spec, or None if it is not among those found."""
        if name not in self._found:
            return None
        spec, content = self._found[name]
        loader, inner = _Source(name, str(spec.origin), content), spec.submodule_search_locations
        return spec_from_file_location(name, spec.origin, loader=loader, submodule_search_locations=inner)


class _Source(SourceFileLoader):
    def __init__(self, name: str, path: str, content: bytes) -> None:
        super().__init__(name, path)
        self._content = content

    def get_code(self, fullname: str) -> Any:
        """Compile the source, and ignore bytecode beside it."""
        return self.source_to_code(self._content, self.path)
