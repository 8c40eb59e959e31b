"""Named errors: what was found, where, and what to do about it.

Each class carries the exit code that the command line returns for it, so that
scripts and batch systems can tell the kinds apart (documented in docs/cli.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOTE = 25
"""Level of log records that say what was decided: always shown, and no warning."""


class HepgenError(Exception):
    """Base class of every error a user can meet.

    Parameters
    ----------
    message : str
        What was found.
    remedy : str, optional
        What to do about it.
    path : path-like, optional
        The file or directory concerned.
    event : int, optional
        Event number, counted from 1 in the order of the file.
    line : int, optional
        Line number in the (decompressed) file, counted from 1.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        path: str | Path | None = None,
        event: int | None = None,
        line: int | None = None,
    ) -> None:
        self.message = message
        self.remedy = remedy
        self.path = None if path is None else Path(path)
        self.event = event
        self.line = line
        super().__init__(str(self))

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: "
        if self.event is not None:
            where += f"event {self.event}: "
        if self.line is not None:
            where += f"line {self.line}: "
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class UsageError(HepgenError):
    """Options that contradict each other or name something unknown."""

    exit_code = 2


class InputError(HepgenError):
    """A file that is missing, truncated, malformed or of another format."""

    exit_code = 3


class SampleError(HepgenError):
    """A readable sample that cannot be trained on (too small, mixed, broken)."""

    exit_code = 4


class ModelError(HepgenError):
    """A model directory that is missing, damaged or from a newer version."""

    exit_code = 5


class OutputError(HepgenError):
    """An output that exists, cannot be written, or would be incomplete."""

    exit_code = 6


class PipeClosedError(OutputError):
    """The program that reads an output has ended before its last event."""

    exit_code = 141


@contextmanager
def about(path: Path | None, *kinds: type[HepgenError]) -> Iterator[None]:
    """Errors of these kinds that name no file or directory are about this one."""
    try:
        yield
    except kinds as error:
        if error.path is None:
            error.path = path
        raise
