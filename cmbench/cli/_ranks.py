"""Commands that several ranks compute together: the first works as one process would, the others compute for it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, ParamSpec

from cmbench.cli import _gpus, _signals
from cmbench.errors import CmbenchError
from cmbench.rundir import group, launch, torchrun

if TYPE_CHECKING:
    from cmbench.engine.ranks import Ranks

P = ParamSpec("P")
_OPTION = "--gpus"


def shared_out(command: Callable[P, None]) -> Callable[P, int]:
    """Let a command with options --gpus and --device start on several ranks, or start them itself.

    Rank 0 alone reads, measures, prints and writes, but for samples in bulk. All end with its exit code. Signals end it
    as they end one process, and the others with it.
    """

    @wraps(command)
    def on_ranks(*given: P.args, **named: P.kwargs) -> int:
        gpus, device = named.get("gpus"), named.get("device")
        asked = _gpus.for_work(gpus if isinstance(gpus, str) else None, str(device))
        if asked is not None:
            return _start(asked)
        if group.member().size > 1:
            return _as_rank(lambda: command(*given, **named))
        command(*given, **named)
        return 0

    return on_ranks


def _as_rank(work: Callable[[], None]) -> int:
    """As rank 0, work and let the others end; as any other, help it until it ends, whatever signals come."""
    from cmbench.engine import answering
    from cmbench.engine import ranks as all_ranks

    ranks = (
        all_ranks.gather()
    )  # until then signals end each rank: one that waits for another would not learn of its end
    if not ranks.leads:
        _signals.ignore()
        code = answering.follow(ranks)
        if not ranks.is_apart:
            _leave(ranks)
        return code
    from cmbench.engine.messages import LostRankError

    try:
        work()
    except LostRankError as error:
        _signals.ignore()
        if why := ranks.words_left():
            raise CmbenchError(why) from error
        raise
    except Exception as error:
        _dismiss(ranks, error.exit_code if isinstance(error, CmbenchError) else 1)
        raise
    _dismiss(ranks, 0)
    return 0


def _dismiss(ranks: "Ranks", code: int) -> None:
    """As rank 0, let the others end. It may end after them: it has yet to say what is wrong."""
    _signals.ignore()
    if not ranks.is_apart:  # else they learn of its end, and nothing more
        ranks.dismiss(code)
        _leave(ranks)


def _leave(ranks: "Ranks") -> None:
    """Leave the other ranks once all have heard how they end."""
    from cmbench.engine.messages import LostRankError

    with suppress(LostRankError):
        ranks.all_told(None)
    ranks.close()


def _start(asked: _gpus.Gpus) -> int:
    """Start this command line again on ranks in this terminal, and return the exit code of the first.

    Raises:
        KeyboardInterrupt: Ctrl-C ended them.
        RefusedError: they cannot be started.
    """
    heard: list[int] = []
    environment = {**os.environ, **asked.environment()}
    with tempfile.TemporaryDirectory(prefix="cmbench-") as logs, launch.starting():
        command = torchrun.command(asked.size, Path(logs), *_without(sys.argv[1:]))
        process = subprocess.Popen(command, env=environment, start_new_session=True)

        def end(number: int, frame: FrameType | None) -> None:
            heard.append(number)
            process.send_signal(number if number == signal.SIGINT else signal.SIGTERM)  # torchrun knows these

        with _signals.passed_to(end):
            code = process.wait()
    if signal.SIGINT in heard:
        raise KeyboardInterrupt
    return 128 + heard[0] if heard else code


def _without(arguments: list[str]) -> list[str]:
    """Return a command line without --gpus, which the ranks do not need."""
    kept, skips = [], False
    for argument in arguments:
        if not skips and argument != _OPTION and not argument.startswith(f"{_OPTION}="):
            kept.append(argument)
        skips = argument == _OPTION
    return kept
