"""HepMC3 ASCII files: parton-level events out, events of any generator in.

The record of an event: beams (status 4); the two incoming partons (status 21),
each from a vertex of its own together with the remnant of the beam (id 82,
status 63, not stable), so that momentum is conserved at every vertex; the hard
vertex; resonances (status 2) with their decay vertices; final particles
(status 1). Where an incoming particle carries the whole beam, as in lepton
collisions, it is the beam and has status 4 itself. Colours are the usual
attributes ``flow1`` and ``flow2``; known helicities and lifetimes are the
attributes ``spin`` and ``lifetime``.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from isal import igzip

from hepgen_adapters import hepmc_record
from hepgen_adapters.run_json import dump_run, load_run
from hepgen_ml.errors import InputError, OutputError
from hepgen_ml.events import UNKNOWN_SPIN, EventSample, RunInfo, Subrun
from hepgen_ml.formats import DEFAULT_CHUNK

logger = logging.getLogger(__name__)

RUN_ATTRIBUTE = "hepgen_ml_run"
NAMES_ATTRIBUTE = "hepgen_ml_weight_names"
NOMINAL = "Default"
_PIECE = 5_000  # events formatted at a time
_MAX_LINE = 16_000  # Delphes reads lines into a buffer of 16384 bytes
_SUFFIXES = (".hepmc", ".hepmc3")


class HepMC:
    """HepMC3 ASCII format, plain or compressed with gzip or Zstandard."""

    name = "hepmc"
    suffixes = tuple(s + c for s in _SUFFIXES for c in ("", ".gz", ".zst"))

    def open(self, path: Path, *, skip_bad: bool = False) -> HepMCReader:
        """Open for reading; raises InputError on anything that is not HepMC3."""
        return HepMCReader(path, skip_bad=skip_bad)

    def create(self, path: Path, run: RunInfo, n_events: int, **options: Any) -> HepMCWriter:
        """Begin a file of parton-level events; options of other formats are ignored."""
        return HepMCWriter(path, run)


def _open(path: Path, mode: str) -> IO[bytes]:
    """Open by suffix; gzip output carries no name or time: equal events, equal files."""
    name = path.name.lower()
    if name.endswith(".gz"):
        if mode == "rb":
            return igzip.open(path, "rb")  # type: ignore[no-any-return, no-untyped-call]
        return _Gzip(path)
    if name.endswith(".zst"):
        try:
            from compression import zstd  # type: ignore[import-not-found]
        except ImportError:
            from backports import zstd
        return zstd.open(path, mode)  # type: ignore[no-any-return]
    return path.open(mode)


class _Gzip(io.BufferedWriter):
    """Compressed output that also closes the file below it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        compressed = igzip.IGzipFile(  # type: ignore[no-untyped-call]
            filename="", mode="wb", fileobj=self._file, mtime=0
        )
        super().__init__(compressed, 1 << 20)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._file.close()


def _escape(text: str) -> str:
    """HepMC3's spelling of backslashes and line ends in run-level texts."""
    return text.replace("\\", "\\\\").replace("\n", "\\|")


class HepMCWriter:
    """Writes parton-level events; see the module for the structure of the record.

    Parameters
    ----------
    path : path-like
    run : RunInfo
        Beams, cross section and weight names. Its header and weight groups,
        which may be long, have no place in HepMC3 and are left out.

    Raises
    ------
    OutputError
        On samples without particle ids, statuses or mothers, and on events
        whose mothers form a circle.
    """

    def __init__(self, path: Path, run: RunInfo) -> None:
        self.path, self.run = path, run
        self._names: list[str] | None = None
        self._number = 0
        self._warned = False
        self._buffer = np.empty(0, dtype=np.uint8)
        self._pdf_set = np.array(run.pdf_set, dtype=np.int64)
        self._beam_id = np.array(run.beam_pdg_id, dtype=np.int64)
        self._beam_id[np.array(run.beam_energy) <= 0] = 0
        self._beam = np.zeros((2, 5))
        for side in (0, 1):
            energy = run.beam_energy[side]
            mass = min(_mass(run.beam_pdg_id[side]), max(energy, 0.0))
            pz = math.sqrt((energy - mass) * (energy + mass)) * (1 if side == 0 else -1)
            self._beam[side] = 0, 0, pz, energy, mass
        xs = f"A 0 GenCrossSection {run.cross_section!r} {run.cross_section_error!r} -1 -1\n"
        self._constant = _bytes(xs + "A 0 mpi 0\n")
        self._file = _open(path, "wb")

    def write(self, sample: EventSample) -> None:
        """Append the events of one chunk; all chunks have the same weights."""
        missing = {"pdg_id", "status", "mother1", "mother2"} - set(sample.particles)
        if missing:
            raise OutputError(
                f"HepMC3 needs {', '.join(sorted(missing))}, which this sample does not have",
                path=self.path,
                remedy="write reconstructed objects to ROOT",
            )
        if self._names is None:
            self._names = list(sample.weights)
            self._write_header()
        elif list(sample.weights) != self._names:
            raise OutputError(
                "the named weights change between chunks", path=self.path, remedy="write two files"
            )
        if not self._warned and np.any(_is_coloured_final(sample)):
            self._warned = True
            logger.warning(
                "events are parton level: quarks and gluons are written as stable particles; "
                "shower the LHE output for anything that needs hadrons"
            )
        for piece in sample.chunks(_PIECE):
            self._write_piece(piece)

    def _write_piece(self, sample: EventSample) -> None:
        n, rows = len(sample), int(sample.offsets[-1])
        p, e = sample.particles, sample.events

        def column(name: str, missing: float = 0.0) -> npt.NDArray[Any]:
            return p[name] if name in p else np.full(rows, missing)

        def pair(first: str, second: str) -> npt.NDArray[np.int32]:
            return np.stack([column(first), column(second)], axis=1).astype(np.int32)

        mass = p["mass"] if "mass" in p else _derived_mass(sample)
        weights = np.stack([e["weight"], *sample.weights.values()], axis=1)
        momenta = np.concatenate([sample.momentum, mass[:, None]], axis=1)
        scalars = np.stack(
            [e.get(k, np.full(n, -1.0)) for k in ("scale", "alpha_qcd", "alpha_qed")], axis=1
        )
        self._refuse_infinite(sample, momenta, scalars, weights)
        extra, extra_offsets = _extra_lines(sample)
        need = (
            hepmc_record.BYTES_PER_EVENT * n
            + hepmc_record.BYTES_PER_ROW * rows
            + hepmc_record.BYTES_PER_WEIGHT * weights.size
            + len(self._constant) * n
            + len(extra)
        )
        if len(self._buffer) < need:
            self._buffer = np.empty(need, dtype=np.uint8)
        length, bad = hepmc_record.format_events(
            self._buffer.ctypes.data,
            self._number,
            sample.offsets,
            p["pdg_id"],
            p["status"],
            pair("mother1", "mother2"),
            pair("color1", "color2"),
            momenta,
            column("spin", UNKNOWN_SPIN),
            column("lifetime"),
            e.get("process_id", np.zeros(n, dtype=np.int32)),
            scalars,
            weights,
            extra,
            extra_offsets,
            self._beam_id,
            self._beam,
            self._pdf_set,
            self._constant,
            hepmc_record.ATTRIBUTE_NAMES,
        )
        if bad >= 0:
            raise OutputError(
                "the mothers of its particles form a circle or lie outside of the event",
                path=self.path,
                event=self._number + bad + 1,
                remedy="drop the event, see `hepgen-ml check`",
            )
        self._file.write(self._buffer[:length].data)
        self._number += n

    def _refuse_infinite(self, sample: EventSample, rows: Any, *of_events: Any) -> None:
        bad = [~np.isfinite(x).all(axis=1) for x in of_events]
        bad.append(np.bincount(sample.event_index, ~np.isfinite(rows).all(axis=1), len(sample)) > 0)
        if np.any(bad):
            raise OutputError(
                "a momentum, weight or scale is not finite",
                path=self.path,
                event=self._number + int(np.argmax(np.any(bad, axis=0))) + 1,
                remedy="drop the event, see `hepgen-ml check`",
            )

    def _write_header(self) -> None:
        names = [NOMINAL, *(self._names or [])]
        tokens = _tokens(names)
        lines = [
            "HepMC::Version 3.02.05",
            "HepMC::Asciiv3-START_EVENT_LISTING",
            "W " + "\\|".join(map(_escape, tokens)),
        ]
        for name, version, text in self.run.generators:
            tool = (" ".join(_escape(text).split("\\|")) for text in (name, version, text))
            lines.append("T " + "\\|".join(tool))
        # opaque texts may be megabytes; weight descriptions go before the line gets too long
        run = self.run.with_(header="", weight_groups="", significant_digits=None)
        if tokens != names:
            line = f"A {NAMES_ATTRIBUTE} {_escape(json.dumps(names))}"
            if len(line) < _MAX_LINE:
                lines.append(line)
        for shorter in (run, run.with_(weight_names={}, generators=())):
            line = f"A {RUN_ATTRIBUTE} {_escape(dump_run(shorter))}"
            if len(line) < _MAX_LINE:
                lines.append(line)
                break
        self._file.write(("\n".join(lines) + "\n").encode())

    def close(self) -> None:
        """Finish the file."""
        if self._file.closed:
            return
        try:
            if self._names is None:
                self._names = []
                self._write_header()
            self._file.write(b"HepMC::Asciiv3-END_EVENT_LISTING\n\n")
        finally:
            self._file.close()


def _tokens(names: list[str]) -> list[str]:
    """Weight names without blanks, where HepMC3 would split them; each once."""
    tokens: dict[str, None] = {}
    for name in names:
        token = stem = "_".join(name.split()) or "_"
        k = 2
        while token in tokens:
            token, k = f"{stem}_{k}", k + 1
        tokens[token] = None
    return list(tokens)


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _mass(pdg_id: int) -> float:
    """Mass of a beam particle in GeV, 0 for one that is not in the tables."""
    from particle import InvalidParticle, Particle, ParticleNotFound

    try:
        return (Particle.from_pdgid(pdg_id).mass or 0.0) / 1000
    except (ParticleNotFound, InvalidParticle):
        return 0.0


def _is_coloured_final(sample: EventSample) -> npt.NDArray[np.bool_]:
    ids = np.abs(sample.particles["pdg_id"])
    result: npt.NDArray[np.bool_] = (ids <= 5) | (ids == 21)
    result &= sample.particles["status"] == 1
    return result


def _derived_mass(sample: EventSample) -> npt.NDArray[np.float64]:
    p = sample.momentum
    size = np.sqrt(np.sum(p[:, :3] ** 2, axis=1))
    mass: npt.NDArray[np.float64] = np.sqrt(np.clip((p[:, 3] - size) * (p[:, 3] + size), 0, None))
    return mass


def _extra_lines(sample: EventSample) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Named scales and event attributes as event attributes ``scale_...``, ``lhe_...``."""
    if not sample.scales and not sample.attributes:
        return np.zeros(0, dtype=np.uint8), np.zeros(len(sample) + 1, dtype=np.int64)
    columns: list[tuple[str, list[str]]] = [
        (f"scale_{k}", ["" if math.isnan(x) else repr(x) for x in v.tolist()])
        for k, v in sample.scales.items()
    ]
    columns += [(f"lhe_{k}", [str(x) for x in v.tolist()]) for k, v in sample.attributes.items()]
    columns = [("_".join(k.split()), v) for k, v in columns]
    lines = [
        "".join(f"A 0 {k} {_escape(v[i])}\n" for k, v in columns if v[i]).encode()
        for i in range(len(sample))
    ]
    offsets = np.zeros(len(sample) + 1, dtype=np.int64)
    np.cumsum([len(line) for line in lines], out=offsets[1:])
    return np.frombuffer(b"".join(lines), dtype=np.uint8), offsets


class HepMCReader:
    """Reads HepMC files in chunks through pyhepmc.

    Parameters
    ----------
    path : path-like
    skip_bad : bool
        Leave out events with numbers that are not finite.

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

    def __init__(self, path: Path, *, skip_bad: bool = False) -> None:
        self.path, self.skip_bad = Path(path), skip_bad
        self.skipped: list[InputError] = []
        self.n_skipped = 0
        self._n_events, cross_section = self._scan()
        self._open_events: list[Generator[Any, None, None]] = []
        self._weight_names: list[str] = []
        self.run = self._run_info(cross_section)

    def _fail(self, what: str, event: int | None = None, remedy: str = "") -> InputError:
        remedy = remedy or "make the file again, or copy it again if it was cut short"
        return InputError(what, path=self.path, event=event, remedy=remedy)

    def _scan(self) -> tuple[int, tuple[float, float]]:
        """Count events and find the last cross section, in constant memory."""
        n_events, tail, last = 0, b"", b""
        pattern = re.compile(rb"\nA 0 GenCrossSection ([^\n]+)(?=\n)")
        try:
            with contextlib.closing(_open(self.path, "rb")) as file:
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
        with contextlib.closing(_open(self.path, "rb")) as file, pyhepmc.open(file) as reader:
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
            if isinstance(exact, list) and _tokens(list(map(str, exact))) == self._weight_names:
                self._weight_names = list(map(str, exact))
        with contextlib.suppress(KeyError):
            return load_run(str(info.attributes[RUN_ATTRIBUTE]), self.path)
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
            generators=tuple((t.name, t.version, t.description) for t in info.tools),
            weight_names=dict.fromkeys(self._weight_names[1:], ""),
        )

    def chunks(self, size: int = DEFAULT_CHUNK) -> Iterator[EventSample]:
        """Events in file order, `size` at a time."""
        batch: list[Any] = []
        n_read = 0
        self.close()
        self._open_events.append(events := self._events())
        for _, data in events:
            n_read += 1
            batch.append(data)
            if len(batch) == size or n_read == self._n_events:
                if sample := self._sample(batch, n_read - len(batch)):
                    yield sample
                batch = []
        if n_read < self._n_events:
            raise self._fail("cannot be read as HepMC3", n_read + 1)

    def _sample(self, batch: list[Any], first: int) -> EventSample | None:
        from hepgen_adapters.hepmc_graph import sample_from_records

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
        return sample_from_records(good, self.run, self._weight_names) if good else None

    def close(self) -> None:
        """Close the file."""
        while self._open_events:
            self._open_events.pop().close()


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
