"""Parton shower and hadronisation of generated events, to a file of complete events.

Shower programs are plugins: an entry point in the group ``hepgen_ml.showers`` names a class with
the methods of `ShowerProgram`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.formats import output_format
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.files.outputs import PartialFile, naming
from hepgen_ml.files.streams import Stream, is_stream
from hepgen_ml.generation.generator import Generator

ENTRY_POINT_GROUP = "hepgen_ml.showers"

CHUNK = 200
"""Events that a process showers at a time, with random numbers of their own."""

_HEPMC = re.compile(r"\.hepmc3?(\.gz|\.zst)?$")

_ROUNDS = 20
_LEAST_ACCEPTED = 0.1

Progress = Callable[[str, float, float, dict[str, float]], None]


class Session(Protocol):
    """A file of showered events being written."""

    def shower(self, chunks: Iterator[EventSample], seeds: Iterator[int]) -> Iterator[int]:
        """Shower chunks, each with a seed, and append them; accepted events of each, in order."""

    def close(self) -> None:
        """Finish the file and end all processes."""


class ShowerProgram(Protocol):
    """A program that showers events."""

    def open(
        self, path: Path, run: RunInfo, names: Sequence[str], settings: Sequence[str], workers: int
    ) -> Session:
        """Begin a file.

        Parameters
        ----------
        path : Path
            Of HepMC3, compressed by its suffix; may be a temporary name.
        run : RunInfo
            Of the events to come.
        names : sequence of str
            Their named weights.
        settings : sequence of str
            Lines in the program's own language.
        workers : int
            Processes.

        Raises
        ------
        UsageError
            The program is not installed, or does not know a setting.
        SampleError
            It refuses the run.
        """


@dataclass(frozen=True)
class Showered:
    """Result of a shower: numbers of events in the file, and of events that the program refused."""

    n_events: int
    n_refused: int


def shower_program(name: str) -> ShowerProgram:
    """Program by name.

    Raises
    ------
    UsageError
        There is no program of this name.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none is installed"
        raise UsageError(f"the shower program {name!r} is not known", remedy=f"available: {known}")
    program: ShowerProgram = found[name].load()()
    return program


def shower(
    generator: Generator,
    out: Path,
    n: int,
    *,
    seed: int,
    program: str = "pythia",
    settings: Sequence[str] = (),
    workers: int = 1,
    force: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Showered:
    """Shower n generated events into a file, which appears when it is complete.

    Events that the program refuses are replaced by further ones, and counted. The result depends
    on the seed and n, not on the number of processes.

    Parameters
    ----------
    generator : Generator
        Of partons.
    out : Path
        HepMC3: ``.hepmc``, also with ``.gz`` or ``.zst``; ``-`` or another pipe.
    n, seed : int
        The events are those of `Generator.stream`.
    program : str
    settings : sequence of str
        For the program, one a line.
    workers : int
        Processes that shower.
    force : bool
        Replace an existing file.
    format : str, optional
        Of a pipe, ``hepmc`` if not given.
    progress : callable, optional
    **options
        Of `Generator.stream`: ``posterior``, ``weights``, ``unweight``, ``condition``.

    Raises
    ------
    UsageError
        The output is not HepMC3.
    SampleError
        The events are reconstructed objects, or the program refuses most of them.
    OutputError
        The file exists, or cannot be written.
    """
    if generator.process.is_reconstructed:
        raise SampleError(
            "the model generates reconstructed objects, which are showered already",
            remedy="use a model of partons",
        )
    tell = progress or (lambda *_: None)
    stream: Stream | None = None
    suffix = Path(out).name.lower()
    if is_stream(out):
        name = format or (None if "." in Path(out).name else "hepmc")
        suffix = output_format(out, name)[1]
    if not _HEPMC.search(suffix):
        raise UsageError(
            "showered events are written as HepMC3", path=out,
            remedy="name it .hepmc, .hepmc.gz or .hepmc.zst; a pipe takes --format hepmc",
        )  # fmt: skip
    if is_stream(out):
        stream = Stream(out, suffix)
    partial = stream or PartialFile(out, force=force)
    session: Session | None = None
    accepted = refused = 0
    try:
        for number in range(_ROUNDS):
            missing = n - accepted
            if missing <= 0:
                break
            root = np.random.SeedSequence(seed, spawn_key=(3, number))
            own = seed if number == 0 else int(root.generate_state(1)[0])
            chunks = generator.stream(missing, seed=own, chunk=CHUNK, **options)
            first = next(chunks)
            if session is None:
                run = generator.run_of(**options)
                with naming(out):
                    session = shower_program(program).open(
                        partial.place, run, list(first.weights), settings, workers
                    )
            with naming(out):
                for got in session.shower(_all(first, chunks), _seeds(root)):
                    accepted += got
                    if stream is not None:
                        stream.check()
                    tell("shower", min(accepted, n), n, {})
            refused += max(missing - (accepted - (n - missing)), 0)
            if accepted < _LEAST_ACCEPTED * n:
                raise SampleError(
                    f"{program} accepts {accepted} of the first {missing} events",
                    remedy="`hepgen-ml check` names their defects",
                )
        if accepted != n:
            raise SampleError(
                f"{program} refuses too many events", remedy="`hepgen-ml check` names their defects"
            )
        assert session is not None
        with naming(out):
            session.close()
        partial.commit()
    except BaseException:
        if stream is not None:
            stream.cut()
        if session is not None:
            session.close()
        partial.discard()
        raise
    return Showered(accepted, refused)


def _all(first: EventSample, others: Iterator[EventSample]) -> Iterator[EventSample]:
    yield first
    yield from others


def _seeds(root: np.random.SeedSequence) -> Iterator[int]:
    """Seeds from 1 to 900 million, as Pythia takes them."""
    while True:
        yield 1 + int(root.spawn(1)[0].generate_state(1)[0]) % 900_000_000
