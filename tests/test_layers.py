"""Who may import whom: the arrows of the design, on the import graph and on what is loaded."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cmbench

PACKAGE = Path(cmbench.__file__).parent
LEAVES = {"errors", "config", "measures", "quantities", "randomness", "regular", "text", "progress", "caches"}
LAYERS = [
    "forward_mode",
    "equations",
    "layers",
    "model",
    "contracts",
    "testing",
    "anatomy",
    "augmentation",
    "finite",
    "pictures",
    "arrays",
    "features",
    "statedicts",
    "networks",
    "objectives",
    "data",
    "evaluation",
    "engine",
    "rundir",
    "recipe",
    "consent",
    "reach",
    "trusted",
    "comparison",
    "tables",
    "steering",
    "settings",
    "words",
    "views",
    "tui",
    "cli",
]
MAY_IMPORT = {
    "forward_mode": set(),
    "equations": {"forward_mode"},
    "layers": {"equations"},
    "model": {"equations"},
    "contracts": {"equations", "model"},
    "testing": {"contracts", "equations", "model", "networks"},
    "anatomy": {"equations", "model", "layers", "contracts"},
    "augmentation": set(),
    "finite": {"equations"},
    "pictures": {"rundir"},
    "arrays": {"pictures", "rundir"},
    "features": {"finite", "statedicts"},
    "statedicts": set(),
    "networks": {"equations", "layers", "model"},
    "objectives": {"equations", "model", "layers", "contracts", "anatomy", "tables"},
    "data": {"equations", "augmentation", "finite", "pictures", "arrays"},
    "evaluation": {"equations"},
    "rundir": set(),
    "recipe": {"tables"},
    "consent": {"recipe", "tables", "reach", "trusted"},
    "reach": {"trusted"},
    "trusted": {"rundir"},
    "comparison": {"rundir", "recipe"},
    "tables": set(),
    "steering": {"recipe", "tables"},
    "engine": {
        *("equations", "layers", "model", "contracts", "augmentation", "finite", "arrays", "features", "statedicts"),
        *("forward_mode", "networks", "objectives", "data", "evaluation"),
        "rundir",
        "recipe",
        "tables",
        "steering",
        "consent",
    },
    "cli": {
        *("equations", "networks", "objectives", "data", "pictures", "arrays", "evaluation", "engine", "statedicts"),
        *("rundir", "recipe", "comparison", "steering", "consent", "settings", "words", "views", "tui", "lab"),
    },
    "settings": set(),
    "words": {"rundir", "recipe", "comparison"},
    "views": {"rundir", "recipe", "comparison", "words"},
    "tui": {"rundir", "recipe", "comparison", "steering", "settings", "words", "views"},
    "lab": {"equations", "networks", "layers", "model", "contracts", "anatomy", "objectives"},
    "errors": set(),
    "measures": set(),
    "quantities": {"measures"},
    "config": {"errors", "text"},
    "randomness": {"errors"},
    "progress": set(),
    "caches": set(),
    "regular": set(),
    "text": set(),
    "__main__": {"cli"},
    "__init__": set(),
}
TORCHLESS = {"rundir", "recipe", "comparison", "tables", "steering", "consent", "reach", "trusted"}
TORCHLESS |= {"settings", "words", "views", "arrays"}
READ_BY_VIEWS = {"config", "measures", "quantities", "errors", "regular", "text"}
READS_PYTORCH_FILES = PACKAGE / "statedicts" / "files.py"
OPENS_THE_DASHBOARD = PACKAGE / "cli" / "_dashboard.py"
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """Every module that a file imports anywhere, in functions and under TYPE_CHECKING too, as absolute names."""
    inside = ("cmbench", *path.relative_to(PACKAGE).parent.parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = inside[: len(inside) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def layers_imported(path: Path) -> set[str]:
    modules = {name.split(".")[1] for name in imported_names(path) if name.startswith("cmbench.")}
    return {m for m in modules if (PACKAGE / m).is_dir() or (PACKAGE / f"{m}.py").exists()} - {layer_of(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_what_its_layer_may(path):
    layer = layer_of(path)
    allowed = MAY_IMPORT[layer] | (LEAVES if layer not in LEAVES else set())
    assert layers_imported(path) - allowed == set()


def test_every_layer_is_known():
    assert {layer_of(path) for path in FILES} <= set(MAY_IMPORT)
    assert {layer_of(path) for path in FILES} >= {*LAYERS, *LEAVES}


def test_nobody_imports_the_command_line():
    importers = [path for path in FILES if "cli" in layers_imported(path)]
    assert [str(path.relative_to(PACKAGE)) for path in importers] == ["__main__.py"]


@pytest.mark.parametrize("path", [p for p in FILES if layer_of(p) in {*TORCHLESS, *READ_BY_VIEWS, "tui"}])
def test_views_know_no_torch(path):
    heavy = {"torch", "torchvision", "safetensors.torch", "sklearn", "scipy", "cmbench.randomness"}
    found = {name for name in imported_names(path) if name in heavy or name.split(".")[0] in heavy}
    if path == PACKAGE / "comparison" / "interval.py":  # loaded where seeds are compared, and not before
        found = {name for name in found if not name.startswith("scipy.stats")}
    assert found == set()


def test_the_dashboard_alone_is_made_of_textual():
    """What prints plain text starts fast, and works where no dashboard can be shown."""
    found = {
        str(path.relative_to(PACKAGE)): sorted(names)
        for path in FILES
        if layer_of(path) != "tui" and path != OPENS_THE_DASHBOARD
        for names in [{name for name in imported_names(path) if re.match(r"textual\b|cmbench\.tui\b", name)}]
        if names
    }
    assert found == {}


def test_nothing_reads_pickles():
    for path in FILES:
        assert {name.split(".")[0] for name in imported_names(path)} & {"pickle", "dill", "joblib"} == set()
        assert path == READS_PYTORCH_FILES or "torch.load" not in path.read_text(encoding="utf-8")


def test_pytorch_files_are_read_without_running_their_code():
    """At one place alone, by a call that says so itself: a default may change, or be changed by the environment."""
    tree = ast.parse(READS_PYTORCH_FILES.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"]
    (keywords,) = [{word.arg: word.value for word in call.keywords} for call in calls]
    assert isinstance(keywords["weights_only"], ast.Constant)
    assert keywords["weights_only"].value is True
    assert "add_safe_globals" not in "".join(path.read_text(encoding="utf-8") for path in FILES)


def test_views_load_no_torch():
    modules = [
        "cmbench." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in FILES
        if layer_of(path) in {*TORCHLESS, "tui", "cli"}
    ]
    modules = [module.removesuffix(".__init__") for module in modules]
    script = "import importlib, sys\n" + "\n".join(f"importlib.import_module({m!r})" for m in modules)
    script += "\nprint(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'sklearn', 'scipy'}))"
    script += "\nprint(sorted(n for n in sys.modules if n.startswith(('cmbench.engine', 'cmbench.equations'))))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


def test_the_graph_is_read_as_python_reads_it(tmp_path):
    """Imports in functions, of names out of packages, and relative ones are seen."""
    text = "from cmbench import recipe\ndef f():\n    from cmbench.cli import main\nimport cmbench.data.images as d\n"
    path = PACKAGE / "rundir" / "not_there.py"
    names = imported_names_of(text, path)
    assert {"cmbench.recipe", "cmbench.cli", "cmbench.data.images"} <= names
    assert "cmbench.engine" in imported_names_of("from ..engine import loop", path)
    assert "cmbench.rundir.log" in imported_names_of("from . import log", path)


def imported_names_of(text: str, path: Path) -> set[str]:
    class Text(type(path)):
        def read_text(self, encoding: str = "utf-8") -> str:
            return text

    return imported_names(Text(path))


def test_no_package_imports_what_another_keeps_to_itself():
    """A module whose name begins with an underscore is its package's own."""
    private = []
    for path in FILES:
        package = ("cmbench", *path.relative_to(PACKAGE).parent.parts)
        for name in imported_names(path):
            parts = name.split(".")
            own = next((i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")), None)
            if parts[0] == "cmbench" and own is not None and package[:own] != tuple(parts[:own]):
                private.append(f"{path.relative_to(PACKAGE)}: {name}")
    assert private == []
