"""Files of the parts of one run, or of several, joined into one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.conversion import Conversion, Progress, convert_events
from hepgen_ml.events.formats import expand
from hepgen_ml.events.sample import EventSample
from hepgen_ml.events.source import EventSource

_COMPARED = 20
"""Number of first events of each file that are searched in all events of the others."""

_TELLING = ("pdg_id", "px", "py", "pz", "energy")
"""Columns of particles that identify events."""

_PRIME, _ODD = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


def merge(
    source: str | Path | Sequence[str | Path],
    out: str | Path | Sequence[str | Path],
    *,
    force: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Join files into one, in chunks.

    Parts of one run (shards, partitions, jobs of one gridpack) keep their cross section and its
    error; cross sections of independent runs of the same processes are averaged, those of
    different processes add (`hepgen_ml.events.merging`). The parts of one run in their order are
    the run itself.

    Parameters
    ----------
    source : path or glob pattern, or several
        Taken in the order of the numbers in their names: ``part-2`` before ``part-10``.
    out, force, format, progress
        As of `hepgen_ml.convert`.

    Raises
    ------
    InputError, SampleError
        A file cannot be read to its end, or the files do not belong together.
    SampleError
        Two files hold the same events: the first ones of a file are among those of another.
    OutputError
        An output exists or cannot hold such events.
    """
    paths = sorted(expand([source] if isinstance(source, str | Path) else source), key=_in_order)
    outputs = [Path(p) for p in ([out] if isinstance(out, str | Path) else out)]
    for path in paths:
        if any(o.exists() and path.samefile(o) for o in outputs):
            what = "is an input and the output"
            raise UsageError(what, path=path, remedy="choose another name for the output")
    return convert_events(_Parts(paths), out, force=force, format=format, progress=progress)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(pieces)]


class _Parts(EventSource):
    """Files of which no two hold the same events.

    The memory is a few numbers for each file, independent of its number of events.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._heads: dict[int, npt.NDArray[np.uint64]] = {}
        self._begins: dict[int, list[int]] = {}  # files by their first event
        super().__init__(paths)
        self._first = np.array(sorted(self._begins), dtype=np.uint64)

    def _looked_at(self, number: int, first: EventSample) -> None:
        super()._looked_at(number, first)
        head = _fingerprints(first)[:_COMPARED]
        # events that repeat within a file, as those of a particle gun do, are no evidence
        if not len(head) or (len(head) > 1 and len(np.unique(head)) == 1):
            return
        same = self._begins.setdefault(int(head[0]), [])
        for other in same:
            if np.array_equal(self._heads[other], head):
                raise self._twice(number, "holds the events of", other)
        same.append(number)
        self._heads[number] = head

    def raw(self) -> Iterator[tuple[int, EventSample]]:
        for number, chunk in super().raw():
            if len(self._first):
                self._compare(number, _fingerprints(chunk))
            yield number, chunk

    def _compare(self, number: int, events: npt.NDArray[np.uint64]) -> None:
        """Look for the first events of the other files."""
        for place in np.flatnonzero(np.isin(events, self._first)).tolist():
            for other in self._begins[int(events[place])]:
                head = self._heads[other][: len(events) - place]
                if other != number and np.array_equal(head, events[place : place + len(head)]):
                    raise self._twice(number, "holds the first events of", other)

    def _twice(self, number: int, what: str, other: int) -> SampleError:
        return SampleError(
            f"{what} {self.paths[other]}", path=self.paths[number],
            remedy="take one of them; jobs need seeds or shards of their own",
        )  # fmt: skip


def _fingerprints(sample: EventSample) -> npt.NDArray[np.uint64]:
    """Hash of the particles of each event that has any."""
    starts = sample.offsets[:-1].astype(np.int64)
    rows = np.zeros(int(sample.offsets[-1]), dtype=np.uint64)
    for name in _TELLING:
        if name in sample.particles:
            column = sample.particles[name].astype(np.float64) + 0.0  # one zero, not two
            rows = (rows ^ column.view(np.uint64)) * _PRIME
            rows ^= rows >> np.uint64(29)
    place = np.arange(len(rows), dtype=np.int64) - np.repeat(starts, sample.counts)
    rows *= 2 * place.astype(np.uint64) + _ODD
    rows ^= rows >> np.uint64(32)
    occupied = sample.counts > 0
    if not occupied.any():
        return np.zeros(0, dtype=np.uint64)
    return np.add.reduceat(rows, starts[occupied])
