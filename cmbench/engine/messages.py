"""Words between the ranks of a run, through a group of their own, as JSON: no pickle is ever read."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

import torch
from torch import distributed

from cmbench.engine.memory import is_lack
from cmbench.errors import CmbenchError
from cmbench.rundir.group import Member
from cmbench.text import brief

T = TypeVar("T")


class LostRankError(CmbenchError):
    """Another rank has ended, so that this one cannot go on."""


class Machine(NamedTuple):
    """Where a rank works: its host, and the name and identity of its GPU, if it has one."""

    host: str
    gpu: str | None
    gpu_id: str | None


class Messages:
    """What the ranks tell each other. All ranks call the same methods in step, but for `tell` and `hear`.

    Attributes:
        member: which of the ranks this is.
        machines: that of each.
        is_apart: whether this rank has failed alone while the others go on: it cannot meet them again, and must end.
    """

    def __init__(self, member: Member | None = None) -> None:
        self.member = member or Member()
        self.machines: list[Machine] = []
        self._control: Any = None
        self._store: Any = None
        self._over = False
        self._agreed_on: Exception | None = None  # the last error that `agreed` has raised, on all ranks
        self.is_apart = False

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.member.size

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.member.leads

    def tell(self, message: Any = None) -> None:
        """As rank 0, send a message to the others, which wait in `hear`; None lets them take the next step."""
        if self.size > 1 and not self._over:
            self._broadcast(message)

    def hear(self) -> Any:
        """As any other rank, wait for a message of rank 0."""
        return self._broadcast(None)

    def dismiss(self, exit_code: int) -> None:
        """As rank 0, let the others end with an exit code. Those that are gone hear nothing."""
        with suppress(LostRankError):
            self.tell({"do": "end", "code": exit_code})
        self._over = True

    def call_roll(self) -> None:
        """As rank 0, make sure that all are still there. torchrun sends SIGTERM not only to stop: also after a loss.

        Raises:
            LostRankError: one is not.
        """
        if not self._over:
            self.tell({"do": "answer"})
            self.all_told(None)

    def leave_word(self, why: str) -> None:
        """Leave behind why this rank ends, for rank 0 to say."""
        with suppress(RuntimeError):  # torchrun is gone too
            self._store.set(f"why/{self.member.rank}", f"{self.called(self.member.rank)}: {why}")

    def words_left(self) -> str:
        """Return why the first of the ranks that ended did so; empty if none could say, as one that was killed."""
        keys = [f"why/{rank}" for rank in range(self.size)]
        with suppress(RuntimeError):
            return next((self._store.get(key).decode() for key in keys if self._store.check([key])), "")
        return ""

    def called(self, rank: int) -> str:
        """Return what messages call a rank; nothing where there is one."""
        return f"rank {rank} on {self.machines[rank].host}" if self.size > 1 else ""

    def _broadcast(self, message: Any) -> Any:
        content = b"" if message is None else json.dumps(message).encode()
        length = torch.tensor([len(content)])
        with told_of_loss():
            distributed.broadcast(length, 0, group=self._control)
            if not int(length):
                return None
            sent = torch.tensor(list(content) or [0] * int(length), dtype=torch.uint8)
            distributed.broadcast(sent, 0, group=self._control)
        return json.loads(bytes(sent.tolist()))

    def all_told(self, message: Any) -> list[Any]:
        """Return the messages of all ranks, in their order."""
        if self.size == 1:
            return [message]
        content = torch.tensor(list(json.dumps(message).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with told_of_loss():
            distributed.all_gather(lengths, torch.tensor([len(content)]), group=self._control)
            longest = int(max(map(int, lengths)))
            padded = torch.cat([content, content.new_zeros(longest - len(content))])
            distributed.all_gather(found := [torch.empty_like(padded) for _ in lengths], padded, group=self._control)
        return [json.loads(bytes(own[: int(n)].tolist())) for own, n in zip(found, lengths, strict=True)]

    def agreed(self, prepare: Callable[[], T]) -> T:
        """Return what `prepare` makes on this rank, once it has succeeded on all.

        Raises:
            CmbenchError: it failed on this rank or on another, which is then named.
            MemoryError: there was too little memory on another rank.
        """
        if self.size == 1:
            return prepare()
        failed: Exception | None = None
        try:
            made = prepare()
        except LostRankError:
            raise
        except Exception as error:  # a custom class may raise anything
            failed = error
        told = self.all_told(None if failed is None else _described(failed))
        if failed is not None and (isinstance(failed, CmbenchError) or is_lack(failed)):
            self._agreed_on = failed
            raise failed
        for rank in range(self.size):
            if told[rank] is not None:
                self._agreed_on = _retold(f"{self.called(rank)}: ", *told[rank])
                raise self._agreed_on from failed
        return made

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Let all ranks work in step within the block. One that fails there alone leaves word, and is apart."""
        try:
            yield
        except Exception as error:
            if self.size > 1 and error is not self._agreed_on and not isinstance(error, LostRankError):
                self.is_apart = True
                self.leave_word(described(error))
            raise


def described(error: Exception) -> str:
    """Return what an error says, with its name if it is none of ours."""
    return str(error) if isinstance(error, CmbenchError) else f"{type(error).__name__}: {brief(error)}"


def _described(error: Exception) -> tuple[str, int, bool]:
    """Return the text of an error, its exit code, and whether there was too little memory."""
    return described(error), getattr(error, "exit_code", 1), is_lack(error)


def _retold(where: str, text: str, exit_code: int, lacks: bool) -> Exception:
    """Return the error of another rank."""
    if lacks:
        return MemoryError(text)
    error = CmbenchError(where + text)
    error.exit_code = exit_code
    return error


@contextmanager
def told_of_loss() -> Iterator[None]:
    """Turn what torch raises where another rank has ended into LostRankError.

    gloo raises a plain RuntimeError that names the place in its source.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error) and "NCCL" not in str(error):
            raise
        raise LostRankError(f"another rank has ended: {' '.join(str(error).split())[:200]}") from None
