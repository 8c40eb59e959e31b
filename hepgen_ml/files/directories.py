"""Directories that one run at a time may change."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from hepgen_ml.errors import OutputError
from hepgen_ml.files import locks
from hepgen_ml.files.outputs import PREFIX, naming

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class DirectoryLock:
    """A directory that one run at a time may change.

    Parameters
    ----------
    directory : Path
        Must exist. Holds a file `DirectoryLock.name` while the lock is held.

    Raises
    ------
    OutputError
        Another run holds it, or the directory cannot be written to.
    """

    name = ".in-use"

    def __init__(self, directory: Path) -> None:
        self.path = directory / self.name
        with naming(directory):
            while True:
                self._file = os.open(self.path, _OPEN, 0o600)
                locked = locks.take(self._file)
                if locked is False or (locked is None and locks.is_alive(self._file)):
                    os.close(self._file)
                    raise OutputError(
                        "is being written by another run",
                        path=directory,
                        remedy="wait for it, or choose another directory"
                        + ("" if locked is False else f"; remove {self.path} if there is none"),
                    )
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(self._file), os.lstat(self.path)):
                        os.ftruncate(self._file, 0)
                        os.pwrite(self._file, locks.owner(), 0)
                        return
                os.close(self._file)  # the run before has just given it up

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # the next run takes it over
            self.path.unlink()
        os.close(self._file)


def is_unfinished(name: str) -> bool:
    """Whether a file name is that of an unfinished output or a lock."""
    return name.startswith(PREFIX) or name == DirectoryLock.name
