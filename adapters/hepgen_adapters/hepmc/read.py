"""Reading HepMC3 through pyhepmc."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hepgen_adapters._objects import nothing_selected, with_cross_section
from hepgen_adapters._run_json import load_run
from hepgen_adapters.hepmc import lines as lines
from hepgen_adapters.hepmc.graph import (
    event_attributes,
    n_showered,
    sample_from_records,
    unknown_attributes,
)
from hepgen_adapters.hepmc.objects import Clusterer
from hepgen_adapters.hepmc.scan import Scan
from hepgen_adapters.hepmc.text import (
    NAMES_ATTRIBUTE,
    NOMINAL,
    NOT_FINITE,
    RUN_ATTRIBUTE,
    FiniteWeights,
    decompression_errors,
    open_bytes,
    tokens,
)
from hepgen_ml.errors import InputError
from hepgen_ml.events.interfaces import DEFAULT_CHUNK
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample, RunInfo, concatenate

_BLOCK, _LONGEST_LINE = 1 << 20, 1 << 26
_BEGINNING = re.compile(rb"\s{0,1000}HepMC::Version 3[^\n]{0,100}\n\s{0,1000}HepMC::Asciiv3-START")
_OTHERS = (
    (b"IO_GenEvent", "HepMC2 (IO_GenEvent)"), (b"Asciiv2", "HepMC2"), (b"HEPEVT", "HEPEVT"),
)  # fmt: skip

_SHOWERED = 500  # showered events in memory at a time
_MAX_ROWS = 500_000  # particles, likewise
_POSITION = ("x", "y", "z", "t")
_OURS = {"GenPdfInfo", "mpi"}  # attributes that our writer makes from the columns


class HepMCReader:
    """Reads HepMC files in chunks through pyhepmc.

    Parton-level records (nothing but beams, incoming partons, resonances and
    final particles) come back whole, with colours where the file has them. From records of a shower
    only the beams and the final particles are read. Opening reads the file once completely: the
    cross section of the last event counts, and a truncated file is refused at once.

    Parameters
    ----------
    path : path-like
    skip_bad : bool
        Leave out events with numbers that are not finite.
    selection : Selection, optional
        With objects: leptons, photons and jets of the final particles are read instead of
        these; see `hepgen_adapters.hepmc.objects.Clusterer`.

    Raises
    ------
    InputError
        On anything that is not HepMC3 ASCII, truncated files, unreadable events.
    """

    def __init__(
        self, path: Path, *, skip_bad: bool = False, selection: Selection | None = None
    ) -> None:
        self.path, self.skip_bad = Path(path), skip_bad
        self._clusterer = Clusterer(selection) if selection and selection.objects else None
        self._begin()
        scan = self._scan()
        self._n_events, self._has_numbers = scan.n_events, scan.has_numbers
        self._not_finite = bool(scan.state[lines.NOT_FINITE])
        self._open_events: list[Generator[Any, None, None]] = []
        self._weight_names: list[str] = []
        self._ours = False
        self._also: tuple[str, ...] = ()
        self.run = with_cross_section(self._run_info(scan), selection, self.path)

    def also_read(self, names: Sequence[str]) -> None:
        """Read attributes of events with these names as attributes of the sample, too."""
        self._also = tuple(names)

    def _begin(self) -> None:
        self.skipped: list[InputError] = []
        self.n_skipped, self._n_showered, self._other_attributes = 0, 0, set[str]()
        self._positions = False
        if self._clusterer:
            self._clusterer.n_unselected, self._clusterer.unselected_weight = 0, 0.0

    @property
    def n_unselected(self) -> int:
        """Events left out because they have other numbers of objects."""
        return self._clusterer.n_unselected if self._clusterer else 0

    @property
    def unselected_weight(self) -> float:
        """Sum of their weights."""
        return self._clusterer.unselected_weight if self._clusterer else 0.0

    @property
    def left_out(self) -> list[str]:
        """Parts of the file that its events do not contain."""
        if self._clusterer:
            return ["particles, of which only the chosen objects are left", "scales and couplings"]
        result = []
        if self._n_showered:
            result.append(
                f"decayed and intermediate particles and vertices of {self._n_showered} events"
            )
        elif self._positions:
            result.append("positions of vertices")
        if others := sorted(self._other_attributes - (_OURS if self._ours else set())):
            result.append(f"attributes {', '.join(others[:5])}")
        return result

    def _fail(self, what: str, event: int | None = None, remedy: str = "") -> InputError:
        remedy = remedy or "make the file again, or copy it again if it was cut short"
        return InputError(what, path=self.path, event=event, remedy=remedy)

    def _scan(self) -> Scan:
        """Check every line and collect properties of the whole file, in constant memory."""
        scan = Scan()
        tail = b""
        try:
            with contextlib.closing(open_bytes(self.path, "rb")) as file:
                block = file.read(_BLOCK)
                if not _BEGINNING.match(block):
                    raise self._not_hepmc3(block)
                while block:
                    # lines may straddle blocks: keep the last, unfinished one for the next round
                    text = tail + block
                    cut = text.rfind(b"\n") + 1
                    self._check(scan, text[:cut])
                    tail = text[cut:]
                    if len(tail) > _LONGEST_LINE:
                        raise self._fail(f"has a line of more than {_LONGEST_LINE >> 20} MiB")
                    block = file.read(_BLOCK)
                if tail.startswith(b"HepMC::"):
                    self._check(scan, tail + b"\n")
        except decompression_errors() as error:
            raise self._fail(f"is truncated or damaged ({error})") from error
        if not scan.state[lines.ENDED]:
            raise self._fail(
                f"is truncated after {scan.n_events} events: no end of the event listing"
            )
        if scan.n_events == 0:
            raise self._fail("holds no events", remedy="check how it was made")
        scan.finish()
        return scan

    def _check(self, scan: Scan, text: bytes) -> None:
        """Lines of the next part of the file."""
        try:
            text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = int(scan.state[lines.LINE]) + 1 + text.count(b"\n", 0, error.start)
            n = scan.n_events + text.count(b"\nE ", 0, error.start) + text.startswith(b"E ")
            raise InputError(
                "a text is not UTF-8", path=self.path, event=n or None, line=line,
                remedy="write it in UTF-8",
            ) from error  # fmt: skip
        status = scan.take(text)
        if status != lines.FINE:
            event = int(scan.state[lines.BAD_EVENT])
            raise InputError(
                lines.WHAT[status], path=self.path, event=event or None,
                line=int(scan.state[lines.LINE]),
                remedy=lines.REMEDIES.get(status, "make the file again"),
            )  # fmt: skip

    def _not_hepmc3(self, text: bytes) -> InputError:
        for mark, what in _OTHERS:
            if mark in text[:1000]:
                return self._fail(f"is {what}", remedy="convert it to HepMC3 ASCII (Asciiv3)")
        return self._fail("is not HepMC3 ASCII", remedy="convert it to HepMC3 ASCII")

    def events(self) -> Generator[tuple[Any, Any], None, None]:
        """Events with their flat data, from the start of the file."""
        import pyhepmc

        n_read = 0
        pyhepmc.Setup.print_errors = pyhepmc.Setup.print_warnings = False  # we say what is wrong
        pyhepmc.Setup.debug_level = 0
        with contextlib.closing(open_bytes(self.path, "rb")) as file, pyhepmc.open(
            io.BufferedReader(FiniteWeights(file)) if self._not_finite else file, format="hepmc3"
        ) as reader:
            while True:
                try:
                    event = reader.read()
                except (RuntimeError, ValueError, OSError, EOFError) as error:
                    raise self._fail(f"cannot be read as HepMC3: {error}", n_read + 1) from error
                if event is None:
                    return
                n_read += 1
                event.set_units(pyhepmc.Units.GEV, pyhepmc.Units.MM)
                data = pyhepmc.GenEventData()
                event.write_data(data)
                if self._not_finite:
                    data.weights[data.weights == NOT_FINITE] = np.nan
                yield event, data

    def _run_info(self, scan: Scan) -> RunInfo:
        with contextlib.closing(self.events()) as events:
            first = next(events, None)
        if first is None:
            raise self._fail("its first event cannot be read", 1)
        event, data = first
        info = event.run_info
        # without names, weights are numbered
        unnamed = [NOMINAL, *(str(i) for i in range(1, len(data.weights)))]
        self._weight_names = list(info.weight_names) or unnamed
        with contextlib.suppress(KeyError, ValueError, RecursionError):
            exact = json.loads(str(info.attributes[NAMES_ATTRIBUTE]))
            if isinstance(exact, list) and tokens(list(map(str, exact))) == self._weight_names:
                self._weight_names = list(map(str, exact))
        tools = tuple((t.name, t.version, t.description) for t in info.tools)
        with contextlib.suppress(KeyError):
            run = load_run(str(info.attributes[RUN_ATTRIBUTE]), self.path)
            self._ours = True
            names = run.weight_names or dict.fromkeys(self._weight_names[1:], "")
            return run.with_(generators=run.generators or tools, weight_names=names)
        beams = data.particles[data.particles["status"] == 4]
        beams = beams[np.argsort(-beams["pz"])]
        ids, energies = [0, 0], [0.0, 0.0]
        for i, beam in enumerate(beams[:2]):
            ids[i], energies[i] = int(beam["pid"]), float(beam["e"])
        return RunInfo(
            beam_pdg_id=(ids[0], ids[1]),
            beam_energy=(energies[0], energies[1]),
            weight_strategy=-3 if scan.unit_weights else -4,
            processes=scan.processes(),
            generators=tools,
            weight_names=dict.fromkeys(self._weight_names[1:], ""),
            weight_cross_sections=scan.weight_cross_sections(self._weight_names[1:]),
        )

    @property
    def states_strategy(self) -> bool:
        """Whether the weight strategy was stated by the source, as in files of this package."""
        return self._ours

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, at most `size` at a time.

        Raises
        ------
        InputError
            An event is bad, or none has the objects asked for.
        """
        self.close()
        self._begin()
        if self._clusterer is None:
            yield from self._pieces(size)
            return
        # Showered events are converted to objects in small groups, which are then collected.
        waiting, n_waiting, n_all = [], 0, 0
        for piece in self._pieces(min(size, _SHOWERED)):
            waiting.append(piece)
            n_waiting, n_all = n_waiting + len(piece), n_all + len(piece)
            if n_waiting >= size:
                joined = concatenate(waiting)
                yield joined[:size]
                waiting, n_waiting = [joined[size:]], n_waiting - size
        if n_all == 0 and self.n_unselected:
            raise nothing_selected(self.path, self._clusterer.selection.objects, ())
        if n_waiting:
            yield concatenate(waiting)

    def _pieces(self, size: int) -> Iterator[EventSample]:
        batch: list[Any] = []
        n_read = n_rows = 0
        self._open_events.append(events := self.events())
        for _, data in events:
            n_read += 1
            n_rows += len(data.particles)
            batch.append(data)
            if len(batch) == size or n_rows >= _MAX_ROWS or n_read == self._n_events:
                sample = self._sample(batch, n_read - len(batch))
                if sample is not None and len(sample):
                    yield sample
                batch, n_rows = [], 0
        if n_read < self._n_events:
            raise self._fail("cannot be read as HepMC3", n_read + 1)

    def _sample(self, batch: list[Any], first: int) -> EventSample | None:
        n_weights = len(self._weight_names)
        good = []
        for i, data in enumerate(batch):
            weights = data.weights if len(data.weights) else np.ones(1)
            numbers = [data.particles[k] for k in ("px", "py", "pz", "e", "mass")]
            if len(weights) != n_weights:
                problem = f"{len(weights)} weights instead of {n_weights}"
            elif not all(np.isfinite(x).all() for x in (weights[:1], *numbers)):
                problem = "a number is not finite"
            else:
                good.append(data)
                continue
            error = self._fail(problem, first + i + 1, "use --skip-bad to leave such events out")
            if not self.skip_bad:
                raise error
            self.n_skipped += 1
            if len(self.skipped) < 100:
                self.skipped.append(error)
        if 2 * self.n_skipped > self._n_events:
            raise self._fail(f"{self.n_skipped} of {self._n_events} events are bad")
        if not good:
            return None
        if self._clusterer is not None:
            return self._clusterer.sample(
                good, self.run, self._weight_names, self._has_numbers,
                event_attributes(good, self._also),
            )  # fmt: skip
        self._n_showered += n_showered(good, self._ours)
        self._positions |= any(np.any(d.vertices[k]) for d in good for k in _POSITION)
        self._other_attributes |= unknown_attributes(good)
        sample = sample_from_records(good, self.run, self._weight_names, ours=self._ours)
        sample.attributes = event_attributes(good, self._also) | sample.attributes
        if self._has_numbers:
            sample.events["event_number"] = np.array([d.event_number for d in good], np.int64)
        return sample

    def close(self) -> None:
        """Close the file."""
        while self._open_events:
            self._open_events.pop().close()
