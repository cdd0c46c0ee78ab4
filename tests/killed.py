"""What a process leaves that is killed between two of its operations on files."""

import os
import shutil
from pathlib import Path


class KilledError(BaseException):
    """The process is no more: nothing that it would do in its end happens."""


class Killer:
    """Lets so many operations on files happen, and no other."""

    def __init__(self, patch, operations):
        self.left = operations
        for where, name in [(os, "open"), (os, "mkdir"), (os, "write"), (os, "rename"), (os, "replace")]:
            patch.setattr(where, name, self._counted(getattr(os, name)))
        for name in ("mkdir", "replace", "rename", "unlink", "symlink_to"):
            patch.setattr(Path, name, self._counted(getattr(Path, name)))
        patch.setattr(shutil, "rmtree", self._counted(shutil.rmtree))

    def _counted(self, operation):
        def call(*given, **named):
            if self.left <= 0:
                raise KilledError
            self.left -= 1
            return operation(*given, **named)

        return call
