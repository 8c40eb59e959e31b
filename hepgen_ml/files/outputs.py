"""Output files that appear under their names only when complete.

Everything that is written (events, models, checkpoints, reports, figures) is written in a separate
directory beside its final place, which other users cannot enter and whose name cannot be guessed,
and is moved to its name at the end. Therefore readers never see an incomplete file, nothing is
written through a link that another user has placed there, and a run that fails leaves earlier files
unchanged. A run that is killed leaves the directory; the next run with the same output removes it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hepgen_ml.errors import OutputError
from hepgen_ml.files import locks

PREFIX = ".partial-"
"""Names of unfinished outputs begin with it."""

_LOCK = ".in-use"
"""File in the directory of an unfinished output; locked for as long as somebody writes there."""

_REPLACED = ".replaced"
"""Name of the earlier directory that an output replaces, until it is removed."""

_IDLE = 86_400.0
"""Seconds without a change after which an unfinished output counts as abandoned if locks do not
tell: written on another machine, or on a file system without locks."""

_LONGEST = 120  # bytes of a target's name in that of its unfinished output
_WAIT = 2.0  # seconds to wait for another run that searches unfinished outputs

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = _OPEN | os.O_CREAT

_REMEDIES = {
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
    errno.EFBIG: "choose a place that allows larger files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "create its directory first",
    errno.ENOTDIR: "choose another place",
    errno.EISDIR: "choose another name",
}


class PartialFile:
    """An output under construction: a file, or a directory of files.

    Parameters
    ----------
    path : path-like
        Its final name. A link of this name is replaced, but never its target.
    force : bool
        Replace an existing file; otherwise it is an error, even if it appears during the writing.
    directory : bool
        Whether the output is a directory; an empty one may exist already.

    Attributes
    ----------
    path : Path
    place : Path
        Where to write; does not exist yet.

    Raises
    ------
    OutputError
        It exists, another run is writing it, or its directory cannot be written to.
    """

    def __init__(self, path: str | Path, *, force: bool = False, directory: bool = False) -> None:
        self.path, self.force = Path(path), force
        self._lock = -1
        with naming(self.path):
            if not (force or directory) and os.path.lexists(self.path):
                raise _existing(path)
            if not directory and self.path.is_dir() and not self.path.is_symlink():
                raise OutputError("is a directory", path=path, remedy="choose another name")
            if self.path.name in ("", "..", _LOCK, _REPLACED):
                raise OutputError(
                    "is not a name for a file", path=path, remedy="choose another name"
                )
            if not self.path.parent.is_dir():
                raise OutputError("its directory does not exist", path=path, remedy="create it")
            with _alone_in(self.path.parent):
                if _remove_abandoned(self.path):
                    raise OutputError(
                        "is being written by another run",
                        path=path,
                        remedy="wait for it, or choose another name",
                    )
                self._begin()
        self.place = self._directory / self.path.name

    def _begin(self) -> None:
        name = self.path.name.encode(errors="surrogateescape")
        while True:
            directory = self.path.parent / f"{PREFIX}{secrets.token_hex(8)}-{_short(name)}"
            os.mkdir(directory, 0o700)
            try:
                lock = os.open(directory / _LOCK, _CREATE | os.O_EXCL, 0o600)
            except FileNotFoundError:  # taken for an abandoned one
                continue
            except OSError:
                os.rmdir(directory)
                raise
            locks.take(lock)
            if os.fstat(lock).st_nlink:
                os.write(lock, locks.owner())
                self._directory, self._lock = directory, lock
                return
            os.close(lock)

    def commit(self, *, sync: bool = False) -> None:
        """Move what was written to its final name.

        Parameters
        ----------
        sync : bool
            First make sure that it is on the disk, so that a power failure cannot leave an
            empty file under this name either.
        """
        try:
            with naming(self.path):
                if sync:
                    _sync(self.place)
                if self.place.is_dir():
                    self._move_directory()
                elif self.force:
                    os.replace(self.place, self.path)
                else:
                    self._move_new()
        finally:
            self.discard()

    def _move_new(self) -> None:
        """Never replaces a file, not even one that appeared meanwhile."""
        taken = OutputError(
            "appeared while this run was writing", path=self.path, remedy="choose another name"
        )
        try:
            os.link(self.place, self.path)
        except FileExistsError:
            raise taken from None
        except OSError:  # a file system without hard links
            with _alone_in(self.path.parent):
                if os.path.lexists(self.path):
                    raise taken from None
                os.rename(self.place, self.path)

    def _move_directory(self) -> None:
        if self.force and os.path.lexists(self.path):
            os.rename(self.path, self._directory / _REPLACED)
        try:
            os.rename(self.place, self.path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise OutputError(
                "appeared while this run was writing", path=self.path, remedy="choose another name"
            ) from None

    def discard(self) -> None:
        """Remove an output that has not been moved to its name; may be called again."""
        if self._lock < 0:
            return
        with suppress(OSError):  # the next run with this output tries again
            _remove(self._directory)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


@contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[Path]:
    """Write a file completely or not at all; an existing file is replaced.

    Yields
    ------
    Path
        Where to write.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    with PartialFile(path, force=True) as partial:
        with naming(path):
            yield partial.place
        partial.commit(sync=sync)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8 completely or not at all; an existing file is replaced.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    with replacing(path) as place:
        place.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: str | Path, values: Mapping[str, Any]) -> None:
    """Write plain values as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def refuse_existing(*paths: Path | None, force: bool = False) -> None:
    """Refuse outputs that exist, before the work that makes them.

    Raises
    ------
    OutputError
        One of them exists, and may not be replaced.
    """
    for path in paths:
        if path is not None and not force and os.path.lexists(path):
            raise _existing(path)


def _existing(path: str | Path) -> OutputError:
    return OutputError("exists already", path=path, remedy="add --force to replace it")


def remove(directory: Path, *names: str) -> None:
    """Remove these files of a directory, if they exist.

    Raises
    ------
    OutputError
        They cannot be removed.
    """
    for name in names:
        with naming(directory / name):
            (directory / name).unlink(missing_ok=True)


def make_readable(path: Path) -> None:
    """Permissions of a new file as the user's umask has them."""
    mask = os.umask(0o022)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Turn errors of the operating system (a full disk, no permission) into OutputError.

    Errors of a writer name the final file instead of the unfinished one.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            path=path,
            remedy=_REMEDIES.get(error.errno or 0, "choose another place"),
        ) from error
    except OutputError as error:
        error.path = Path(path)
        raise


def _short(name: bytes) -> str:
    """The name, or its end and a hash of it if it is too long for one with a prefix."""
    if len(name) > _LONGEST:
        name = hashlib.sha256(name).hexdigest()[:16].encode() + b"-" + name[-_LONGEST + 17 :]
    return os.fsdecode(name)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Prevent other runs from starting an output in the directory, for moments only."""
    try:
        gate = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError: # the directory may be writable but not readable
        yield
        return
    try:
        until = time.monotonic() + _WAIT
        while locks.take(gate) is False and time.monotonic() < until:
            time.sleep(0.01)
        yield
    finally:
        os.close(gate)


def _remove_abandoned(path: Path) -> bool:
    """Remove the remains of killed runs of this output; whether another run is writing it."""
    ending = f"-{_short(path.name.encode(errors='surrogateescape'))}"
    length = len(PREFIX) + 16 + len(ending)
    try:
        with os.scandir(path.parent) as entries:
            names = [e.name for e in entries if len(e.name) == length]
    except PermissionError:
        return False
    found = [n for n in names if n.startswith(PREFIX) and n.endswith(ending)]
    return any([_in_use(path.parent / name) for name in found])


def _in_use(directory: Path) -> bool:
    """Remove an unfinished output unless a run still writes it."""
    try:
        about = os.lstat(directory)
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            return False
        try:
            lock = os.open(directory / _LOCK, _OPEN)
        except FileNotFoundError: # the run was killed at its start or end
            with suppress(OSError):
                os.rmdir(directory)
            return False
        try:
            locked = locks.take(lock)
            if locked is False:
                return True
            # Locks may work on one machine only, or not at all.
            told = locked is True and locks.is_of_this_machine(lock)
            if not told and locks.is_alive(lock) and _age(directory) < _IDLE:
                return True
            _remove(directory)
        finally:
            os.close(lock)
    except OSError: # removed already, or owned by another run
        return False
    return False


def _age(directory: Path) -> float:
    """Seconds since anything in a directory changed."""
    last = [e.stat(follow_symlinks=False).st_mtime for e in os.scandir(directory)]
    return time.time() - max(last, default=0.0)


def _remove(directory: Path) -> None:
    """Remove the directory of an unfinished output, its lock last."""
    for entry in os.scandir(directory):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != _LOCK:
            os.unlink(entry.path)
    os.unlink(directory / _LOCK)
    os.rmdir(directory)


def _sync(path: Path) -> None:
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
