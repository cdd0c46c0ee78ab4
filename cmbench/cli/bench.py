"""`cmbench bench`."""

from typing import TYPE_CHECKING, Annotated

import typer

from cmbench import recipe as recipes
from cmbench.cli import _ranks, _screen
from cmbench.cli._app import app
from cmbench.cli._options import Device, Gpus, Json, Overrides, RunsDir, Trust, _complete_recipes
from cmbench.cli._screen import table

if TYPE_CHECKING:
    from cmbench.engine.bench.cost import Cost
    from cmbench.engine.bench.measure import Measured

_DEFAULT = "ct_edm"
_MOST_ROUNDS = 100_000
_UNDISTURBED = 0.9  # cores; a process that nobody disturbs has at least one


@app.command("bench")
@_ranks.shared_out
def bench(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=_complete_recipes,
            help="A recipe's path or name.",
        ),
    ] = _DEFAULT,
    overrides: Overrides = None,
    compare_with: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            autocompletion=_complete_recipes,
            help="Measure this recipe in turn with the first, without --set, and print the ratio.",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=_MOST_ROUNDS, help="Rounds to take medians over; if not given, 5 to 50 in 20 seconds."),
    ] = None,
    device: Device = "auto",
    gpus: Gpus = None,
    runs_dir: RunsDir = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Measure what a recipe's training step costs here: its rate, its phases and their memory. Nothing is kept."""
    elsewhere = [] if device == "auto" else [f"train.device={device}"]
    given = [(recipe, [*(overrides or []), *elsewhere])]
    given += [] if compare_with is None else [(compare_with, elsewhere)]
    paths = [recipes.find(name) for name, _ in given]

    from cmbench.engine import build, ranks
    from cmbench.engine.bench.measure import measure
    from cmbench.engine.bench.subject import Asked

    build.device_of(device, "--device")
    asked = [Asked(path, tuple(changes), runs_dir) for path, (_, changes) in zip(paths, given, strict=True)]
    with _screen.waiting(f"measuring {', '.join(map(str, paths))}"):
        found = measure(asked, rounds, ranks.current())
    if json:
        told = [{**own.told(), "efficiency": _efficiency(own, found.ranks)} for own in found.costs]
        about = {"rounds": found.rounds, "ranks": found.ranks, "ratio": found.ratio, "cores": found.ran}
        _screen.data({"schema": 1, **about, "recipes": told})
        return
    for own, each in zip(found.costs, asked, strict=True):
        _show(own, found, each.overrides)
    if found.ran < _UNDISTURBED and all(own.device == "cpu" for own in found.costs):
        _screen.line(f"this process ran {found.ran:.0%} of the time: other work on this machine slows these figures")
    if found.ratio is not None:
        first, second = (own.name for own in found.costs)
        named = f"{first} to {second}" if first != second else "the first to the second"
        _screen.line(f"{named}: {found.ratio:.2f} of the seconds a step, {_per_image(found):.2f} of those an image")


def _show(cost: "Cost", found: "Measured", overrides: tuple[str, ...]) -> None:
    """Print what a recipe costs."""
    changed = f", {', '.join(overrides)}" if overrides else ""
    where = cost.device if found.ranks == 1 else f"{found.ranks} ranks, the first on {cost.device}"
    about = f"{where}, {cost.precision}, {cost.parameters:,} parameters, batches of {cost.batch_size:,}"
    _screen.line(f"{cost.name}{changed}: {about}")
    for difference in cost.differs:
        _screen.line(difference)
    low, high = cost.middle
    spread = f"{_ms(low)} to {_ms(high)} in the middle half of {found.rounds} rounds"
    rates = f"{1 / cost.seconds:.3g} steps and {_count(cost.images_per_s)} images a second"
    _screen.line(f"{rates}: {_ms(cost.seconds)} ms a step ({spread})")
    passes = f"{_ms(cost.bare)} ms; its passes alone would be {cost.passes:.2f}"
    _screen.line(f"{cost.ratio:.2f} times a bare forward and backward of the network ({passes})")
    of_step = f"{_flop(cost.flop)} a step"
    _screen.line(f"{cost.share:.1%} of the rate of a matrix product, which is {_flop(cost.product)}/s here ({of_step})")
    if found.ranks > 1:
        _screen.line(_scaling(cost, found.ranks))
    _screen.line(_memory(cost))
    if cost.compiling:
        _screen.line(f"compiled in {cost.compiling:.0f} s, which no figure here includes")
    _screen.line("")
    rows = [
        (
            phase.name,
            _ms(phase.seconds),
            f"{phase.seconds / cost.seconds:.1%}",
            "-" if phase.bytes is None else _size(phase.bytes),
        )
        for phase in cost.phases
    ]
    table(["phase", "ms a step", "share", "memory"], rows)
    _screen.line("")


def _memory(cost: "Cost") -> str:
    if cost.peak is None:
        return f"memory {_size(cost.kept)} that stay from step to step; what compiled passes take is unknown on a CPU"
    return f"memory {_size(cost.peak)}, of which {_size(cost.kept)} stay from step to step"


def _scaling(cost: "Cost", ranks: int) -> str:
    if cost.alone is None:
        return "one rank alone has too little memory for the batch"
    times = cost.images_per_s / cost.alone
    alone = f"{_count(cost.alone)} images a second of one rank alone"
    return f"{times:.2f} times the {alone}: an efficiency of {times / ranks:.0%}"


def _efficiency(cost: "Cost", ranks: int) -> float | None:
    return None if cost.alone is None else cost.images_per_s / cost.alone / ranks


def _per_image(found: "Measured") -> float:
    first, second = found.costs
    assert found.ratio is not None  # as there are two
    return found.ratio * second.batch_size / first.batch_size


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f}"


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _flop(number: float) -> str:
    units = ((1e15, "P"), (1e12, "T"), (1e9, "G"))
    unit, name = next(((unit, name) for unit, name in units if number >= unit), (1e6, "M"))
    return f"{number / unit:.3g} {name}FLOP"


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
