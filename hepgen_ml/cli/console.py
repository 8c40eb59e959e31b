"""Errors as one line with their exit code, and the standard streams of the command line."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

import typer

from hepgen_ml.cli.quantities import file_size
from hepgen_ml.errors import NOTE, HepgenError, InputError, OutputError, UsageError
from hepgen_ml.files.streams import is_standard_output, is_stream
from hepgen_ml.training.launched import SPEAKS, launched

if TYPE_CHECKING:
    from rich.console import Console


_POLITENESS = 3.0
"""Seconds in which the first process of a training may say what all have to say."""

EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it: stops at the same places as Ctrl-C."""


def _log_to_stderr(level: int) -> None:
    for name in ("hepgen_ml", "hepgen_adapters"):
        logger = logging.getLogger(name)
        logger.handlers = [_LineHandler()]
        logger.setLevel(level)


def result_line(text: str, out: Iterable[str | Path]) -> None:
    """Print a line about outputs; on stderr where one of them is standard output itself."""
    typer.echo(text, err=any(map(is_standard_output, out)))


def size_of(path: Path) -> str:
    """Size of an output that has been written, or the kind of a pipe."""
    try:
        return "a pipe" if is_stream(path) else file_size(path.stat().st_size)
    except FileNotFoundError:  # as a named pipe often is once its reader has all events
        return "removed since"


class _LineHandler(logging.Handler):
    """Log records as plain lines; rich moves a running progress bar out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "note" if record.levelno == NOTE else record.levelname.lower()
        text = f"{level}: {record.getMessage()}"
        typer.secho(text, err=True, fg="yellow" if record.levelno >= logging.WARNING else None)


def kept(out: Path | None) -> str:
    """Message on what an interrupted training has left in its directory."""
    names = ("checkpoint.safetensors", "member-*/checkpoint.safetensors")
    if out is not None and any(any(out.glob(name)) for name in names):
        return f"{out} keeps the last checkpoint; go on with --resume"
    return "no checkpoint was written yet, nothing is kept"


def error_line(text: object) -> None:
    """Print one line on stderr, red on a terminal."""
    typer.secho(" ".join(f"error: {text}".split()), err=True, fg="red")


@contextmanager
def reporting(
    kept: Callable[[], str] = lambda: "nothing was changed",
    *,
    verbose: bool = False,
    debug: bool = False,
    together: bool = False,
) -> Iterator[None]:
    """Turn exceptions into a one-line message and the documented exit code.

    Parameters
    ----------
    kept : callable
        Called after an interrupt; returns a message about the work that was saved.
    verbose, debug : bool
        How much to log, and whether to show tracebacks.
    together : bool
        Whether this is one of several processes of torchrun: the first one prints all messages, the
        others only their own errors.

    Raises
    ------
    typer.Exit
        With the exit code of the error (see docs/cli.md).
    """
    level = logging.DEBUG if debug else logging.INFO if verbose else NOTE
    first = not together or is_first()
    _log_to_stderr(level if first else logging.CRITICAL)
    if together:
        # torch, which is loaded later, tells of the end of each connection with pages of addresses
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
        sys.stdout.flush()
    except HepgenError as error:
        if debug:
            traceback.print_exc()
        if _speaks(error, first):
            error_line(_from(error) if together else error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as stop:
        ended = isinstance(stop, Terminated)
        if first:
            error_line(f"{'terminated' if ended else 'interrupted'}: {kept()}")
        raise typer.Exit(EXIT_TERMINATED if ended else EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining at exit.
        _write_nowhere()
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise typer.Exit(_unwritable(error)) from None
        if isinstance(error, OSError) and error.errno in _NO_ACCESS and error.filename:
            error_line(InputError(f"no access: {error.strerror}", path=error.filename))
            raise typer.Exit(InputError.exit_code) from None
        hint = "please report it" + ("" if debug else " with the output of --debug")
        error_line(f"internal: {type(error).__name__}: {_from(error)} ({hint})")
        raise typer.Exit(EXIT_DEFECT) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def is_first() -> bool:
    """Whether this is the first process of torchrun, or the only process."""
    try:
        return launched().rank == 0
    except UsageError:  # this process reports it
        return True


def _speaks(error: BaseException, first: bool) -> bool:
    """Whether this process tells of an error.

    Processes that have met decide who does. Before that each may have the same error, which the
    first one tells; then torchrun ends the others. Who is still there has one of its own.
    """
    if hasattr(error, SPEAKS):
        return bool(getattr(error, SPEAKS))
    if first:
        return True
    try:
        time.sleep(_POLITENESS)
    except KeyboardInterrupt:
        return False
    return True


def _from(error: BaseException) -> str:
    """An error with the process that it comes from, where that is not the first."""
    if is_first():
        return str(error)
    place = launched()
    return f"process {place.rank} of {place.size}: {error}"


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def _unwritable(error: OSError) -> int:
    """Say that output cannot be written; the exit code for it."""
    where = error.filename or "standard output or a temporary file"
    _write_nowhere()
    error_line(OutputError(f"cannot write to {where}: {error.strerror}", remedy="free some space"))
    return OutputError.exit_code


def _write_nowhere() -> None:
    """Discard the rest of standard output, including messages of the interpreter at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_streams() -> None:
    """Make output possible for any state of the standard streams.

    Closed streams are redirected to the null device, because an event file could otherwise get
    their descriptor and receive printed text; characters that an encoding lacks are replaced.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest free number: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def run(program: Callable[[], object]) -> NoReturn:
    """Run a command-line program and exit; incomplete output is an error.

    Parameters
    ----------
    program : callable
        Raises SystemExit, or returns when all is well.
    """
    prepare_streams()
    code: Any = 0
    try:
        try:
            program()
        except SystemExit as done:
            code = done.code
        sys.stdout.flush()
    except BrokenPipeError:
        _write_nowhere()
        code = EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        error_line("interrupted: nothing was changed")
        code = EXIT_INTERRUPTED
    except OSError as error:
        code = _unwritable(error)
    sys.exit(code)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


def stdout_console() -> Console:
    """Console for tables; wide where the output is not a terminal, so that nothing is cut."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    if sys.stdout.isatty():
        return _Console(highlight=False)
    return _Console(highlight=False, width=200, file=cast(IO[str], _WithoutPadding()))


class _WithoutPadding:
    """Standard output without the blanks with which rich fills the lines of tables."""

    def write(self, text: str) -> None:
        sys.stdout.write(re.sub(" +$", "", text, flags=re.MULTILINE))

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)
