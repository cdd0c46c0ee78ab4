"""Makes a run directory of other people's weights, which all commands then treat as a run."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from cmbench import recipe as recipes
from cmbench.contracts import KnowsShape, has
from cmbench.engine import build, checkpoint, environment, fingerprint, weights_file
from cmbench.engine.weights import Trained
from cmbench.engine.weights_file import Asked, Weights
from cmbench.errors import ConflictError, refusing_write_errors
from cmbench.recipe import Recipe
from cmbench.rundir import layout, leftovers, status
from cmbench.rundir.files import fsync_folder, to_json, write_atomically
from cmbench.rundir.fingerprints import Fingerprint
from cmbench.rundir.layout import SCHEMA, RunDir
from cmbench.rundir.lock import in_turn
from cmbench.rundir.log import Log

_CPU = torch.device("cpu")


def neutral(given: Recipe, where: str, name: str, function: str = "", file: Path | None = None) -> Recipe:
    """Return the complete recipe of imported weights: of this name, with no teacher, start or averages.

    Its objective says what the weights compute. The recipe's own objective stays unless it computes something else, or
    needs a teacher, which an imported run does not have.

    Args:
        given: the recipe.
        where: it comes from, for messages.
        name: of the run.
        function: what the weights compute; empty: what the recipe's objective trains.
        file: of the weights; a folder of diffusers says which network it holds.
    """
    tables = given.tables()
    objective, _ = build.component("objective", given.objective["kind"])
    samplers = {"denoiser": "ode", "consistency": "consistency", "average_velocity": "average_velocity"}
    wanted = samplers[function] if function else objective.sampler
    if wanted != objective.sampler or objective.teacher not in ("none", "optional"):
        named = next(name for name, sampler in samplers.items() if sampler == wanted)
        tables["objective"] = {"kind": weights_file.objective_for(named, given.path.kind, "--function")}
    tables |= {"name": name, "ema": {**tables["ema"], "lengths": []}}
    if file is not None:
        tables["network"] = weights_file.described(tables["network"], file)
    kept = {key: value for key, value in tables.items() if key not in ("teacher", "start")}
    whole = weights_file.unplaced(build.complete(recipes.check_tables(kept, where), where))
    return build.located(whole, Path.cwd())


def look(asked: Asked, recipe: Recipe) -> Weights:
    """Return what a file has of a recipe's network, without its tensors, whether it fits or not.

    Raises:
        UsageError: the file cannot be read, or nothing in it fits.
    """
    data = _about_data(recipe)
    return weights_file.read(asked, recipe, tuple(data["shape"]), data["classes"], only_names=True)


def make(
    asked: Asked, recipe: Recipe, text: str, licence: str, run: RunDir, argv: Sequence[str]
) -> tuple[Trained, Weights]:
    """Read weights and make a run directory of them, whole or not at all.

    Args:
        asked: which weights.
        recipe: complete, as `neutral` returns it; its network, path, objective and data are those of the weights.
        text: of the recipe, as given.
        licence: of the weights, in the user's words; may be empty.
        run: to be made.
        argv: the command, for meta.json.

    Raises:
        UsageError: the file cannot be read or does not fit, or the run cannot be written.
        ConflictError: there is a folder of that name.
    """
    data = _about_data(recipe)
    found = weights_file.read(asked, recipe, tuple(data["shape"]), data["classes"])
    trained = weights_file.trained(found, recipe, tuple(data["shape"]), data["classes"], _CPU)
    source = {**found.source, "bytes": found.file.size, **({"licence": licence} if licence else {})}
    meta = {**_meta(trained, argv), "data": data, "source": source}
    with refusing_write_errors(run.path), _appearing(run) as made:
        checkpoint.save(made, 0, {"model": trained.model.state_dict()}, data=data)
        write_atomically(made.meta, to_json(meta, indent=True))
        write_atomically(made.recipe_source, text.encode())
        _journal(made, source)
        _status(made)
        write_atomically(made.recipe, recipes.dumps(recipe).encode())
    with suppress(OSError):  # the run works without the link
        layout.point_latest(run)
    return trained, found


def _about_data(recipe: Recipe) -> Fingerprint:
    """Return shape and classes of the data, without fetching them; all that is known where they can be built."""
    cls, own = build.data_settings(recipe)
    if has(cls, KnowsShape):
        shape, classes = cls.shape_and_classes(own)
        return {"shape": list(shape), "classes": int(classes)}
    return fingerprint.of(recipe, build.data(recipe, _CPU))


def _meta(trained: Trained, argv: Sequence[str]) -> dict[str, Any]:
    model, recipe = trained.model, trained.recipe
    cls, settings = build.settings("objective", recipe)
    edges = cls(settings, model, None, recipe.train.steps).profile_edges(recipe.profile.bins)
    return {
        "schema": SCHEMA,
        "created": time.time(),
        "argv": list(argv),
        "directory": str(Path.cwd()),
        "host": socket.gethostname(),
        **environment.software(),
        "seed": recipe.seed,
        "teacher": None,
        "start": None,
        "shape": list(model.shape),
        "classes": trained.classes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "profile_edges": edges.tolist(),
        "profile_noise_levels": model.path.noise_level(edges.double()).tolist(),
    }


def _journal(run: RunDir, source: Mapping[str, Any]) -> None:
    with closing(Log(run.events)) as journal:
        journal.open_segment(1, 1)
        journal.append({"step": 0, "time": time.time(), "train_s": 0.0, "kind": "imported", **source})
        journal.fsync()


def _status(run: RunDir) -> None:
    about = {"schema": SCHEMA, "state": status.IMPORTED, "host": socket.gethostname(), "segment": 1, "step": 0}
    status.write(run, {**about, "of": None, "train_s": 0.0, "checkpoint": 0, "last": {}, "best": {}})


@contextmanager
def _appearing(run: RunDir) -> Iterator[RunDir]:
    """Give a hidden folder to be filled, which then appears as the run; removed if anything fails or ends us.

    Raises:
        ConflictError: there is something of the run's name.
    """
    folder = run.path.parent
    layout.make_folder_of_runs(folder)
    leftovers.sweep(folder)
    made = RunDir(folder / f".{layout.IMPORTING}.{layout.machine()}.{os.getpid()}")
    shutil.rmtree(made.path, ignore_errors=True)  # of a process that had this number before
    with _ending_by_exception():
        try:
            layout.create_named(made)
            yield made
            fsync_folder(made.path)
            with in_turn(folder):
                if os.path.lexists(run.path):
                    raise ConflictError(f"{run.path}: exists; choose another --out")
                made.path.rename(run.path)
            fsync_folder(folder)
        except BaseException:
            shutil.rmtree(made.path, ignore_errors=True)
            raise


@contextmanager
def _ending_by_exception() -> Iterator[None]:
    """Let signals that end a process raise SystemExit meanwhile, so that nothing is left behind."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    try:
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
