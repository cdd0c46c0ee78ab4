"""Whose classes may be imported: those of a recipe that the user named, and those that the user consented to.

`kind = "module:Class"` in a run directory is a wish of whoever made the run. It is granted where the files that it
means were trusted as they are: when this user started a run with them, or by --trust. Nothing here imports a module to
find its file. Of source files, what is imported is what was looked at, byte by byte; a compiled extension is loaded by
the system, from its path, after its bytes were looked at, and so is what an import hook of the user's own finds.
Bytecode without its source is trusted for nobody else's recipe, and a module in an archive for none, for it cannot be
looked at. What a module imports in turn is its own.
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
from cmbench.errors import UsageError, naming
from cmbench.recipe import COMPONENTS, Given, Recipe
from cmbench.tables import is_own_class
from cmbench.trusted import Trusted

_LARGEST = 2**28  # bytes of a module's file, which may be a compiled one
_WRITTEN = ("meta.json", "status.json", "events.jsonl", "metrics.jsonl")  # beside a run's recipe
_OF_A_RUN = (*_WRITTEN, "checkpoints", "control", "lock")


class _Consent:
    """What this process was allowed: by name the kinds of recipes that the user named; `trusting` is --trust."""

    def __init__(self) -> None:
        self.named: set[str] = set()
        self.granted: dict[str, Found] = {}
        self.trusting = False


@dataclass(frozen=True)
class Found:
    """A module that is there and was not imported.

    Attributes:
        module: its full name.
        specs: of its packages and of itself, from outside in.
        contents: of the file of each; empty where it has none.
        place: the working directory, where nothing else has such a module.
    """

    module: str
    specs: Sequence[ModuleSpec]
    contents: Sequence[bytes]
    place: str = ""

    @property
    def files(self) -> list[str]:
        """What would run: files, or a word for a part of Python."""
        return [str(spec.origin) if spec.has_location else f"{spec.name} of Python" for spec in self._running()]

    def trusted(self, kind: str) -> Trusted:
        """Return the consent to a class of the module, which ends when any of the files changes."""
        return Trusted([kind.encode(), *map(os.fsencode, self.files)], self.contents)

    def load(self) -> ModuleType:
        """Import the module, of the very contents that were looked at: no older bytecode beside them is taken."""
        if self.place and self.place not in sys.path:
            sys.path.append(self.place)  # for what it imports in turn
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
    """Grant what run directories ask for from now on, or no longer: --trust. Returns what was given."""
    _consent.trusting = wanted
    return wanted


def forget() -> None:
    """Forget what this process was allowed; what was remembered on disk stays."""
    _consent.__init__()  # type: ignore[misc]
    reach.forget()


def typed(overrides: Sequence[str]) -> None:
    """Allow this process the classes and data of overrides `table.key=value`, whatever recipe they are laid over."""
    tables = recipes.parse_overrides(overrides)
    _consent.named |= set(kinds(tables).values())
    reach.typed(tables)


def named(path: Path, overrides: Sequence[str] = ()) -> Given:
    """Read the recipe of a file that the user named, with overrides: this process is allowed its classes and data.

    Where it, or one that it extends, lies in a run directory, those of the overrides alone are allowed: somebody else
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
    """Allow this process a class of cmbench's own, which stands in for what a recipe names."""
    _consent.named.add(kind)


def kinds(tables: Mapping[str, Any], among: Sequence[str] = (*COMPONENTS, "teacher")) -> dict[str, str]:
    """Return the classes of one's own that a recipe's tables name, such as {"network.kind": "module:Class"}."""
    found = {}
    for table in among:
        kind = value.get("kind") if isinstance(value := tables.get(table), Mapping) else None
        if isinstance(kind, str) and is_own_class(kind):
            found[f"{table}.kind"] = kind
    return found


def ask(wanted: Mapping[str, str], where: str, folder: Path | None = None) -> None:
    """Grant `kinds`, or refuse them, before anything of them is imported.

    Args:
        wanted: as `kinds` returns them.
        where: what messages name.
        folder: in which a module is looked for at last; None takes the working directory.

    Raises:
        UsageError: one is neither named, nor trusted as it is, nor granted by --trust; or it is not there.
    """
    with naming(where):
        for key, kind in wanted.items():
            granted(key, kind, folder)


def granted(key: str, kind: str, folder: Path | None = None) -> Found:
    """Return the module of `module:Class`, which may be imported. `key` is what messages call it.

    Raises:
        UsageError: as `ask`, or there is no such module, or its file cannot be read.
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
                f"{key}: found '{kind}', a class of {shown}, which {why}; look at it, and give --trust to import it "
                "(remembered until it changes)"
            )
        print(f"cmbench: trusting '{kind}', a class of {shown}", file=sys.stderr, flush=True)
        trusted.keep(f"{kind} {', '.join(found.files)}")
    _consent.granted[kind] = found
    return found


def data(table: Mapping[str, Any], default: object) -> dict[str, Any]:
    """Return what settings of a complete recipe's [data] are to be instead, as `reach.granted` does.

    Args:
        table: the recipe's [data].
        default: of its root, where such data have one.

    Raises:
        UsageError: it names a root that nobody consented to.
    """
    if not isinstance(table.get("root"), str) or not isinstance(default, str):
        return {}
    return reach.granted(table, default, _consent.trusting)


def moved(places: Mapping[str, str]) -> None:
    """Allow this process where the user says that data are now: {"data.root": "/new"}."""
    reach.typed({"data": {"root": places.get("data.root")}})


def may_look(table: Mapping[str, Any], default: str) -> bool:
    """Return whether the files that a run's [data] names may be looked at without a question."""
    return not isinstance(table.get("root"), str) or _consent.trusting or reach.allows(table, default)


def _listed(files: Sequence[str]) -> str:
    """Return files for one line: where there are several, their common folder once."""
    folder = os.path.commonpath(files) if len(files) > 1 and all(map(os.path.isabs, files)) else ""
    text = ", ".join(os.path.relpath(file, folder) if folder else file for file in files)
    text += f" in {folder}" if folder else ""
    return text if text.isprintable() else repr(text)


def remember(recipe: Recipe) -> None:
    """Trust from now on what a recipe named, and of its classes what this process imported: the run is the user's."""
    reach.remember(recipe.tables())
    for kind in kinds(recipe.tables()).values():
        if (found := _consent.granted.get(kind)) is not None:
            found.trusted(kind).keep(f"{kind} {', '.join(found.files)}")


def _is_of_a_run(file: Path) -> bool:
    """Return whether a file lies in a run directory, however deep, or beside what one holds."""
    folder, *above = file.absolute().parents
    return _has(folder, _WRITTEN) or any(
        _has(run, ["recipe.toml"]) and _has(run, _OF_A_RUN) for run in (folder, *above)
    )


def _has(folder: Path, names: Sequence[str]) -> bool:
    return any(os.path.lexists(folder / name) for name in names)


def _find(module: str, folder: Path) -> Found:
    """Find a module as an import would, but import no package on the way, which would run it."""
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
    """Lets an import find source files as they were when they were looked at."""

    def __init__(self, found: Found) -> None:
        pairs = zip(found.specs, found.contents, strict=True)
        self._found = {spec.name: (spec, content) for spec, content in pairs if type(spec.loader) is SourceFileLoader}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the module's spec, or None where it is no part of what was found."""
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
        """Compile the source, whatever bytecode lies beside it."""
        return self.source_to_code(self._content, self.path)
