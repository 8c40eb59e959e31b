"""Reading and writing event files through plugins.

The core knows no file format. A format is an object found through the
entry-point group ``hepgen_ml.formats``; anyone may add one. It has the
attributes and methods of `Format`; those that cannot read or cannot write
raise `UsageError` from the method concerned.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import Any

from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK as DEFAULT_CHUNK
from hepgen_ml.events.interfaces import Format, Reader, Writer
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate
from hepgen_ml.events.weights import WeightSums, les_houches, multiply_weights
from hepgen_ml.files.outputs import PartialFile, naming
from hepgen_ml.files.streams import Stream, is_stream

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "hepgen_ml.formats"


def available_formats() -> dict[str, Format]:
    """All installed formats by name; a plugin that cannot be imported is left out."""
    formats: dict[str, Format] = {}
    for entry in _entries(tuple(sys.path)):
        try:
            formats[entry.name] = entry.load()()
        except ImportError as error:
            log.warning("format %s is not available: %s", entry.name, error)
    return formats


@functools.cache
def _entries(path: tuple[str, ...]) -> list[EntryPoint]:
    """Entry points of formats; finding them reads the metadata of all installed packages."""
    return sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)


def format_of(path: str | Path) -> Format:
    """Format for a file name, by the longest matching suffix.

    Raises
    ------
    UsageError
        No installed format has this suffix.
    """
    formats = available_formats()
    name = Path(path).name.lower()
    matches = [(len(s), f) for f in formats.values() for s in f.suffixes if name.endswith(s)]
    if not matches:
        known = ", ".join(s for f in formats.values() for s in f.suffixes)
        remedy = f"use one of: {known}" if known else "none is installed: pip install hepgen-ml"
        raise UsageError("unknown file type", path=path, remedy=remedy)
    return max(matches, key=lambda match: match[0])[1]


def output_format(path: str | Path, name: str | None = None) -> tuple[Format, str]:
    """Format of an output, and the suffix of such a file.

    Parameters
    ----------
    path : path-like
        A file, or ``-`` or another stream (`hepgen_ml.files.streams`).
    name : str, optional
        Format of a stream without a suffix, as this suffix: ``lhe``, ``hepmc.gz``.

    Raises
    ------
    UsageError
        The format is not known, is named for a file, or cannot be written to a stream.
    """
    if not is_stream(path):
        fmt = format_of(path)
        return fmt, max((s for s in fmt.suffixes if Path(path).name.lower().endswith(s)), key=len)
    known = {
        suffix.removeprefix("."): (fmt, suffix)
        for fmt in available_formats().values()
        if getattr(fmt, "streams", False)
        for suffix in fmt.suffixes
    }
    if name is None:
        matches = [s for s in known if Path(path).name.lower().endswith("." + s)]
        if not matches:
            what = "needs a format: its name ends in none that can be written to a pipe"
            raise UsageError(what, path=path, remedy=f"add --format: {', '.join(known)}")
        name = max(matches, key=len)
    if name.lower() not in known:
        what = f"format {name!r} cannot be written to a pipe"
        raise UsageError(what, path=path, remedy=f"use one of: {', '.join(known)}")
    return known[name.lower()]


def has_free_weights(fmt: Format) -> bool:
    """Whether weights of a format may have any scale (`Format.free_weights`, by default not)."""
    return bool(getattr(fmt, "free_weights", False))


def open_sample(
    path: str | Path, *, skip_bad: bool = False, selection: Selection | None = None
) -> Reader:
    """Open an event file for reading in chunks.

    Parameters
    ----------
    path : path-like
    skip_bad : bool
        Leave out events that cannot be understood instead of raising; a file
        with more bad events than good ones is refused all the same.
    selection : Selection, optional
        Objects to read, from files that hold or can give them.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise InputError("no such file", path=path, remedy="check the path")
    if not (os.path.isfile(path) or os.path.isdir(path)):
        # opening a pipe without a writer would block forever
        raise InputError(
            "is a pipe or a device, and files are read more than once", path=path,
            remedy="write the events to a file first",
        )  # fmt: skip
    return format_of(path).open(path, skip_bad=skip_bad, selection=selection)


def expand(patterns: Sequence[str | Path]) -> list[Path]:
    """File names from names and glob patterns, each once, in order."""
    paths: dict[Path, None] = {}
    repeated: dict[Path, None] = {}
    for pattern in patterns:
        text = os.path.expanduser(str(pattern))
        found = [text] if os.path.exists(text) else sorted(glob.glob(text))
        if not found:
            raise InputError("no such file", path=text, remedy="check the path or pattern")
        repeated.update(dict.fromkeys(path for path in map(Path, found) if path in paths))
        paths.update(dict.fromkeys(map(Path, found)))
    if repeated:
        more = f" and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        log.warning("%s%s: named more than once, counted once", next(iter(repeated)), more)
    return list(paths)


def read(
    path: str | Path | Sequence[str | Path],
    *,
    skip_bad: bool = False,
    max_events: int | None = None,
    selection: Selection | None = None,
) -> EventSample:
    """Read whole files into memory.

    Parameters
    ----------
    path : path-like or sequence of path-like
        Files or glob patterns; their events are joined under the run
        information of the first (see `hepgen_ml.events.merging` for combining runs).
    skip_bad : bool
        Leave out events that cannot be understood.
    max_events : int, optional
        Stop after so many events.
    selection : Selection, optional
        Objects to read: ``Selection(parse_objects("Muon:2,Jet:0-10"))``.
    """
    paths = expand([path] if isinstance(path, str | Path) else path)
    parts: list[EventSample] = []
    n_read = 0
    run: RunInfo | None = None
    for one in paths:
        reader = open_sample(one, skip_bad=skip_bad, selection=selection)
        try:
            run = run or reader.run
            if reader.run.shard != run.shard:
                run = run.with_(shard=None)
            for chunk in reader.chunks():
                parts.append(chunk)
                n_read += len(chunk)
                if max_events is not None and n_read >= max_events:
                    break
        finally:
            reader.close()
        if max_events is not None and n_read >= max_events:
            break
    if not parts:
        raise InputError("holds no events", path=paths[0], remedy="check how it was made")
    sample = concatenate(parts, run)
    return sample if max_events is None else sample[:max_events]


class AtomicWriter:
    """Write several files at once; each appears under its final name only when complete.

    Used as a context manager. On any error the partial files are removed and existing files of the
    final names are kept (`hepgen_ml.files.outputs`).

    Parameters
    ----------
    paths : sequence of path-like
        Streams, including ``-``, receive their events immediately.
    run : RunInfo
    n_events : int, optional
        Number of events that will be written; fewer are an error. None for any number.
    force : bool
        Replace existing files.
    format : str, optional
        Of streams (`output_format`).
    options : mapping, optional
        Passed to every format.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        run: RunInfo,
        n_events: int | None,
        *,
        force: bool = False,
        format: str | None = None,
        **options: Any,
    ) -> None:
        self.paths = [Path(p) for p in paths]
        places = {Path(os.path.realpath(p.parent), p.name) for p in self.paths}
        if len(places) < len(self.paths):
            raise UsageError("the same output is named twice", remedy="name each output once")
        self.n_events, self.n_written = n_events, 0
        found = {path: output_format(path, format) for path in self.paths}
        self.formats = [found[path][0] for path in self.paths]
        self._partial: dict[Path, PartialFile | Stream] = {}
        self._writers: list[Writer] = []
        try:
            # The same order in all runs, so that one of two runs with the same outputs gets all
            # locks.
            for path in sorted(self.paths):
                if is_stream(path):
                    self._partial[path] = Stream(path, found[path][1])
                else:
                    self._partial[path] = PartialFile(path, force=force)
            for path, fmt in zip(self.paths, self.formats, strict=True):
                with naming(path):
                    place = self._partial[path].place
                    self._writers.append(fmt.create(place, run, n_events, **options))
        except BaseException:
            self._discard()
            raise

    def write(self, sample: EventSample) -> None:
        """Append a chunk to every file."""
        for path, writer in zip(self.paths, self._writers, strict=True):
            with naming(path):
                writer.write(sample)
        for stream in self._streams():
            stream.check()
        self.n_written += len(sample)

    def set_run(self, run: RunInfo) -> None:
        """Replace the run information in formats that write it last."""
        for writer, fmt in zip(self._writers, self.formats, strict=True):
            if fmt.run_last:
                writer.run = run

    def __enter__(self) -> AtomicWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._discard()
            return
        try:
            if self.n_events is not None and self.n_written != self.n_events:
                raise OutputError(
                    f"{self.n_written} events instead of the {self.n_events} asked for",
                    path=self.paths[0],
                    remedy="nothing was written; this is a defect, please report it",
                )
            for path, writer in zip(self.paths, self._writers, strict=True):
                with naming(path):
                    writer.close()
            for stream in self._streams():  # no file appears where one fails
                stream.commit()
            for partial in self._partial.values():
                if isinstance(partial, PartialFile):
                    partial.commit()
        except BaseException:
            self._discard()
            raise

    def _streams(self) -> list[Stream]:
        return [p for p in self._partial.values() if isinstance(p, Stream)]

    def _discard(self) -> None:
        for stream in self._streams():
            stream.cut()
        for writer in self._writers:
            with suppress(Exception): # the partial file is removed next
                writer.close()
        for partial in self._partial.values():
            partial.discard()


def write(sample: EventSample, path: str | Path, *, force: bool = False, **options: Any) -> None:
    """Write a sample to a file whose format follows from its name.

    Weights of different size under strategy ±3, as partially unweighted events have them, become
    those of strategy -4 in formats that keep only their sign: their mean is the cross section.

    Parameters
    ----------
    sample : EventSample
    path : path-like
    force : bool
        Replace an existing file.
    **options
        Passed to the format's writer.
    """
    run, factor = sample.run, 1.0
    if abs(run.weight_strategy) == 3 and not has_free_weights(format_of(path)):
        sums = WeightSums.of([sample])
        if not sums.equal:
            with naming(Path(path)):
                run, factor = les_houches(run, sums, stated=True)
    with AtomicWriter([path], run, len(sample), force=force, **options) as out:
        for chunk in sample.chunks(DEFAULT_CHUNK):
            multiply_weights(chunk, factor)
            out.write(chunk)
