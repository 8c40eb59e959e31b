"""Reading HepMC3 through pyhepmc."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip

from hepgen_adapters._hepmc_graph import n_showered, sample_from_records, unknown_attributes
from hepgen_adapters._hepmc_objects import Clusterer
from hepgen_adapters._hepmc_text import (
    NAMES_ATTRIBUTE,
    NOMINAL,
    RUN_ATTRIBUTE,
    open_bytes,
    tokens,
)
from hepgen_adapters._objects import nothing_selected, with_cross_section
from hepgen_adapters._run_json import load_run
from hepgen_ml.errors import InputError
from hepgen_ml.events import EventSample, RunInfo, Subrun, concatenate
from hepgen_ml.formats import DEFAULT_CHUNK
from hepgen_ml.objects import Selection

_SHOWERED = 500  # showered events in memory at a time
_MAX_ROWS = 500_000  # particles, likewise
_OURS = {"GenPdfInfo", "mpi"}  # attributes that our writer makes from the columns


class HepMCReader:
    """Reads HepMC files in chunks through pyhepmc.

    Parameters
    ----------
    path : path-like
    skip_bad : bool
        Leave out events with numbers that are not finite.
    selection : Selection, optional
        With objects: leptons, photons and jets of the final particles are read instead of
        these; see `hepgen_adapters._hepmc_objects.Clusterer`.

    Parton-level records (nothing but beams, incoming partons, resonances and
    final particles) come back whole, with colours where the file has them. Of
    the records of a shower only the beams and the final particles are taken.
    Opening reads the file once from end to end: the cross section of the last
    event is the one that counts, and a truncated file is refused at once.

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
        self._n_events, cross_section = self._scan()
        self._open_events: list[Generator[Any, None, None]] = []
        self._weight_names: list[str] = []
        self._ours = False
        self.run = with_cross_section(self._run_info(cross_section), selection, self.path)

    def _begin(self) -> None:
        self.skipped: list[InputError] = []
        self.n_skipped, self._n_showered, self._other_attributes = 0, 0, set[str]()
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
        """What of the file is not in its events."""
        if self._clusterer:
            return ["particles, of which only the chosen objects are left", "scales and couplings"]
        result = []
        if self._n_showered:
            result.append(
                f"decayed and intermediate particles and vertices of {self._n_showered} events"
            )
        if others := sorted(self._other_attributes - (_OURS if self._ours else set())):
            result.append(f"attributes {', '.join(others[:5])}")
        return result

    def _fail(self, what: str, event: int | None = None, remedy: str = "") -> InputError:
        remedy = remedy or "make the file again, or copy it again if it was cut short"
        return InputError(what, path=self.path, event=event, remedy=remedy)

    def _scan(self) -> tuple[int, tuple[float, float]]:
        """Count events and find the last cross section, in constant memory."""
        n_events, tail, last = 0, b"", b""
        pattern = re.compile(rb"\nA 0 GenCrossSection ([^\n]+)(?=\n)")
        try:
            with contextlib.closing(open_bytes(self.path, "rb")) as file:
                first = file.read(1 << 20)
                if not re.match(rb"\s*HepMC::Version 3[^\n]*\n\s*HepMC::Asciiv3-START", first):
                    raise self._fail("is not HepMC3 ASCII", remedy="convert it to HepMC3 ASCII")
                block = first
                while block:
                    # lines may straddle blocks: keep the last, unfinished one for the next round
                    text = tail + block
                    cut = text.rfind(b"\n")
                    cut = max(cut, 0)
                    whole, tail = text[: cut + 1], text[cut:]
                    n_events += whole.count(b"\nE ")
                    at = whole.rfind(b"\nA 0 GenCrossSection ")
                    if at >= 0 and (found := pattern.match(whole, at)):
                        last = found.group(1)
                    if len(tail) > 1 << 26:
                        raise self._fail("has a line of more than 64 MiB")
                    end = whole[-200:]
                    block = file.read(1 << 20)
        except (EOFError, igzip.BadGzipFile, OSError) as error:
            raise self._fail(f"is truncated or damaged ({error})") from error
        if b"END_EVENT_LISTING" not in end + tail:
            raise self._fail(f"is truncated after {n_events} events: no end of the event listing")
        if n_events == 0:
            raise self._fail("holds no events", remedy="check how it was made")
        try:
            value, error_ = (float(x) for x in last.split()[:2])
        except ValueError:
            value, error_ = 0.0, 0.0
        return n_events, (value, error_)

    def _events(self) -> Generator[tuple[Any, Any], None, None]:
        """Events with their flat data, from the start of the file."""
        import pyhepmc

        n_read = 0
        with contextlib.closing(open_bytes(self.path, "rb")) as file, pyhepmc.open(file) as reader:
            while True:
                try:
                    event = reader.read()
                except RuntimeError as error:
                    raise self._fail(f"cannot be read as HepMC3: {error}", n_read + 1) from error
                if event is None:
                    return
                n_read += 1
                event.set_units(pyhepmc.Units.GEV, pyhepmc.Units.MM)
                data = pyhepmc.GenEventData()
                event.write_data(data)
                yield event, data

    def _run_info(self, cross_section: tuple[float, float]) -> RunInfo:
        with contextlib.closing(self._events()) as events:
            first = next(events, None)
        if first is None:
            raise self._fail("its first event cannot be read", 1)
        event, data = first
        info = event.run_info
        self._weight_names = list(info.weight_names) or [NOMINAL]
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
        texts = dict(zip(data.attribute_name, data.attribute_string, strict=True))
        unit = len(data.weights) == 0 or abs(abs(data.weights[0]) - 1) < 1e-9
        return RunInfo(
            beam_pdg_id=(ids[0], ids[1]),
            beam_energy=(energies[0], energies[1]),
            weight_strategy=-3 if unit else -4,
            processes=(Subrun(_integer(texts.get("signal_process_id", "0")), *cross_section),),
            generators=tools,
            weight_names=dict.fromkeys(self._weight_names[1:], ""),
        )

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
        # A few showered events at a time become objects, which are then gathered.
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
        self._open_events.append(events := self._events())
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
            elif not all(np.isfinite(x).all() for x in (weights, *numbers)):
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
            return self._clusterer.sample(good, self.run, self._weight_names)
        self._n_showered += n_showered(good)
        self._other_attributes |= unknown_attributes(good)
        return sample_from_records(good, self.run, self._weight_names)

    def close(self) -> None:
        """Close the file."""
        while self._open_events:
            self._open_events.pop().close()


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
