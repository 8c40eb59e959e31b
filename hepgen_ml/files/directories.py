"""Locks of directories, and the rules by which a run may write into a directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

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

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the next run takes it over
            self.path.unlink()
        os.close(self._file)


class Contents(NamedTuple):
    """Files by which the directory of a training is recognised.

    Attributes
    ----------
    what : str
        Product of the training, with its article, for messages: "a model".
    finished : str
        File that exists when the training is finished.
    plan : str or None
        File that exists while the training is unfinished and can be resumed.
    further : tuple of str
        Other files that identify a directory of this kind.
    """

    what: str
    finished: str
    plan: str | None = None
    further: tuple[str, ...] = ()


@contextmanager
def claimed(
    directory: Path, contents: Contents, *, force: bool = False, resume: bool = False
) -> Iterator[None]:
    """Reserve a directory for this run; it is created if it does not exist.

    A directory that was created here and is still empty at the end is removed, and so is the plan
    of a training that was begun here and leaves nothing to resume.

    Parameters
    ----------
    directory : Path
    contents : Contents
        Files that will be written, and may be replaced.
    force : bool
        Replace existing files of this kind.
    resume : bool
        Continue an unfinished training.

    Raises
    ------
    OutputError
        The directory is in use, is a file, or holds what may not be replaced. Nothing is written
        into it then.
    """
    names = _names_in(directory)
    _refuse_foreign(directory, names, contents)
    if contents.plan not in names:  # an unfinished training may be running, which the lock shows
        _refuse_existing(directory, names, contents, force=force, resume=resume)
    with naming(directory):
        is_new = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with DirectoryLock(directory):
            names = _names_in(directory)  # another run may have ended meanwhile
            _refuse_foreign(directory, names, contents)
            _refuse_existing(directory, names, contents, force=force, resume=resume)
            try:
                yield
            finally:
                if contents.plan not in names:
                    _forget_plan(directory, contents)
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                directory.rmdir()


def _forget_plan(directory: Path, contents: Contents) -> None:
    """Remove the plan if nothing else is there, so that the same command begins again."""
    with suppress(OSError):
        if contents.plan and _names_in(directory) == {contents.plan}:
            (directory / contents.plan).unlink()


def _names_in(directory: Path) -> set[str]:
    """Names in a directory except those of unfinished outputs; empty without a directory."""
    with naming(directory):
        if os.path.lexists(directory) and not directory.is_dir():
            raise OutputError("is a file", path=directory, remedy="choose another --out")
        names = os.listdir(directory) if directory.is_dir() else []
    return {name for name in names if not is_unfinished(name)}


def _refuse_foreign(directory: Path, names: set[str], contents: Contents) -> None:
    known = {contents.finished, contents.plan, *contents.further}
    if names and not names & known:
        raise OutputError(
            f"holds other files than those of {contents.what}",
            path=directory,
            remedy="choose another --out",
        )


def _refuse_existing(
    directory: Path, names: set[str], contents: Contents, *, force: bool, resume: bool
) -> None:
    unfinished = contents.plan in names
    if resume and contents.finished in names and not unfinished:
        raise OutputError(
            "its training is finished", path=directory, remedy="add --force to train anew"
        )
    if names and not (force or resume):
        raise OutputError(
            "holds an unfinished training" if unfinished else "exists already",
            path=directory,
            remedy="add --resume to continue it, or --force to begin anew"
            if unfinished
            else "add --force to replace it, or choose another --out",
        )


def is_unfinished(name: str) -> bool:
    """Whether a file name is that of an unfinished output or a lock."""
    return name.startswith(PREFIX) or name == DirectoryLock.name
