"""What the command line shows: errors as one line, progress, sizes and times."""

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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from hepgen_ml.errors import NOTE, HepgenError, InputError, OutputError, UsageError
from hepgen_ml.files.streams import is_standard_output, is_stream

if TYPE_CHECKING:
    from rich.console import Console

    from hepgen_ml.events.sample import EventSample

EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143
LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal
BRIEF = 1.0  # seconds; shorter stages get no line at all there


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
    """Size of an output that has been written; of a pipe, what it is."""
    return "a pipe" if is_stream(path) else file_size(path.stat().st_size)


class _LineHandler(logging.Handler):
    """Log records as plain lines; rich moves a running progress bar out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "note" if record.levelno == NOTE else record.levelname.lower()
        text = f"{level}: {record.getMessage()}"
        typer.secho(text, err=True, fg="yellow" if record.levelno >= logging.WARNING else None)


def error_line(text: object) -> None:
    """Print one line on stderr, red on a terminal."""
    typer.secho(" ".join(f"error: {text}".split()), err=True, fg="red")


@contextmanager
def reporting(
    kept: Callable[[], str] = lambda: "nothing was changed",
    *,
    verbose: bool = False,
    debug: bool = False,
) -> Iterator[None]:
    """Turn what goes wrong inside into one line and the documented exit code.

    Parameters
    ----------
    kept : callable
        Called after an interrupt; says what is left of the work.
    verbose, debug : bool
        How much to log, and whether to show tracebacks.

    Raises
    ------
    typer.Exit
        With the exit code of the error (see docs/cli.md).
    """
    _log_to_stderr(logging.DEBUG if debug else logging.INFO if verbose else NOTE)
    previous = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
        sys.stdout.flush()
    except HepgenError as error:
        if debug:
            traceback.print_exc()
        error_line(error)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt as stop:
        ended = isinstance(stop, Terminated)
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
        error_line(f"internal: {type(error).__name__}: {error} ({hint})")
        raise typer.Exit(EXIT_DEFECT) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def _unwritable(error: OSError) -> int:
    """Say that output cannot be written; the exit code for it."""
    where = error.filename or "standard output or a temporary file"
    _write_nowhere()
    error_line(OutputError(f"cannot write to {where}: {error.strerror}", remedy="free some space"))
    return OutputError.exit_code


def _write_nowhere() -> None:
    """Let what is left of standard output vanish, the interpreter's last words too."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def prepare_streams() -> None:
    """Make output possible whatever standard streams the program was started with.

    Streams that are closed lead nowhere (or an event file would take their place and get what is
    printed); characters that an encoding does not have are replaced.
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
    """Run a command-line program and exit; its output has arrived, or there is an error.

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

    return _Console(highlight=False, width=None if sys.stdout.isatty() else 200)


@dataclass
class _Stage:
    """Where one stage of a job stands."""

    begun: float
    first: float
    at: float
    done: float = 0.0
    total: float | None = None
    info: Mapping[str, float] = field(default_factory=dict)
    shown_at: float = 0.0
    shown: float = -1.0
    bar: Any = None

    def line(self, unit: str) -> str:
        """Amount, rate and remaining time first: a narrow terminal cuts the end."""
        elapsed, advanced, info = self.at - self.begun, self.done - self.first, dict(self.info)
        if unit == "%":
            parts = [f"{100 * self.done / (self.total or 1.0):.0f} %"]
        else:
            of = "" if self.total is None else f" of {self.total:,.0f}"
            parts = [f"{self.done:,.0f}{of} {unit}"]
            if elapsed > 0 and unit == "events" and advanced > 0:
                info.setdefault("events_per_s", advanced / elapsed)
        if "events_per_s" in info:
            parts.append(f"{info.pop('events_per_s'):,.0f} events/s")
        if self.total is not None and advanced > 0 and self.done < self.total:
            parts.append(f"{duration(elapsed * (self.total - self.done) / advanced)} left")
        for name, value in info.items():
            digits = (
                f"{value:,.0f}" if value == round(value) or abs(value) >= 1e4 else f"{value:.4g}"
            )
            parts.append(f"{name} {digits}")
        return ", ".join(parts)


class Progress:
    """Progress of a long job: bars on a terminal, lines elsewhere.

    Used as a context manager and called as ``progress(stage, done, total, info)``,
    any number of times; `total` is None while unknown.

    Parameters
    ----------
    units : mapping of str to str
        What each stage counts: ``%``, or ``events`` where nothing is said.
    """

    def __init__(self, units: Mapping[str, str] | None = None) -> None:
        self._units = units or {}
        self._bars: Any = None
        self._stages: dict[str, _Stage] = {}

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars
            from rich.table import Column

            self._bars = Bars(
                TextColumn("{task.description:<8}", table_column=Column(min_width=8)),
                BarColumn(bar_width=12, table_column=Column(min_width=12)),
                TextColumn("{task.fields[line]}", table_column=Column(no_wrap=True, ratio=1)),
                console=Console(stderr=True, highlight=False),
            )
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            return
        for name, stage in self._stages.items():
            if stage.shown != stage.done and stage.at - stage.begun >= BRIEF:
                self._print(name, stage)

    def __call__(
        self, stage: str, done: float, total: float | None, info: Mapping[str, float] | None = None
    ) -> None:
        now = time.monotonic()
        if stage not in self._stages:
            # A resumed job starts with something done; a short one is complete at once.
            first = done if total is not None and done < total else 0.0
            self._stages[stage] = _Stage(begun=now, first=first, at=now, shown_at=now)
        state = self._stages[stage]
        state.at, state.done, state.total, state.info = now, done, total, info or {}
        if self._bars is not None:
            line = state.line(self._units.get(stage, "events"))
            if state.bar is None:
                state.bar = self._bars.add_task(stage, total=total, line=line)
            self._bars.update(state.bar, completed=done, total=total, line=line)
        elif now - state.shown_at >= LINE_EVERY:
            self._print(stage, state)

    def _print(self, name: str, stage: _Stage) -> None:
        typer.echo(f"{name}: {stage.line(self._units.get(name, 'events'))}", err=True)
        stage.shown, stage.shown_at = stage.done, time.monotonic()


def counted(chunks: Iterable[EventSample], progress: Progress, stage: str) -> Iterator[EventSample]:
    """Pass chunks on and report how many events went by."""
    n = 0
    for chunk in chunks:
        n += len(chunk)
        progress(stage, n, None)
        yield chunk


_DURATION = re.compile(
    r"(?:(\d+(?:\.\d*)?)d)?(?:(\d+(?:\.\d*)?)h)?(?:(\d+(?:\.\d*)?)m)?(?:(\d+(?:\.\d*)?)s?)?"
)


def parse_duration(text: str) -> float:
    """Seconds in ``90s``, ``20m``, ``1h30m``, ``1d`` or a plain number of seconds.

    Raises
    ------
    UsageError
        Anything else, and nothing at all.

    Examples
    --------
    >>> parse_duration("1h30m")
    5400.0
    """
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if match is None or not any(match.groups()):
        raise UsageError(f"{text!r} is no time", remedy="write 90s, 20m or 1h30m")
    d, h, m, s = (float(part or 0) for part in match.groups())
    seconds = ((d * 24 + h) * 60 + m) * 60 + s
    if seconds <= 0:
        raise UsageError(f"{text!r} is no time to do anything in", remedy="write 90s, 20m or 1h30m")
    return seconds


def parse_shard(text: str) -> tuple[int, int]:
    """Index and number of shards in ``i/n``, i from 0.

    Raises
    ------
    UsageError
        Anything that is not 0 <= i < n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(
            f"{text!r} is no shard", remedy="write i/n with i from 0 to n-1: 0/8 … 7/8"
        )
    return int(match[1]), int(match[2])


def parse_count(text: str) -> int:
    """Positive whole number in ``50000``, ``50_000`` or ``5e4``.

    Raises
    ------
    UsageError
        Anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 2**53 or value != int(value):
        raise UsageError(f"{text!r} is no number of events", remedy="write 50000 or 5e4")
    return int(value)


def duration(seconds: float) -> str:
    """``1 h 02 min``, ``3 min 05 s`` or ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def file_size(n_bytes: float) -> str:
    """Size with a decimal prefix.

    Examples
    --------
    >>> file_size(2322547)
    '2.32 MB'
    """
    units = ("B", "kB", "MB", "GB", "TB")
    power = 0
    while n_bytes >= 1000 and power < len(units) - 1:
        n_bytes, power = n_bytes / 1000, power + 1
    return f"{n_bytes:.3g} {units[power]}"


def cross_section(value: float | None, error: float | None) -> str:
    """Cross section and error in pb, two digits of the error; None or nan where not known.

    Examples
    --------
    >>> cross_section(1078.6123, 0.4061)
    '1078.61 ± 0.41 pb'
    >>> cross_section(None, None)
    'not known'
    """
    from math import floor, isfinite, log10

    if value is None or not isfinite(value):
        return "not known"
    if error is None or not (isfinite(error) and error > 0):
        return f"{value:.6g} pb"
    digits = 1 - floor(log10(error))
    if -3 < digits < 8:
        return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f} pb"
    return f"{value:.6g} ± {error:.2g} pb"


def stated_cross_section(value: float, error: float) -> str:
    """`cross_section` where nothing beside it says what the number is."""
    text = cross_section(value, error)
    return f"cross section {text}" if text == "not known" else text
