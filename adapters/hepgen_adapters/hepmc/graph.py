"""Conversion of HepMC event graphs to columns with mothers, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_adapters.hepmc.record import INCOMING_STATUS, REMNANT, REMNANT_STATUS
from hepgen_adapters.hepmc.text import ABSENT
from hepgen_ml.events.laws.particle_ids import is_hadron as has_quarks
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample, RunInfo

_EVENT_ATTRIBUTES = {
    "signal_process_id": ("process_id", 0.0),
    "event_scale": ("scale", -1.0),
    "alphaQED": ("alpha_qed", -1.0),
    "alphaQCD": ("alpha_qcd", -1.0),
}
_PARTICLE_ATTRIBUTES = {
    "flow1": ("color1", 0.0),
    "flow2": ("color2", 0.0),
    "spin": ("spin", UNKNOWN_SPIN),
    "lifetime": ("lifetime", 0.0),
}


def sample_from_records(
    records: list[Any], run: RunInfo, weight_names: list[str], *, ours: bool = False
) -> EventSample:
    """Columns from pyhepmc ``GenEventData`` records in GeV and mm.

    Parameters
    ----------
    records : list of GenEventData
        At least one.
    run : RunInfo
    weight_names : list of str
        The nominal weight first.
    ours : bool
        Whether hepgen-ml wrote the records, which are then not showered.

    Returns
    -------
    EventSample
        Parton-level records whole, beams and remnants left out; of other
        records the beams as incoming and the final particles.
    """
    n = len(records)
    counts = np.array([len(r.particles) for r in records], dtype=np.int64)
    first = np.concatenate([[0], np.cumsum(counts)])
    n_vertices = np.array([len(r.vertices) for r in records], dtype=np.int64)
    first_vertex = np.concatenate([[0], np.cumsum(n_vertices)])
    event = np.repeat(np.arange(n), counts)
    particles: Any = np.concatenate([r.particles for r in records])

    born, ends = _links(records, first, first_vertex)
    simple, incoming, keep = _chosen(particles, event, n, ends, int(first_vertex[-1]), ours)
    # incoming first, otherwise the order of the file
    order = np.lexsort((~incoming, event))
    order = order[keep[order]]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(event, keep, n).astype(np.int64))])
    place = np.zeros(len(particles), dtype=np.int64)  # from 1 within the event, 0 where dropped
    place[order] = np.arange(len(order)) - offsets[event[order]] + 1

    mothers = _mothers(born, ends, place, int(first_vertex[-1]))
    n_incoming = np.bincount(event, incoming, n).astype(np.int64)
    from_beams = ~simple[event] & ~incoming
    both = np.stack([np.minimum(n_incoming, 1), np.minimum(n_incoming, 2)], axis=1)
    mothers[from_beams] = both[event[from_beams]]
    mothers[incoming] = 0

    columns: dict[str, npt.ArrayLike] = {
        "pdg_id": particles["pid"][order],
        "status": np.where(incoming, -1, particles["status"])[order].astype(np.int32),
        "mother1": mothers[order, 0],
        "mother2": mothers[order, 1],
        "px": particles["px"][order],
        "py": particles["py"][order],
        "pz": particles["pz"][order],
        "energy": particles["e"][order],
        "mass": particles["mass"][order],
    }
    of_particles, of_events, scales, texts, absent = _attributes(records, first)
    columns |= {name: values[order] for name, values in of_particles.items()}
    weights = np.array([r.weights if len(r.weights) else [1.0] for r in records])
    weights = weights.reshape(n, len(weight_names))
    for row, text in zip(*absent, strict=True):
        named = {k for k, w in enumerate(weights[row]) if k and w == 0}
        missing = named & {int(k) for k in text.split() if k.isdecimal() and len(k) < 10}
        weights[row, sorted(missing)] = np.nan
    return EventSample(
        run,
        offsets,
        columns,
        of_events | {"weight": weights[:, 0]},
        weights={name: weights[:, i] for i, name in enumerate(weight_names) if i},
        scales=scales,
        attributes=texts,
    )


def _is_parton_level(particles: Any, ours: bool) -> npt.NDArray[np.bool_]:
    """Statuses of particles in records without a shower."""
    status = particles["status"]
    remnant = (particles["pid"] == REMNANT) & (status == REMNANT_STATUS)
    known: npt.NDArray[np.bool_] = np.isin(status, (0, 1, 2, 3, 4, INCOMING_STATUS)) | remnant
    if ours:
        return known
    # Programs that keep to the three statuses of the standard have hadrons, or partons that split.
    ids, inverse = np.unique(particles["pid"], return_inverse=True)
    hadron = np.array([is_hadron(int(i)) for i in ids], dtype=bool)[inverse.ravel()]
    number = np.abs(particles["pid"])
    splits = (status == 2) & ((number <= 5) | np.isin(number, (9, 21)))
    return known & ~(hadron & (status != 4)) & ~splits


@cache
def is_hadron(pdg_id: int) -> bool:
    """Whether an id belongs to a hadron, a nucleus, or a state that hadronises."""
    if abs(pdg_id) < 100:
        return 81 <= abs(pdg_id) <= 99 and pdg_id != REMNANT  # clusters and strings
    from particle import pdgid

    return bool(has_quarks(pdg_id) or pdgid.is_nucleus(pdg_id) or pdgid.is_diquark(pdg_id))


def n_showered(records: list[Any], ours: bool) -> int:
    """Number of records with information that `sample_from_records` does not read."""
    return sum(not _is_parton_level(r.particles, ours).all() for r in records)


def unknown_attributes(records: list[Any]) -> set[str]:
    """Names of attributes without a column."""
    known = {*_EVENT_ATTRIBUTES, *_PARTICLE_ATTRIBUTES, "GenCrossSection", ABSENT}
    names = set[str]().union(*(r.attribute_name for r in records)) - known
    return {name for name in names if not name.startswith(("scale_", "lhe_"))}


def _chosen(
    particles: Any,
    event: npt.NDArray[np.int64],
    n: int,
    ends: npt.NDArray[np.int64],
    n_vertices: int,
    ours: bool,
) -> tuple[npt.NDArray[np.bool_], ...]:
    """Which events (n,) are of partons, and which particles are incoming and kept."""
    status = particles["status"].astype(np.int32)
    has_partons = np.bincount(event, status == INCOMING_STATUS, n) > 0
    remnant = (particles["pid"] == REMNANT) & (status == REMNANT_STATUS)
    simple = np.bincount(event, ~_is_parton_level(particles, ours), n) == 0
    parton = status == INCOMING_STATUS
    # A particle with the whole energy of its beam meets a parton of the other beam as the beam.
    meets = np.zeros(n_vertices + 1, dtype=bool)
    meets[ends[parton]] = True
    meets[-1] = False  # no end vertex
    parton |= (status == 4) & meets[ends]
    incoming = np.where((simple & has_partons)[event], parton, status == 4)
    keep = np.where(simple[event], (status != 4) & ~remnant, status == 1) | incoming
    return simple, incoming, keep


def _links(
    records: list[Any], first: npt.NDArray[np.int64], first_vertex: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Production and end vertex of each particle, counted over the chunk; -1 for none."""
    lengths = [len(r.links1) for r in records]
    event = np.repeat(np.arange(len(records)), lengths)
    a = np.concatenate([r.links1 for r in records] or [np.zeros(0, np.int64)]).astype(np.int64)
    b = np.concatenate([r.links2 for r in records] or [np.zeros(0, np.int64)]).astype(np.int64)
    born = np.full(first[-1], -1)
    ends = np.full(first[-1], -1)
    enters, leaves = (a > 0) & (b < 0), (a < 0) & (b > 0)
    ends[(first[event] + a - 1)[enters]] = (first_vertex[event] - b - 1)[enters]
    born[(first[event] + b - 1)[leaves]] = (first_vertex[event] - a - 1)[leaves]
    return born, ends


def _mothers(
    born: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    n_vertices: int,
) -> npt.NDArray[np.int64]:
    """First and last kept mother of each particle, 0 for none."""
    lowest = np.full(n_vertices + 1, np.iinfo(np.int64).max)
    highest = np.zeros(n_vertices + 1, dtype=np.int64)
    mother = (ends >= 0) & (place > 0)
    np.minimum.at(lowest, ends[mother], place[mother])
    np.maximum.at(highest, ends[mother], place[mother])
    lowest[highest == 0] = 0
    return np.stack([lowest[born], highest[born]], axis=1)  # -1 is the extra, empty vertex


def _attributes(records: list[Any], first: npt.NDArray[np.int64]) -> tuple[Any, ...]:
    """Attributes as columns: of particles, of events, named scales, texts; and absent weights."""
    n = len(records)
    found: dict[str, tuple[list[int], list[str]]] = {}
    for i, record in enumerate(records):
        base = int(first[i]) - 1
        for owner, name, text in zip(
            record.attribute_id, record.attribute_name, record.attribute_string, strict=True
        ):
            key = name if owner == 0 else f"particle {name}"
            if owner >= 0:
                rows, texts = found.setdefault(key, ([], []))
                rows.append(i if owner == 0 else base + owner)
                texts.append(text)
    particles, events = {}, {}
    for name, (column, missing) in _PARTICLE_ATTRIBUTES.items():
        particles[column] = _numbers(found.get(f"particle {name}"), int(first[-1]), missing)
    for name, (column, missing) in _EVENT_ATTRIBUTES.items():
        events[column] = _numbers(found.get(name), n, missing)
    scales, texts_ = {}, {}
    for name, entries in found.items():
        if name.startswith("scale_"):
            scales[name[6:]] = _numbers(entries, n, np.nan)
        elif name.startswith("lhe_"):
            values = np.full(n, "", dtype=object)
            values[entries[0]] = [t.replace("\\|", "\n").replace("\\\\", "\\") for t in entries[1]]
            texts_[name[4:]] = values.astype(str)
    return particles, events, scales, texts_, found.get(ABSENT, ([], []))


def _numbers(
    entries: tuple[list[int], list[str]] | None, length: int, missing: float
) -> npt.NDArray[np.float64]:
    column = np.full(length, missing)
    if entries is not None:
        for row, text in zip(*entries, strict=True):
            try:
                column[row] = float(text)
            except ValueError:
                column[row] = missing
    return column


def event_attributes(records: list[Any], names: Sequence[str]) -> dict[str, npt.NDArray[np.str_]]:
    """Attributes of events with these names (n,), empty where an event has none."""
    found = {name: [""] * len(records) for name in names}
    for i, record in enumerate(records if names else ()):
        for owner, name, text in zip(
            record.attribute_id, record.attribute_name, record.attribute_string, strict=True
        ):
            key = name if name in found else name.removeprefix("lhe_")
            if owner == 0 and key in found:
                found[key][i] = text
    return {name: np.array(texts) for name, texts in found.items() if any(texts)}
