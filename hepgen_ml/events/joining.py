"""Files of the parts of one run, or of several, joined into one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.conversion import Conversion, Progress, convert_events
from hepgen_ml.events.formats import expand
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.events.source import EventSource

_NAMED = 8  # shards that a message names

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
    incomplete: bool = False,
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
    incomplete : bool
        Join shards of `generate` even if some of them are missing or there more often than others.

    Raises
    ------
    InputError, SampleError
        A file cannot be read to its end, or the files do not belong together.
    SampleError
        Two files hold the same events: the first ones of a file are among those of another. Or
        the shards of a run are not complete; files of earlier versions do not say what they are.
    OutputError
        An output exists or cannot hold such events.
    """
    paths = sorted(expand([source] if isinstance(source, str | Path) else source), key=_in_order)
    outputs = [Path(p) for p in ([out] if isinstance(out, str | Path) else out)]
    for path in paths:
        if any(o.exists() and path.samefile(o) for o in outputs):
            what = "is an input and the output"
            raise UsageError(what, path=path, remedy="choose another name for the output")
    parts = _Parts(paths, incomplete)
    return convert_events(parts, out, force=force, format=format, progress=progress)


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Key that sorts names by the numbers in them."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(pieces)]


class _Parts(EventSource):
    """Files of which no two hold the same events, and no shard is missing.

    The memory is a few numbers for each file, independent of its number of events.
    """

    def __init__(self, paths: Sequence[Path], incomplete: bool) -> None:
        self._heads: dict[int, npt.NDArray[np.uint64]] = {}
        self._begins: dict[int, list[int]] = {}  # files by their first event
        super().__init__(paths)
        if not incomplete:
            _require_all_shards(self.runs, self.paths)
        # also of a single file: what is joined is no shard
        self.merged = replace(self.merged, run=self.merged.run.with_(shard=None))
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


def _require_all_shards(runs: Sequence[RunInfo], paths: Sequence[Path]) -> None:
    """Refuse shards of a run of which others are missing, or there more often.

    Several runs of the same number of events, such as those with other seeds, count together.
    """
    found: dict[tuple[str, int], dict[int, list[Path]]] = {}
    for run, path in zip(runs, paths, strict=True):
        if (shard := run.shard) is not None:
            of_run = found.setdefault((shard.request, shard.number), {})
            of_run.setdefault(shard.index, []).append(path)
    for (_, number), of_run in found.items():
        one = next(iter(of_run.values()))[0]
        if n_missing := number - len(of_run):
            missing = map(str, islice((i for i in range(number) if i not in of_run), _NAMED))
            names = ", ".join(missing) + ", ..." * (n_missing > _NAMED)
            raise SampleError(
                f"is one of {number} shards, of which {n_missing} {_are(n_missing)} missing "
                f"(counted from 0: {names})",
                path=one,
                remedy=f"generate them, with --shard i/{number} and the options of the others; or "
                "join without them, with --incomplete, also if a file is several shards "
                "one behind the other",
            )
        times = Counter({index: len(files) for index, files in of_run.items()})
        (often, most), fewest = times.most_common(1)[0], min(times.values())
        if fewest < most:
            first, *_, last = of_run[often]
            raise SampleError(
                f"is shard {often} of {number}, as is {first}; others are there "
                f"{'once' if fewest == 1 else f'{fewest} times'}",
                path=last,
                remedy="take one of them; or join nevertheless, with --incomplete",
            )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


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
