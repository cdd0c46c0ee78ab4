"""Builds the components of a recipe. Their names are file names: kind = "ct" in [objective] is objectives/ct.py."""

import importlib
import math
import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
import torch

from cmbench import config, consent, recipe
from cmbench.augmentation import Augmentation, Augmented
from cmbench.contracts import Data, HasGroups, HasLowest, HasSwitches, HasTimes, Located, has
from cmbench.engine import fingerprint, memory
from cmbench.equations import gaussian_path
from cmbench.errors import UsageError, did_you_mean, prefixing
from cmbench.model import Model
from cmbench.randomness import forked_seed
from cmbench.recipe import COMPONENTS, Recipe
from cmbench.rundir import group, places
from cmbench.rundir.layout import RunDir
from cmbench.tables import DEVICE, TABLES, PathTable, Start, Teacher, is_own_class
from cmbench.text import shown

_TIME_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_CLASS = {"data": "Data", "network": "Network", "objective": "Objective"}


def component(table: str, kind: str, key: str = "") -> tuple[Any, type[config.Config]]:
    """Return the class of a component and its Config, which is in the same module.

    Args:
        table: the recipe's table: data, network or objective.
        kind: a file name in the folder, or `module:Class` for a custom component.
        key: the name of the table in messages, if it is another.

    Raises:
        UsageError: a custom module cannot be imported, or lacks the class or its Config.
    """
    module, _, name = kind.partition(":")
    if name:
        cls = imported(f"{key or table}.kind", module, name)
    else:
        cls = getattr(importlib.import_module(f"cmbench.{COMPONENTS[table]}.{kind}"), _CLASS[table])
    owner = sys.modules[cls.__module__]
    if not hasattr(owner, "Config"):
        raise UsageError(f"{key or table}.kind: found '{kind}', but {owner.__name__} has no Config")
    return cls, owner.Config


def imported(key: str, module: str, name: str) -> Any:
    """Return an attribute of a custom module, which may be in the working directory.

    Raises:
        UsageError: the module cannot be imported, or the user has not consented to it.
    """
    try:
        return getattr(consent.granted(key, f"{module}:{name}").load(), name)
    except UsageError:
        raise
    except Exception as error:  # a custom module may raise anything on import
        reason, frame = " ".join(str(error).split()), traceback.extract_tb(error.__traceback__)[-1]
        ours = (__file__, consent.__file__)
        in_a_module = not frame.filename.startswith("<") and frame.filename not in ours
        where = f" ({frame.filename}:{frame.lineno})" if in_a_module else ""
        raise UsageError(f"{key}: found '{module}:{name}', which cannot be imported: {reason}{where}") from error


def complete(given: Recipe, where: str) -> Recipe:
    """Check the component tables of a recipe and write out their defaults; messages name `where`.

    Raises:
        UsageError: a key is wrong, or components do not fit together.
    """
    tables = given.tables()
    for table in COMPONENTS:
        settings = dict(tables[table])
        kind = settings.pop("kind")
        with prefixing(where):
            _, config_class = component(table, kind)
        checked = config.check(config_class, settings, where, table)
        tables[table] = {"kind": kind, **checked.model_dump(mode="json")}
    with prefixing(where):
        _check_objective(given)
    of_files = {table: _of_file(given, table, where) for table in ("teacher", "start")}
    return given.model_copy(update={**{table: tables[table] for table in COMPONENTS}, **of_files})


def _of_file(given: Recipe, table: str, where: str) -> Teacher | Start | None:
    """Return [teacher] or [start] with the network and the path of its file checked, every default written out."""
    own: Teacher | Start | None = getattr(given, table)
    if own is None or own.file is None:
        return own
    found: dict[str, Any] = {}
    if own.network is not None:
        found["network"] = _network(own.network, where, f"{table}.network")
    if own.path is not None or table == "teacher":
        levels = {key: getattr(given.path, key) for key in ("sigma_data", "sigma_min", "sigma_max")}
        path = config.check(PathTable, {**levels, **(own.path or {})}, where, f"{table}.path")
        found["path"] = path.model_dump(mode="json")
    return own.model_copy(update=found)


def _network(given: Mapping[str, Any], where: str, name: str) -> dict[str, Any]:
    """Return a table like [network], checked, every default written out; messages call it `name`."""
    settings = dict(given)
    kind, names = settings.pop("kind", None), recipe.component_names("networks")
    if not isinstance(kind, str) or not (is_own_class(kind) or kind in names):
        allowed = f"{', '.join(names)} or module:Class{did_you_mean(str(kind), names)}"
        raise UsageError(f"{where}: {name}.kind: found {shown(kind)}, allowed: {allowed}")
    with prefixing(where):
        _, config_class = component("network", kind, name)
    return {"kind": kind, **config.check(config_class, settings, where, name).model_dump(mode="json")}


def complete_new(given: Recipe, where: str) -> Recipe:
    """Complete the recipe of a new run: as `complete`, but also refuse keys that have no effect.

    A key is allowed if a switch of the objective sets it, or sets the key it depends on: an ablation leaves such keys.

    Raises:
        UsageError: as `complete`, or a key without effect is set.
    """
    whole = located(complete(given, where), Path.cwd())
    with prefixing(where):
        objective, _ = settings("objective", whole)
        switches = objective.switches.values() if has(objective, HasSwitches) else ()
        spared = {override.partition("=")[0] for overrides in switches for override in overrides}
        for table in COMPONENTS:
            config.refuse_idle(settings(table, whole)[1], table, spared)
        config.refuse_idle(whole.optimizer, "optimizer", spared)
        config.refuse_idle(whole.ema, "ema", spared)
        _check_levels(whole)
        check_augmentation(whole)
    return whole


def located(whole: Recipe, base: Path) -> Recipe:
    """Return a complete recipe whose paths hold from any working directory; relative paths start at `base`.

    A custom class does this in `Config.located`; without it, its paths stay as they are.
    """
    files = {
        table: own.model_copy(update={"file": _absolute(own.file, base)})
        for table in ("teacher", "start")
        if (own := getattr(whole, table)) is not None and own.file is not None
    }
    whole = whole.model_copy(update=files)
    _, own = settings("data", whole)
    if not has(own, Located):
        return whole
    return whole.model_copy(update={"data": {"kind": whole.data["kind"], **own.located(base).model_dump(mode="json")}})


def _absolute(path: str, base: Path) -> str:
    return os.path.normpath(base / os.path.expanduser(path))  # noqa: PTH111 - Path's raises without a home


def of_run(
    run: RunDir,
    given: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    read: Recipe | None = None,
) -> Recipe:
    """Return the complete recipe of a run, with its data and device where they are now.

    Args:
        run: the run.
        read: its recipe, if the caller has read it.
        given: places that this command changes, such as {"data.root": "/new"}.
        overrides: `table.key=value`, to see the recipe that would result.

    Raises:
        UsageError: as `complete`.
    """
    found = read or recipe.load(run.recipe)
    before = found.tables()
    now = recipe.merged(places.in_force(run, before, given), recipe.parse_overrides(overrides))
    return complete(found if now == before else recipe.check_tables(now, str(run.recipe)), str(run.recipe))


def _check_levels(given: Recipe) -> None:
    """Refuse noise levels that the path does not have, or that the model is not trained for.

    Runs of earlier versions may have such levels, and continue. Levels beyond the path stay as they are; untrained
    ones are raised by `sample.default_sigmas`.
    """
    path, kind = given.path, given.objective["kind"]
    end, lowest = gaussian_path.named(path.kind, path.sigma_data).largest_noise_level, sigma_lowest(given)
    if path.sigma_max > end:
        found, allowed = f"found {path.sigma_max:g}", f"allowed for path.kind = '{path.kind}'"
        raise UsageError(f"path.sigma_max: {found}, {allowed}: up to {math.floor(end)}, where that path ends")
    if 0 < path.sigma_mid < lowest:
        raise UsageError(
            f"path.sigma_mid: found {path.sigma_mid:g}, allowed for objective '{kind}': at least {lowest:g}, "
            "below which it trains nothing, or 0"
        )


def sigma_lowest(given: Recipe) -> float:
    """Return the lowest noise level that a recipe trains: path.sigma_min, unless its objective says otherwise."""
    objective, own = settings("objective", given)
    return objective.sigma_lowest(own) if has(objective, HasLowest) else given.path.sigma_min


def _check_objective(given: Recipe) -> None:
    kind = given.objective["kind"]
    objective, _ = component("objective", kind)
    if given.path.kind not in objective.paths:
        allowed = ", ".join(objective.paths)
        raise UsageError(f"path.kind: found '{given.path.kind}', allowed for objective '{kind}': {allowed}")
    if has(objective, HasGroups) and given.train.micro_batch_size % objective.group:
        found, allowed = given.train.micro_batch_size, f"allowed for objective '{kind}': multiples of {objective.group}"
        raise UsageError(f"train.micro_batch_size: found {found}, {allowed}")
    wanted, teacher = objective.teacher, given.teacher
    if wanted in ("denoiser", "consistency") and teacher is None:
        kinds = "kind = 'run' or 'file'" if wanted == "consistency" else "kind = 'oracle', 'run' or 'file'"
        raise UsageError(f"teacher: missing, and objective '{kind}' needs it ({kinds})")
    if wanted == "none" and teacher is not None:
        raise UsageError(f"teacher: found one, allowed: none, since objective '{kind}' does not use it")
    if wanted == "consistency" and teacher is not None and teacher.kind not in ("run", "file"):
        raise UsageError(f"teacher.kind: found '{teacher.kind}', allowed for objective '{kind}': run or file")
    if teacher is not None and teacher.initialise_student and given.start is not None:
        raise UsageError("start: found one, allowed: none where teacher.initialise_student = true")


def settings(table: str, complete_recipe: Recipe) -> tuple[Any, Any]:
    """Return a component's class and its checked settings."""
    tables = getattr(complete_recipe, table)
    cls, config_class = component(table, tables["kind"])
    return cls, config_class.model_validate({k: v for k, v in tables.items() if k != "kind"})


def device_of(name: str, key: str = "train.device") -> torch.device:
    """Return the device of a name; auto takes a GPU if there is one. Messages call the name by `key`.

    Raises:
        UsageError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if (rank := group.member()).size > 1 and name.startswith("cuda"):
        if name != "cuda":
            raise UsageError(f"{key}: found '{name}', allowed with {rank.size} ranks: auto, cpu or cuda")
        name = f"cuda:{rank.local}"
    if not re.fullmatch(DEVICE, name):
        raise UsageError(f"{key}: found {shown(name)}, allowed: auto, cpu, cuda or cuda:N")
    kind, _, index = name.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{key}: found '{name}', but torch sees {torch.cuda.device_count()} GPUs here")
    return torch.device(name)


def data(complete_recipe: Recipe, device: torch.device) -> Data:
    """Build the data set of a complete recipe.

    Raises:
        UsageError: the data cannot be read, the user has not consented to their place, or the batches of a custom
            class do not fit training.
    """
    cls, own = data_settings(complete_recipe)
    try:
        found = cls(own, device)
    except (MemoryError, RuntimeError) as error:
        if not memory.is_lack(error):
            raise
        raise UsageError("data: there is too little memory for them here") from None
    except UsageError as error:
        if getattr(own, "download", None) is complete_recipe.data.get("download"):
            raise
        raise UsageError(f"{error}; or give --trust to fetch it as the run's recipe says") from None
    fingerprint.check(complete_recipe, found, device)
    return found


def data_settings(complete_recipe: Recipe) -> tuple[Any, Any]:
    """Return the class of a data set and its settings, limited to what the user has consented to.

    Raises:
        UsageError: the user has not consented to the place of the data.
    """
    cls, own = settings("data", complete_recipe)
    root = type(own).model_fields.get("root")
    return cls, own.model_copy(update=consent.data(complete_recipe.data, root and root.default))


def augmentation(complete_recipe: Recipe) -> Augmentation | None:
    """Return the augmentation of a recipe's data; None without one."""
    _, own = settings("data", complete_recipe)
    return Augmentation(own) if isinstance(own, Augmented) and own.augment else None


def check_augmentation(complete_recipe: Recipe, shape: tuple[int, ...] | None = None) -> None:
    """Refuse an augmentation of which the network is not told, or of data that are no pictures.

    Args:
        complete_recipe: the recipe.
        shape: of a sample, where it is known.

    Raises:
        UsageError: the network takes another number of labels, or the data have another shape.
    """
    found = augmentation(complete_recipe)
    if found is None:
        return
    p, kind = complete_recipe.data["augment"], complete_recipe.network["kind"]
    takes = complete_recipe.network.get("augment_labels")
    if takes is None:
        raise UsageError(
            f"data.augment: found {p:g}, allowed for network '{kind}', which takes no labels of it: 0; "
            "'ddpmpp', 'ncsnpp' and 'adm' take them"
        )
    if takes != found.size:
        raise UsageError(
            f"network.augment_labels: found {takes}, allowed for data.augment_by = {found.names}: {found.size}"
        )
    if shape is not None and len(shape) != 3:
        raise UsageError(f"data.augment: found {p:g} for data of shape {list(shape)}, allowed for points: 0")


def is_conditional(complete_recipe: Recipe) -> bool:
    """Return whether the network takes the labels."""
    return bool(complete_recipe.network.get("class_conditional", False))


def model(complete_recipe: Recipe, shape: tuple[int, ...], classes: int, device: torch.device) -> Model:
    """Build the model of a complete recipe for samples of `shape`, with weights drawn from the recipe's seed."""
    cls, own = settings("network", complete_recipe)
    objective, _ = component("objective", complete_recipe.objective["kind"])
    times = objective.times if has(objective, HasTimes) else 1
    path = complete_recipe.path
    with forked_seed(complete_recipe.seed):
        arguments = (own, shape, classes if is_conditional(complete_recipe) else 0)
        F_theta = cls(*arguments) if times == 1 else cls(*arguments, times=times)
    found = Model(
        F_theta,
        shape,
        gaussian_path.named(path.kind, path.sigma_data),
        path.sigma_data,
        path.sigma_min,
        path.sigma_max,
        precision=complete_recipe.train.precision,
        scalings=path.scalings,
        noise=path.c_noise,
        boundary_at=path.boundary,
        times=times,
        time_dtype=_TIME_DTYPES[path.time_precision],
        matmul_precision=complete_recipe.train.matmul_precision,
    ).to(device)
    return channels_last(found) if complete_recipe.train.channels_last else found


def channels_last(model: Model) -> Model:
    """Lay the weights of convolutions out with their channels last; their passes then lay pictures out so too.

    Copies of the model keep the layout, and so do moments and averages. Files have torch's usual one.

    Raises:
        UsageError: the network has none.
    """
    weights = [p for p in model.parameters() if p.ndim == 4]
    if not weights:
        raise UsageError("train.channels_last: found true, allowed for a network without convolutions: false")
    for weight in weights:
        weight.data = weight.data.to(memory_format=torch.channels_last)
    return model


def commented(complete_recipe: Recipe) -> str:
    """Return a complete recipe as TOML, each key followed by its meaning."""
    lines = []
    for table, value in complete_recipe.tables().items():
        if not isinstance(value, dict):
            lines.append(_line(table, value, Recipe))
            continue
        documented = component(table, value["kind"])[1] if table in COMPONENTS else TABLES[table]
        inner = {key: v for key, v in value.items() if isinstance(v, dict) and table in ("teacher", "start")}
        lines += ["", f"[{table}]", *(_line(key, v, documented) for key, v in value.items() if key not in inner)]
        for key, v in inner.items():  # of a file of weights
            documented = component("network", v["kind"])[1] if key == "network" else TABLES["path"]
            lines += ["", f"[{table}.{key}]", *(_line(name, own, documented) for name, own in v.items())]
    return "\n".join(lines) + "\n"


def _line(key: str, value: object, documented: type[config.Config]) -> str:
    """Return `key = value  # meaning`."""
    written = f"{key} = {_inline(value)}"
    field = documented.model_fields.get(key)
    return f"{written:<30}  # {field.description}" if field and field.description else written


def _inline(value: object) -> str:
    """Return a TOML value on one line (tomli-w breaks arrays into many, and writes tables as sections)."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_inline_key(key)} = {_inline(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_inline(item) for item in value)}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def _inline_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _inline(key)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, with one alternative for each kind of component."""
    whole = Recipe.model_json_schema()
    definitions = whole.setdefault("$defs", {})
    for table, folder in COMPONENTS.items():
        alternatives = []
        for kind in recipe.component_names(folder):
            part = component(table, kind)[1].model_json_schema()
            definitions |= part.pop("$defs", {})
            part["properties"] = {"kind": {"const": kind}, **part.get("properties", {})}
            part["required"] = ["kind", *part.get("required", [])]
            alternatives.append(part)
        own = {"properties": {"kind": {"type": "string", "pattern": ":"}}, "required": ["kind"]}
        inherited = {"not": {"required": ["kind"]}}  # the kind is in the recipe that this one extends
        whole["properties"][table] = {"type": "object", "anyOf": [*alternatives, own, inherited]}
    whole["properties"]["extends"] = {"type": "string", "description": "a recipe that this one builds upon"}
    whole["anyOf"] = [{"required": whole.pop("required")}, {"required": ["extends"]}]
    return whole
