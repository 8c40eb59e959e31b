"""Writing HepMC3: run information and chunks of formatted events."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters._partons import require_partons
from hepgen_adapters._run_json import dump_run
from hepgen_adapters.hepmc import record as hepmc_record
from hepgen_adapters.hepmc.text import (
    ABSENT,
    NAMES_ATTRIBUTE,
    NOMINAL,
    RUN_ATTRIBUTE,
    escape,
    open_bytes,
    tokens,
)
from hepgen_ml.errors import OutputError
from hepgen_ml.events.hard_process import beams_and_remnants, without
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample, RunInfo

logger = logging.getLogger("hepgen_adapters.hepmc")

_PIECE = 5_000  # events formatted at a time
_MAX_LINE = 16_000  # Delphes reads lines into a buffer of 16384 bytes


class HepMCWriter:
    """Writes parton-level events; see `hepgen_adapters.hepmc` for the structure of the record.

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
        self._warned = self._warned_weights = False
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
        self._constant = _bytes("")
        self._file = open_bytes(path, "wb")

    def write(self, sample: EventSample) -> None:
        """Append the events of one chunk; all chunks have the same weights."""
        require_partons(sample, "HepMC3", self.path)
        missing = {"pdg_id", "status", "mother1", "mother2"} - set(sample.particles)
        if missing:
            raise OutputError(
                f"HepMC3 needs {', '.join(sorted(missing))}, which this sample does not have",
                path=self.path,
                remedy="name the output .root",
            )
        sample = without(sample, beams_and_remnants(sample))  # the file has its own
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
        absent = self._fill_absent(weights)
        momenta = np.concatenate([sample.momentum, mass[:, None]], axis=1)
        scalars = np.stack(
            [e.get(k, np.full(n, -1.0)) for k in ("scale", "alpha_qcd", "alpha_qed")], axis=1
        )
        self._refuse_infinite(sample, momenta, scalars, weights)
        extra, extra_offsets = _extra_lines(sample, absent)
        need = (hepmc_record.BYTES_PER_EVENT + len(self._constant)) * n + len(extra)
        need += hepmc_record.BYTES_PER_ROW * rows + hepmc_record.BYTES_PER_WEIGHT * weights.size
        if len(self._buffer) < need:
            self._buffer = np.empty(need, dtype=np.uint8)
        length, bad = hepmc_record.format_events(
            self._buffer.ctypes.data,
            e.get("event_number", np.arange(self._number, self._number + n)),
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

    def _fill_absent(self, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Set weights to 0 that events lack, with one warning; which they are."""
        absent: npt.NDArray[np.bool_] = np.isnan(weights) & (np.arange(weights.shape[1]) > 0)
        if absent.any():
            weights[absent] = 0.0
            if not self._warned_weights:
                self._warned_weights = True
                logger.warning(
                    "some events lack named weights: HepMC3 needs every weight in every event and "
                    "has 0 for them; the attribute %s of these events lists which", ABSENT
                )  # fmt: skip
        return absent

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
        self._constant = _bytes(_cross_section_line(self.run, names[1:]) + "A 0 mpi 0\n")
        names_in_file = tokens(names)
        lines = [
            "HepMC::Version 3.02.05",
            "HepMC::Asciiv3-START_EVENT_LISTING",
            "W " + "\\|".join(map(escape, names_in_file)),
        ]
        for name, version, text in self.run.generators:
            tool = (" ".join(escape(text).split("\\|")) for text in (name, version, text))
            lines.append("T " + "\\|".join(tool))
        line = _names_line(names)
        if names_in_file != names and len(line) < _MAX_LINE:
            lines.append(line)
        if run := _stored_run(self.run):
            lines.append(_run_line(run))
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


def _cross_section_line(run: RunInfo, names: list[str]) -> str:
    """The cross section in pb, and those of the named weights where every one is known."""
    of_weights = [run.weight_cross_sections.get(name, (math.nan, math.nan)) for name in names]
    if not all(math.isfinite(value) for value, _ in of_weights):
        of_weights = []
    if not math.isfinite(run.cross_section):
        return ""
    pairs = [
        f"{float(value)!r} {float(error) if math.isfinite(error) else 0.0!r}"
        for value, error in ((run.cross_section, run.cross_section_error), *of_weights)
    ]
    return " ".join(["A 0 GenCrossSection", pairs[0], "-1 -1", *pairs[1:]]) + "\n"


def _names_line(names: list[str]) -> str:
    return f"A {NAMES_ATTRIBUTE} {escape(json.dumps(names))}"


def _run_line(run: RunInfo) -> str:
    return f"A {RUN_ATTRIBUTE} {escape(dump_run(run))}"


def _stored_run(run: RunInfo) -> RunInfo | None:
    """Run information that fits into one line, without opaque texts, which may be megabytes."""
    run = run.with_(header="", weight_groups="")
    for shorter in (run, run.with_(weight_names={}), run.with_(weight_names={}, generators=())):
        if len(_run_line(shorter)) < _MAX_LINE:
            return shorter
    return None


def lost(sample: EventSample) -> list[str]:
    """Sentences about parts of a sample and its run that HepMC3 cannot hold."""
    run, names = sample.run, [NOMINAL, *sample.weights]
    stored = _stored_run(run) or RunInfo()
    found = ["header text"] if run.header.strip() else []
    if run.weight_groups.strip():
        found.append("declarations of weight groups")
    if any(run.weight_names.values()) and not stored.weight_names:
        found.append("descriptions of weights")
    if tokens(names) != names and len(_names_line(names)) >= _MAX_LINE:
        found.append("exact names of weights")
    if any(np.isnan(w).any() for w in sample.weights.values()):
        found.append("for other programs, which named weights are absent (0 is written)")
    around = beams_and_remnants(sample)
    if around.any():
        found.append("rows of beams and remnants (the file has its own)")
    if np.any((sample.particles.get("status", 0) < -1) & ~around):
        found.append("status codes below -1 (3 is written)")
    if numbers := {"run_number", "luminosity_block"} & set(sample.events):
        found.append(" and ".join(sorted(n.replace("_", " ") + "s" for n in numbers)))
    return found


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


def _extra_lines(
    sample: EventSample, absent: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Attributes of events: named scales ``scale_...``, texts ``lhe_...``, and absent weights."""
    if not sample.scales and not sample.attributes and not absent.any():
        return np.zeros(0, dtype=np.uint8), np.zeros(len(sample) + 1, dtype=np.int64)
    columns: list[tuple[str, list[str]]] = [
        (f"scale_{k}", ["" if math.isnan(x) else repr(x) for x in v.tolist()])
        for k, v in sample.scales.items()
    ]
    columns += [(f"lhe_{k}", [str(x) for x in v.tolist()]) for k, v in sample.attributes.items()]
    columns = [("_".join(k.split()), v) for k, v in columns]
    columns.append((ABSENT, [" ".join(map(str, np.flatnonzero(row))) for row in absent]))
    lines = [
        "".join(f"A 0 {k} {escape(v[i])}\n" for k, v in columns if v[i]).encode()
        for i in range(len(sample))
    ]
    offsets = np.zeros(len(sample) + 1, dtype=np.int64)
    np.cumsum([len(line) for line in lines], out=offsets[1:])
    return np.frombuffer(b"".join(lines), dtype=np.uint8), offsets
