"""Interfaces of file formats, their readers and their writers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hepgen_ml.errors import InputError
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, RunInfo

DEFAULT_CHUNK = 20_000


class Reader(Protocol):
    """An opened event file.

    Attributes
    ----------
    run : RunInfo
        Known as soon as the file is open.
    skipped : list of InputError
        Bad events left out so far (``skip_bad``), each with path, event and line.
    n_skipped : int
        Number of these events; the list itself stays short.
    n_unselected : int
        Events left out so far because their numbers of objects are not those of the selection.
    unselected_weight : float
        Sum of their weights. Their cross section is not subtracted from that of `run`, which is
        always that of the whole file.
    left_out : sequence of str
        Known parts of the file that its events do not contain; complete after the last event.
    states_strategy : bool, optional
        Whether ``run.weight_strategy`` was stated by the source; by default not in a format with
        `Format.free_weights`, because files of other programs state no strategy.
    also_read : callable, optional
        Accepts names of further values of events, which become attributes if the file has them.
    """

    run: RunInfo
    skipped: list[InputError]
    n_skipped: int

    @property
    def n_unselected(self) -> int: ...

    @property
    def unselected_weight(self) -> float: ...

    @property
    def left_out(self) -> Sequence[str]: ...

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, `size` at a time; memory does not grow with the file."""

    def close(self) -> None: ...


class Writer(Protocol):
    """An output file being written.

    Attributes
    ----------
    run : RunInfo
        May be replaced before `close` where the format has ``run_last``.
    """

    run: RunInfo

    def write(self, sample: EventSample) -> None:
        """Append the events of one chunk; all chunks have the same columns."""

    def close(self) -> None:
        """Finish the file."""


@runtime_checkable
class Format(Protocol):
    """A file format.

    Attributes
    ----------
    name : str
    suffixes : tuple of str
        Including compression: ``(".lhe", ".lhe.gz")``.
    needs_n_events : bool
        Whether the number of events must be known before a file is started.
    run_last : bool
        Whether the run information is written last.
    free_weights : bool, optional
        Whether weights may have any scale, because only their sum counts, and process numbers need
        no declaration. Otherwise both follow the Les Houches accord: unit weights under strategy 3,
        weights with the cross section as their mean under strategy 4.
    streams : bool, optional
        Whether files are written sequentially, so that the output may be a pipe.
    """

    name: str
    suffixes: tuple[str, ...]
    needs_n_events: bool
    run_last: bool

    def open(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> Reader:
        """Open for reading.

        Raises
        ------
        InputError
            Anything that is not this format.
        UsageError
            A selection that this format cannot apply.
        """

    def create(self, path: Path, run: RunInfo, n_events: int | None, **options: Any) -> Writer:
        """Begin a file that will hold `n_events` events; `path` may be a temporary name."""

    def cannot_hold(self, sample: EventSample) -> list[str]:
        """Parts of a sample and its run that this format loses, one line each.

        Raises
        ------
        OutputError
            The format cannot hold such a sample.
        """
