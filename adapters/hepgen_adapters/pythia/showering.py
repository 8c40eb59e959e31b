"""Showers by Pythia, in several processes, to HepMC3 files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hepgen_adapters.hepmc.text import open_bytes
from hepgen_adapters.pythia.module import configured, load_pythia
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.generation.blocks import Counts
from hepgen_ml.generation.workers import Workers

Batch = tuple[bytes, int]
"""Text of showered events, and their number."""


@dataclass(frozen=True)
class Chunk:
    """Events that are showered together, with their number and their seed."""

    index: int
    events: EventSample
    seed: int


class Showering:
    """Pythia 8 as a shower program; see `hepgen_ml.generation.showering.ShowerProgram`."""

    def open(
        self, path: Path, run: RunInfo, names: Sequence[str], settings: Sequence[str], workers: int
    ) -> Session:
        """Begin a file; see `hepgen_ml.generation.showering.ShowerProgram`."""
        return Session(path, run, list(names), list(settings), workers)


class Session:
    """A HepMC3 file of showered events being written.

    Pythia is started here once, for any number of processes, so that unknown settings and refused
    runs are reported immediately.
    """

    def __init__(
        self, path: Path, run: RunInfo, names: list[str], settings: list[str], workers: int
    ) -> None:
        from hepgen_adapters.pythia import hepmc

        self._worker = Worker(run, settings)
        self._others: Workers[Chunk, Batch] | None = None
        self._numbers = itertools.count()
        self._n = 0
        self._file = open_bytes(path, "wb")
        version = str(getattr(load_pythia(), "__version__", ""))
        tools = (*run.generators, ("Pythia", version, "parton shower and hadronization"))
        self._file.write(hepmc.header(names, tools))
        self._end = hepmc.END
        if workers > 1:
            self._others = Workers(workers, "spawn", _begin, (run, settings))

    def shower(self, chunks: Iterator[EventSample], seeds: Iterator[int]) -> Iterator[int]:
        """Shower chunks, each with a seed, and append them; accepted events of each, in order."""
        for text, n in self._batches(chunks, seeds):
            self._file.write(_renumbered(text, self._n))
            self._n += n
            yield n

    def _batches(self, chunks: Iterator[EventSample], seeds: Iterator[int]) -> Iterator[Batch]:
        if self._others is None:
            for chunk in chunks:
                yield self._worker.shower(chunk, next(seeds))
            return
        numbered = (Chunk(next(self._numbers), chunk, next(seeds)) for chunk in chunks)
        for _, batch in self._others.results(numbered, lambda _: None):
            yield batch

    def close(self) -> None:
        """Finish the file and end all processes."""
        if self._others is not None:
            self._others.close()
            self._others = None
        if not self._file.closed:
            try:
                self._file.write(self._end)
            finally:
                self._file.close()


class Worker:
    """A Pythia that showers chunks of events."""

    def __init__(self, run: RunInfo, settings: list[str]) -> None:
        from hepgen_adapters.pythia.source import classes

        # give up where the events give up, not after ten failures in a row
        self._pythia = configured(["Main:timesAllowErrors = 1000000000", *settings])
        for switch in ("ProcessLevel:all", "PartonLevel:all"):
            if not self._pythia.flag(switch):
                raise UsageError(
                    f"{switch} is off, so that the events would be empty",
                    remedy="leave it on; `hepgen-ml convert` writes partons as HepMC3",
                )
        self._source = classes()["Source"](run, ())
        self._source.attach(self._pythia)
        if not self._pythia.init():
            raise SampleError(
                "Pythia refuses the run information of the events",
                remedy="check beams, processes, weight strategy and settings",
            )
        self._rate = run.cross_section, run.cross_section_error

    def shower(self, sample: EventSample, seed: int) -> Batch:
        """Text of the events that Pythia accepts, counted from 1, and their number."""
        from hepgen_adapters.pythia.hepmc import text_of

        self._pythia.rndm.init(seed)
        self._source.feed(sample)
        batch = self._pythia.nextBatch(len(sample))
        return text_of(batch, 1, self._rate), len(batch)


def _renumbered(text: bytes, first: int) -> bytes:
    """Events counted on from a number."""
    if first == 0:
        return text
    lines: list[bytes] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(b"E "):
            number, _, rest = line[2:].partition(b" ")
            line = b"E %d %s" % (int(number) + first, rest)
        lines.append(line)
    return b"".join(lines)


def _begin(run: RunInfo, settings: list[str]) -> Callable[[Chunk], tuple[Batch, Counts]]:
    worker = Worker(run, settings)
    return lambda chunk: (worker.shower(chunk.events, chunk.seed), ())
