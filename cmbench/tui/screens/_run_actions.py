"""The browser's actions on one run, each after a question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, ParamSpec, TypeVar

from textual.screen import Screen

from cmbench.errors import CmbenchError, ConflictError
from cmbench.rundir import control, group, launch, status
from cmbench.rundir.annotations import annotate
from cmbench.rundir.layout import TRASH, RunDir
from cmbench.rundir.overview import Glance
from cmbench.rundir.trash import trash
from cmbench.text import plain
from cmbench.tui.screens.confirm import Confirm, TypedConfirm, ask_until
from cmbench.words.signs import short

P = ParamSpec("P")
T = TypeVar("T")


def say(
    screen: Screen[Any], message: str, severity: Literal["information", "warning", "error"] = "information"
) -> None:
    """Show a message for a while; its text is not markup."""
    screen.notify(plain(message), severity=severity, markup=False)


async def _attempt(screen: Screen[Any], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a function that waits for files or processes in a thread, and show its error as a message."""
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except CmbenchError as error:
        say(screen, str(error), "error")
        return None


async def resume(screen: Screen[Any], glance: Glance) -> None:
    """Start a trainer that resumes the run."""
    name = short(glance.name)
    if glance.state == status.IMPORTED:
        further = f"cmbench run RECIPE {status.start(glance.run)}"
        say(screen, f"{name}: was imported, and is not trained further; {further} starts from it", "warning")
        return
    if glance.is_live or glance.state == "finished":
        say(screen, f"{name}: {'is live' if glance.is_live else 'already finished'} ({glance.state})", "warning")
        return
    if not await screen.app.push_screen_wait(Confirm(f"Resume {glance.name} from its newest checkpoint?", "Resume")):
        return
    say(screen, f"{name}: resuming …")
    path = glance.run.path.resolve()
    arguments = ["resume", str(path), "--runs-dir", str(path.parent), *group.again(status.read(glance.run))]
    if await _attempt(screen, launch.start_detached, arguments):
        say(screen, f"{name}: resumed")


async def stop(screen: Screen[Any], glance: Glance) -> None:
    """Ask the run's trainer to write a checkpoint and stop."""
    name = short(glance.name)
    if not glance.is_live:
        say(screen, f"{name}: is not live ({glance.state})", "warning")
        return
    question = Confirm(f"Stop {glance.name} with a checkpoint? It can be resumed.", "Stop")
    if not await screen.app.push_screen_wait(question):
        return
    if await _attempt(screen, request_stop, glance.run):
        say(screen, f"{name}: asked to stop")


async def note(screen: Screen[Any], glance: Glance) -> None:
    """Write the run's note."""
    question, note = f"Note on {glance.name}", glance.written.note
    await ask_until(screen.app, question, note, lambda text: annotate(glance.run, note=text))


async def tags(screen: Screen[Any], glance: Glance) -> None:
    """Write the run's tags."""
    question, tags = f"Tags of {glance.name}, with commas between", ", ".join(glance.written.tags)
    await ask_until(screen.app, question, tags, lambda text: annotate(glance.run, tags=text.split(",")))


async def delete(screen: Screen[Any], glance: Glance) -> None:
    """Move the run to the trash folder."""
    name = short(glance.name)
    if glance.is_live:
        say(screen, f"{name}: is live ({glance.state}): stop it first", "warning")
        return
    folder = glance.run.path.parent / TRASH
    question = TypedConfirm(f"Move {glance.name} to {folder}? Nothing in it is deleted.", glance.name[-4:])
    if await screen.app.push_screen_wait(question) and (moved := await _attempt(screen, trash, glance.run)):
        say(screen, f"{name}: moved to {moved.path}")


def request_stop(run: RunDir) -> str:
    """Send a request to stop, and return its id.

    Raises:
        ConflictError: the run has no live trainer.
    """
    if (state := status.read(run)["state"]) not in status.LIVE:
        raise ConflictError(f"{run.name}: is not live ({state})")
    return control.request(run, "stop")


ACTIONS: dict[str, Callable[[Screen[Any], Glance], Awaitable[None]]] = {
    "resume": resume,
    "stop": stop,
    "note": note,
    "tags": tags,
    "delete": delete,
}
