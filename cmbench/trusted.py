"""Where consent is kept: a folder for each trusted thing, with a file for each state of the thing."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmbench.rundir.files import write_atomically


@dataclass(frozen=True)
class Trusted:
    """Consent to one thing in one state.

    Attributes:
        thing: what identifies it.
        state: consent is needed again when this changes.
    """

    thing: Sequence[bytes]
    state: Sequence[bytes] = ()

    def is_kept(self) -> bool:
        """Return whether this user consented to the thing as it is."""
        folder = self._folder()
        return folder is not None and (folder / _digest(self.state)).is_file()

    def was_kept(self) -> bool:
        """Return whether this user consented to the thing in some state."""
        folder = self._folder()
        return folder is not None and folder.is_dir()

    def keep(self, about: str) -> None:
        """Remember the consent, if the user has a home; `about` is a line for people who read the file."""
        folder = self._folder()
        if folder is None or self.is_kept():
            return
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(folder / _digest(self.state), f"{about}\n".encode("utf-8", "surrogateescape"))
        except OSError:  # then consent is needed again
            return

    def _folder(self) -> Path | None:
        given = os.environ.get("XDG_DATA_HOME", "")
        try:
            data = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "share"
        except RuntimeError:
            return None
        return data / "cmbench" / "trusted" / _digest(self.thing)


def _digest(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
